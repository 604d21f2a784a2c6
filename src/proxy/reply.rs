//! The one place that writes answers of the gateway's own. It runs the chain's response phase, because Pingora's
//! `response_filter` is not called for what we write ourselves: without it errors would lack CORS headers, request id
//! and security headers.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::{
    http::{RequestHeader, ResponseHeader},
    protocols::http::{HttpTask, date::get_cached_date},
    proxy::Session,
};

use super::{compression, context::Context, keep_alive, request};
use crate::{
    message::{
        grpc,
        reason::Reason,
        reply::{Reply, ReplyBody},
        reply_wire::build,
        source::ResponseSource,
    },
    proxy::cached::{follow, serve::Served},
    runtime::underway::Follower,
};

/// Writes `reply` and notes who made it.
pub(crate) async fn respond(
    session: &mut Session,
    context: &mut Context,
    reply: Reply,
    by: ResponseSource,
) -> pingora::Result<()> {
    if closes(&reply, session.req_header()) {
        keep_alive::end(session);
    }
    let grpc = grpc::is(&session.req_header().headers);
    let (head, body) = compose(context, reply, by, grpc, request::is_http2(session))?;
    let silent = session.req_header().method == Method::HEAD || body.is_empty();
    if silent && request::is_http2(session) {
        // The end is said with the head: gRPC's clients take nothing else for an answer without messages.
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
        return Ok(());
    }
    session.write_response_header(Box::new(head), silent).await?;
    if !silent {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Writes a stored answer.
pub(crate) async fn give(session: &mut Session, context: &mut Context, served: Served) -> pingora::Result<()> {
    if session.req_header().headers.contains_key(header::EXPECT) {
        keep_alive::end(session);
    }
    let Served { head, mut parts, whole, rest } = served;
    let mut head = finish(context, head)?;
    if let Some(terms) = context.state.compress.take() {
        let coded = if whole { compression::kept(session.req_header(), &mut head, &terms, context)? } else { None };
        match coded {
            Some(coded) => parts = coded.parts().to_vec(),
            None => drop(compression::begin(session, &mut head, terms)?),
        }
    }
    let bodiless = parts.is_empty() && rest.is_none();
    if bodiless && request::is_http2(session) {
        return session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await.map(drop);
    }
    session.write_response_header(Box::new(head), bodiless).await?;
    if let Some(rest) = rest {
        return Box::pin(write_followed(session, rest, context.deadline)).await;
    }
    let last = parts.len().saturating_sub(1);
    for (number, part) in parts.into_iter().enumerate() {
        session.write_response_body(Some(part), number == last).await?;
    }
    Ok(())
}

/// Writes a body as it comes.
async fn write_followed(session: &mut Session, mut rest: Follower, deadline: Option<Instant>) -> pingora::Result<()> {
    loop {
        match follow::next(&mut rest)? {
            Some(part) => session.write_response_body(Some(part), rest.has_ended()).await?,
            None => follow::more(&mut rest, deadline).await?,
        }
        if rest.has_ended() {
            return Ok(());
        }
    }
}

/// The head of a stored answer as the client is to see it, after the chain's response phase.
pub(super) fn finish(context: &mut Context, head: ResponseHeader) -> pingora::Result<ResponseHeader> {
    let mut head = head;
    context.answered_by = ResponseSource::Cache;
    if !head.headers.contains_key(header::DATE) {
        head.insert_header(header::DATE, get_cached_date())?;
    }
    if let Some(route) = &context.route {
        route.chain.response(&mut head, &mut context.state);
    }
    if let Some(cached) = &context.cached {
        cached.say(&mut head)?;
    }
    Ok(head)
}

/// True when the connection ends after `reply` to a request with this `head`.
pub(super) fn closes(reply: &Reply, head: &RequestHeader) -> bool {
    // A client that still waits to be told to send its body would take the end of this answer for the end of that.
    reply.close || head.headers.contains_key(header::EXPECT)
}

/// The head and the body of `reply`, as the client is to see them.
pub(super) fn compose(
    context: &mut Context,
    reply: Reply,
    by: ResponseSource,
    grpc: bool,
    http2: bool,
) -> pingora::Result<(ResponseHeader, Bytes)> {
    context.answered_by = by;
    let filter =
        matches!(by, ResponseSource::Filter(_)) && !reply.status.is_success() && !reply.status.is_redirection();
    context.reason = reply.reason.or(filter.then_some(Reason::Refused));
    let detail = match &reply.body {
        ReplyBody::Problem { detail, .. } => detail.clone(),
        ReplyBody::Empty | ReplyBody::Bytes(..) => "".into(),
    };
    let (mut head, mut body) = build(reply, &context.state.id);
    let refused = head.status.is_client_error() || head.status.is_server_error();
    if refused && grpc {
        // Metrics and logs tell what happened, not how it was wrapped.
        context.http_status_before_grpc = Some(head.status);
        grpc::trailers_only(&mut head, &detail, http2)?;
        context.grpc_status = grpc::said(&head.headers);
        body = Bytes::new();
    }
    if let Some(route) = &context.route {
        route.chain.response(&mut head, &mut context.state);
    }
    if let (ResponseSource::Cache, Some(cached)) = (by, &context.cached) {
        cached.say(&mut head)?;
    }
    Ok((head, body))
}

/// True while an answer can still be begun: interim ones do not count, but after 101 the connection is another protocol's.
pub(crate) fn is_open(session: &Session) -> bool {
    let begun =
        |head: &ResponseHeader| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
    !session.response_written().is_some_and(begun)
}
