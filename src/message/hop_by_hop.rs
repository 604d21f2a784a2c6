//! Fields that are meant for one connection and end there (RFC 9110 §7.6.1): which they are, what `Connection` may name,
//! and what is taken off messages that go on.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{
    byte_class::TOKEN,
    fields::{self, items},
    upgrade,
    violation::Violation,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that HTTP/2 does not have (RFC 9113 §8.2.2).
pub(crate) static NOT_IN_HTTP2: [HeaderName; 6] =
    [header::TE, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];

/// What a request that the gateway sends by itself must not have of the client's; `Expect`, because nobody waits for its
/// answer.
const OF_CLIENT: [HeaderName; 9] = [
    header::CONNECTION,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Fields that no configuration edits: they decide where a message ends, or which connection it belongs to.
pub(crate) const NOT_EDITABLE: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    KEEP_ALIVE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The most items of `Connection`; Pingora refuses a request with more when its backend waits for it already
/// (`proxy_common.rs`).
const MOST_OPTIONS: usize = 9;

/// Fields that `Connection` must not name: they are not this hop's alone, and whoever takes them away changes what the
/// message says.
const NOT_OF_CONNECTION: [&[u8]; 9] = [
    b"host",
    b"content-length",
    b"content-type",
    b"transfer-encoding",
    b"authorization",
    b"cookie",
    b"forwarded",
    b"cache-control",
    b"x-real-ip",
];

/// Checks one line of `Connection`, and tells `each` of its items. `count` is how many there have been.
pub(crate) fn options(line: &[u8], count: &mut usize, mut each: impl FnMut(&[u8])) -> Result<(), Violation> {
    for option in items(line).filter(|option| !option.is_empty()) {
        *count += 1;
        if !option.iter().all(|byte| TOKEN.has(*byte)) {
            return Err("the Connection field is malformed");
        }
        let forwarded = option.get(..12).is_some_and(|start| start.eq_ignore_ascii_case(b"x-forwarded-"));
        if forwarded || NOT_OF_CONNECTION.iter().any(|name| option.eq_ignore_ascii_case(name)) {
            return Err("the Connection field names a field that is not of this connection");
        }
        each(option);
    }
    if *count > MOST_OPTIONS { Err("the Connection field names too much") } else { Ok(()) }
}

/// The fields that `Connection` names, but `Keep-Alive`, which nearly every message names and no other hop is to see either way.
pub(crate) fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let names = lines.flat_map(|line| items(line.as_bytes())).filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"));
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

/// Takes off a copy of a request what was meant for the client's connection. Of requests that Pingora forwards, it does so
/// itself.
pub(crate) fn strip_request(head: &mut RequestHeader) {
    for name in nominated(&head.headers).iter().chain(&OF_CLIENT) {
        head.remove_header(name);
    }
}

/// Takes off an answer what the backend meant for this hop alone; the `Connection` field itself Pingora replaces.
pub(crate) fn strip_response(head: &mut ResponseHeader) {
    static FIELDS: [HeaderName; 5] = [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::UPGRADE, header::CONNECTION];
    let [rest @ .., upgrade, connection] = fields::present(&head.headers, &FIELDS);
    for (name, _) in FIELDS.iter().zip(rest).filter(|(_, there)| *there) {
        head.remove_header(name);
    }
    if upgrade && !upgrade::is_said_by(head.status) {
        head.remove_header(&header::UPGRADE);
    }
    // What nearly every backend says names a field that has just been taken away.
    let plain = |line: &HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    if head.status == StatusCode::SWITCHING_PROTOCOLS
        || !connection
        || head.headers.get_all(header::CONNECTION).iter().all(plain)
    {
        return;
    }
    let names = nominated(&head.headers);
    // Framing is not a backend's to take away; and 426 must say which protocol.
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE];
    for name in names.iter().filter(|name| !framing.contains(name)) {
        head.remove_header(name);
    }
}

/// The same for an interim answer, of which Pingora replaces nothing.
pub(crate) fn strip_interim(head: &mut ResponseHeader) {
    if head.headers.is_empty() {
        return;
    }
    strip_response(head);
    head.remove_header(&header::CONNECTION);
}
