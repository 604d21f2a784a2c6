//! Replies that several places make.

use http::{HeaderValue, Method, StatusCode, header};

use super::{hops, reason::Reason, reply::Reply};

/// The answer to a head that could not be read in one way only.
pub(crate) fn malformed(reason: &'static str) -> Reply {
    Reply::problem(StatusCode::BAD_REQUEST, reason).because(Reason::Malformed)
}

/// The answer to a head that outgrew its limits before it ended; `target`: still in its first line.
pub(crate) fn too_large(target: bool) -> Reply {
    let reply = if target {
        Reply::problem(StatusCode::URI_TOO_LONG, "the request target is too long")
    } else {
        Reply::problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the header fields are too large")
    };
    reply.because(Reason::HeadTooLarge)
}

/// The answer to CONNECT and TRACE, with the methods that there are (RFC 9110 §15.5.6).
pub(crate) fn no_such_method() -> Reply {
    method_not_allowed(hops::allow(Vec::new()))
}

/// 405 with what `Allow` says (RFC 9110 §15.5.6).
pub(crate) fn method_not_allowed(allow: HeaderValue) -> Reply {
    let reply = Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "this method is not available here");
    reply.header(header::ALLOW, allow).because(Reason::Method)
}

/// The answer to a method that is longer than any that there is (RFC 9112 §3).
pub(crate) fn unknown_method() -> Reply {
    Reply::problem(StatusCode::NOT_IMPLEMENTED, "this method is not known here").because(Reason::Method)
}

/// The answer to a head that did not come in time.
pub(crate) fn too_slow() -> Reply {
    Reply::problem(StatusCode::REQUEST_TIMEOUT, "the request came too slowly").because(Reason::RequestTimeout)
}

/// The answer when the backend's has not come in time, for this `reason`.
pub(crate) fn too_late(reason: Reason) -> Reply {
    Reply::problem(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time").because(reason)
}

/// The answer when the process ends before there is another one.
pub(crate) fn shutting_down() -> Reply {
    Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is leaving: try again").because(Reason::Shutdown)
}

/// A page that can only be read, and was asked for otherwise.
pub(crate) fn read_only(method: &Method) -> Option<Reply> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let reply = Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read");
    Some(reply.header(header::ALLOW, HeaderValue::from_static("GET, HEAD")).because(Reason::Method).closing())
}
