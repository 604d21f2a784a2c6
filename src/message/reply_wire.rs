//! A reply as a response head and bytes.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use pingora::{http::ResponseHeader, protocols::http::date::get_cached_date};

use super::{
    fields::number,
    json,
    reply::{Reply, ReplyBody},
    request_id::RequestId,
};

/// An answer as bytes, for a connection that Pingora's HTTP layer has not seen yet; it says that it closes.
pub(crate) fn plain(reply: Reply, id: &RequestId) -> Vec<u8> {
    let (head, body) = build(reply, id);
    wire(head, &body)
}

/// The same of a head and a body that have been built.
pub(crate) fn wire(mut head: ResponseHeader, body: &Bytes) -> Vec<u8> {
    // It is a value that any field can have.
    let _ = head.insert_header(header::CONNECTION, HeaderValue::from_static("close"));
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    head.header_to_h1_wire(&mut out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// The head and the body of an answer.
pub(crate) fn build(reply: Reply, id: &RequestId) -> (ResponseHeader, Bytes) {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = reply.status;
    let fields = &mut parts.headers;
    // Beside those below, the steps of a chain add a few.
    fields.reserve(reply.headers.len() + 12);
    let (media, body) = match reply.body {
        ReplyBody::Empty => (None, Bytes::new()),
        ReplyBody::Bytes(media, bytes) => (Some(media), bytes),
        ReplyBody::Problem { kind, detail, members } => {
            let text = problem(reply.status, kind, &detail, members.as_deref(), id);
            (Some(HeaderValue::from_static("application/problem+json")), text.into())
        }
    };
    fields.insert(header::DATE, get_cached_date());
    if let Some(media) = media {
        fields.insert(header::CONTENT_TYPE, media);
    }
    // 204 and 304 have neither body nor length (RFC 9110 §8.6).
    if !matches!(reply.status.as_u16(), 204 | 304) {
        fields.insert(header::CONTENT_LENGTH, number(body.len() as u64));
    }
    if reply.status.is_client_error() || reply.status.is_server_error() {
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    for (name, value) in reply.headers {
        fields.append(name, value);
    }
    (ResponseHeader::from(parts), body)
}

/// `application/problem+json` (RFC 9457).
pub(crate) fn problem(
    status: StatusCode,
    kind: Option<&str>,
    detail: &str,
    members: Option<&str>,
    id: &RequestId,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    out.extend_from_slice(b"{\"type\":");
    json::string(&mut out, kind.unwrap_or("about:blank"));
    // Of all titles none needs an escape.
    out.extend_from_slice(b",\"title\":\"");
    out.extend_from_slice(status.canonical_reason().unwrap_or("Error").as_bytes());
    out.extend_from_slice(b"\",\"detail\":");
    json::string(&mut out, detail);
    out.extend_from_slice(b",\"status\":");
    out.extend_from_slice(itoa::Buffer::new().format(status.as_u16()).as_bytes());
    if let Some(members) = members {
        out.push(b',');
        out.extend_from_slice(members.as_bytes());
    }
    out.extend_from_slice(b",\"request_id\":");
    out.push(b'"');
    id.append_to(&mut out);
    out.extend_from_slice(b"\"}");
    out
}
