//! An answer that the gateway has asked for itself, on its way to the client.

use http::{HeaderMap, HeaderValue, Version, header};
use pingora::{
    Error,
    connectors::http::Connector,
    protocols::http::{HttpTask, client::HttpSession},
    proxy::Session,
};

use crate::{
    proxy::{cached::arrival, context::Context, request, response, waiting::left},
    runtime::Shared,
    upstream::exchange::Answer,
};

/// Hands the answer to the client, through the same hooks as every other.
pub(super) async fn deliver(
    shared: &Shared,
    session: &mut Session,
    context: &mut Context,
    answer: Answer,
    connector: &Connector,
) -> pingora::Result<()> {
    let mut answer = answer;
    let mut head = answer.head.clone();
    let done = answer.session.response_done();
    response::rename(&mut head, context)?;
    arrival::head(shared, session.req_header(), &mut head, context);
    let framed = head.headers.contains_key(header::CONTENT_LENGTH)
        || head.headers.contains_key(header::TRANSFER_ENCODING)
        || matches!(head.status.as_u16(), 204 | 304);
    if !framed && !done && !request::is_http2(session) {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    if !request::is_http2(session) {
        // Pingora writes no head of HTTP/2 to a client of HTTP/1.
        head.set_version(Version::HTTP_11);
    }
    response::head(shared, session, &mut head, context)?;
    // As tasks: these are written out at once, and not when enough has come together.
    session.write_response_tasks(vec![HttpTask::Header(Box::new(head), done)]).await?;
    let mut ended = done;
    while !ended {
        let mut body = tokio::select! {
            biased;
            body = answer.session.read_response_body() => body.map_err(Error::into_up)?,
            gone = left(session) => return Err(gone),
        };
        let end = body.is_none();
        arrival::body(shared, session.req_header(), body.as_ref(), end, context);
        if end && let Some(trailers) = trailers(session, &mut answer.session).await? {
            // Not as one of the ends that Pingora knows: a body that ends leaves no room for trailers.
            response::body(session, &mut body, true, context)?;
            session.downstream_modules_ctx.response_body_filter(&mut body, true)?;
            let tasks = vec![HttpTask::Body(body, false), HttpTask::Trailer(Some(Box::new(trailers)))];
            session.as_downstream_mut().response_duplex_vec(tasks).await?;
            break;
        }
        response::body(session, &mut body, end, context)?;
        session.write_response_tasks(vec![HttpTask::Body(body, end)]).await?;
        ended = end;
    }
    if done {
        response::body(session, &mut None, true, context)?;
    }
    if answer.session.response_done() {
        answer.release(connector).await;
    }
    Ok(())
}

/// What a backend that speaks HTTP/2 says after the body, for a client that does.
async fn trailers(session: &Session, answer: &mut HttpSession) -> pingora::Result<Option<HeaderMap>> {
    match answer {
        HttpSession::H2(answer) if request::is_http2(session) => answer.read_trailers().await.map_err(Error::into_up),
        _ => Ok(None),
    }
}
