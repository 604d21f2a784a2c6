//! What an intermediary owes those who count or trace intermediaries: `Via` (RFC 9110 §7.6.3) and `Max-Forwards`
//! (§7.6.2, which only OPTIONS and TRACE have; TRACE is refused).

use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::{ErrorType, OrErr as _, http::RequestHeader};

use super::{edit::FieldsMut, forwarded::joined, reply::Reply};

const MAX_FORWARDS: HeaderName = header::MAX_FORWARDS;

/// Adds this hop to `Via`. `version`: what the client spoke.
pub(crate) fn add_via(fields: &mut dyn FieldsMut, version: Version) -> pingora::Result<()> {
    let own = match version {
        Version::HTTP_10 => "1.0 tollgate",
        Version::HTTP_2 => "2 tollgate",
        _ => "1.1 tollgate",
    };
    let via = match joined(fields.all(), &header::VIA) {
        Some(before) => HeaderValue::try_from([&before[..], b", ", own.as_bytes()].concat())
            .or_err(ErrorType::InvalidHTTPHeader, "a list of hops")?,
        None => HeaderValue::from_static(own),
    };
    fields.insert(header::VIA, via)
}

/// How many hops an OPTIONS request may still take; `None`: any number.
fn left(head: &RequestHeader) -> Option<u64> {
    if head.method != Method::OPTIONS {
        return None;
    }
    head.headers.get(MAX_FORWARDS)?.to_str().ok()?.parse().ok()
}

/// The answer to a request that must not be forwarded, with the methods that its route takes.
pub(crate) fn last(head: &RequestHeader, methods: &[Method]) -> Option<Reply> {
    (left(head)? == 0).then(|| {
        let reply = Reply::empty(StatusCode::NO_CONTENT);
        reply.header(header::ALLOW, allow(methods.to_vec()))
    })
}

/// One hop less.
pub(crate) fn count_down(head: &mut RequestHeader) -> pingora::Result<()> {
    match left(head) {
        Some(left) => head.insert_header(MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1))),
        None => Ok(()),
    }
}

/// The value of `Allow`; none named: every method that is let through.
pub(crate) fn allow(mut methods: Vec<Method>) -> HeaderValue {
    if methods.is_empty() {
        return HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    }
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    let mut names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    names.sort_unstable();
    names.dedup();
    HeaderValue::try_from(names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}
