//! The one place that writes answers of the gateway's own. It runs the chain's response phase, because Pingora's
//! `response_filter` is not called for what we write ourselves: without it errors would lack CORS headers, request id
//! and security headers.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::{
    http::ResponseHeader,
    protocols::http::{HttpTask, date::get_cached_date},
    proxy::Session,
};

use super::{
    arrival,
    context::{Author, Context},
};
use crate::{
    filter::RequestId,
    message::{
        grpc, hops,
        reply::{Reply, ReplyBody},
    },
};

/// Writes `reply` and notes who made it.
pub(super) async fn respond(
    session: &mut Session,
    context: &mut Context,
    reply: Reply,
    by: Author,
) -> pingora::Result<()> {
    context.author = by;
    let detail = match &reply.body {
        ReplyBody::Problem { detail, .. } => detail.clone(),
        ReplyBody::Empty | ReplyBody::Bytes(..) => "".into(),
    };
    // A client that still waits to be told to send its body would take the end of this answer for the end of that.
    let waits = session.req_header().headers.contains_key(header::EXPECT);
    if reply.close || waits {
        session.set_keepalive(None);
    }
    let (mut head, mut body) = build(reply, &context.state.id)?;
    let refused = head.status.is_client_error() || head.status.is_server_error();
    if refused && grpc::is(&session.req_header().headers) {
        // Metrics and logs tell what happened, not how it was wrapped.
        context.wrapped = Some(head.status);
        grpc::trailers_only(&mut head, &detail, arrival::is_http2(session))?;
        body = Bytes::new();
    }
    if let Some(route) = &context.route {
        route.chain.response(&mut head, &mut context.state);
    }
    let silent = session.req_header().method == Method::HEAD || body.is_empty();
    if silent && arrival::is_http2(session) {
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

/// True while an answer can still be begun: interim ones do not count, but after 101 the connection is another protocol's.
pub(super) fn is_open(session: &Session) -> bool {
    let begun =
        |head: &ResponseHeader| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
    !session.response_written().is_some_and(begun)
}

/// The answer to a head that could not be read in one way only.
pub(super) fn malformed(reason: &'static str) -> Reply {
    Reply::problem(StatusCode::BAD_REQUEST, reason)
}

/// The answer to a head that outgrew its limits before it ended; `target`: still in its first line.
pub(super) fn too_large(target: bool) -> Reply {
    if target {
        Reply::problem(StatusCode::URI_TOO_LONG, "the request target is too long")
    } else {
        Reply::problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the header fields are too large")
    }
}

/// The answer to CONNECT and TRACE, with the methods that there are (RFC 9110 §15.5.6).
pub(super) fn no_such_method() -> Reply {
    let reply = Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "this method is not available here");
    reply.header(header::ALLOW, hops::allow(Vec::new()))
}

/// The answer to a method that is longer than any that there is (RFC 9112 §3).
pub(super) fn unknown_method() -> Reply {
    Reply::problem(StatusCode::NOT_IMPLEMENTED, "this method is not known here")
}

/// The answer to a head that did not come in time.
pub(super) fn too_slow() -> Reply {
    Reply::problem(StatusCode::REQUEST_TIMEOUT, "the request came too slowly")
}

/// An answer as bytes, for a connection that Pingora's HTTP layer has not seen yet; it says that it closes.
pub(super) fn plain(reply: Reply, id: &RequestId) -> pingora::Result<Vec<u8>> {
    let (mut head, body) = build(reply, id)?;
    head.insert_header(header::CONNECTION, HeaderValue::from_static("close"))?;
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    head.header_to_h1_wire(&mut out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    Ok(out)
}

/// The head and the body of an answer.
fn build(reply: Reply, id: &RequestId) -> pingora::Result<(ResponseHeader, Bytes)> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 8))?;
    let (media, body) = match reply.body {
        ReplyBody::Empty => (None, Bytes::new()),
        ReplyBody::Bytes(media, bytes) => (Some(media), bytes),
        ReplyBody::Problem { kind, detail, members } => {
            let text = problem(reply.status, kind, &detail, members.as_deref(), id);
            (Some(HeaderValue::from_static("application/problem+json")), text.into())
        }
    };
    head.insert_header(header::DATE, get_cached_date())?;
    if let Some(media) = media {
        head.insert_header(header::CONTENT_TYPE, media)?;
    }
    // 204 and 304 have neither body nor length (RFC 9110 §8.6).
    if !matches!(reply.status.as_u16(), 204 | 304) {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(body.len()))?;
    }
    if reply.status.is_client_error() || reply.status.is_server_error() {
        head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    }
    for (name, value) in reply.headers {
        head.append_header(name, value)?;
    }
    Ok((head, body))
}

/// `application/problem+json` (RFC 9457).
fn problem(status: StatusCode, kind: Option<&str>, detail: &str, members: Option<&str>, id: &RequestId) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut member = |name: &str, value: &str| {
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        // Writing a string to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, value);
    };
    member("type", kind.unwrap_or("about:blank"));
    member("title", status.canonical_reason().unwrap_or("Error"));
    member("detail", detail);
    out.extend_from_slice(b",\"status\":");
    out.extend_from_slice(itoa::Buffer::new().format(status.as_u16()).as_bytes());
    if let Some(members) = members {
        out.push(b',');
        out.extend_from_slice(members.as_bytes());
    }
    out.extend_from_slice(b",\"request_id\":");
    let _ = serde_json::to_writer(&mut out, &id.to_string());
    out.push(b'}');
    out
}
