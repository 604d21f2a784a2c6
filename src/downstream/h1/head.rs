//! A head that has been verified, as a request. Values share the bytes that were read.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::message::request_head;

/// How names of fields are handed on over HTTP/1, to backends and to clients. HTTP itself makes no difference (RFC 9110 §5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderNames {
    /// Well-known ones as the RFCs write them (`User-Agent`), others in lower case.
    #[default]
    Canonical,
    /// As they were sent, for backends or clients that do make a difference. It costs a little for each request.
    AsSent,
}

/// Room for what is told to the backend beside what the client has sent: it would be made in several steps otherwise.
const MORE: usize = 8;

/// Reads `head`, which has passed `request_head::verify` and has so many `fields`; `None` when a part of it is nothing that
/// the `http` crate can hold.
pub(crate) fn parse(head: Vec<u8>, fields: usize, names: HeaderNames) -> Option<RequestHeader> {
    let head = Bytes::from(head);
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = start;
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers.try_reserve(fields + MORE).ok()?;
    let line = next_line(&head, &mut at)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    parts.method = Method::from_bytes(method).ok()?;
    parts.version = if version == b"HTTP/1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
    let origin_form = target.starts_with(b"/") && target.is_ascii();
    if origin_form {
        parts.uri = Uri::from_maybe_shared(head.slice_ref(target)).ok()?;
    }
    // The one way to have names kept as they were sent is to build it with them.
    let mut with_case = match names {
        HeaderNames::Canonical => None,
        HeaderNames::AsSent => Some(RequestHeader::build(method, target, Some(fields + MORE)).ok()?),
    };
    while let Some(line) = next_line(&head, &mut at).filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], head.slice_ref(line[colon + 1..].trim_ascii()));
        let value = HeaderValue::from_maybe_shared(value).ok()?;
        match &mut with_case {
            None => parts.headers.try_append(HeaderName::from_bytes(name).ok()?, value).ok()?,
            Some(request) => request.append_header(head.slice_ref(name), value).ok()?,
        };
    }
    if let Some(mut request) = with_case {
        request.set_version(parts.version);
        return Some(request);
    }
    let mut request = RequestHeader::from(parts);
    if !origin_form {
        request.set_raw_path(target).ok()?;
    }
    Some(request)
}

/// The line that begins at `at`, without its CRLF; `at` moves on to the next one.
fn next_line<'h>(head: &'h [u8], at: &mut usize) -> Option<&'h [u8]> {
    let rest = head.get(*at..)?;
    let length = request_head::line_length(rest)?;
    *at += length;
    rest[..length].strip_suffix(b"\r\n")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_are_kept_as_they_were_sent_on_demand() {
        for (names, expected) in
            [(HeaderNames::Canonical, "Host: h\r\nx-a: 1\r\n"), (HeaderNames::AsSent, "host: h\r\nX-a: 1\r\n")]
        {
            let head = parse(b"GET http://h/ HTTP/1.0\r\nhost: h\r\nX-a:1\r\n\r\n".to_vec(), 2, names).unwrap();
            let mut wire = Vec::new();
            head.header_to_h1_wire(&mut wire);
            assert_eq!((String::from_utf8(wire).unwrap().as_str(), head.version), (expected, Version::HTTP_10));
            assert_eq!((head.raw_path(), head.uri.path()), (&b"http://h/"[..], "/"), "{names:?}");
        }
    }

    #[test]
    fn reads_what_was_sent() {
        let head = parse(
            b"\r\nGET /a?b=%20 HTTP/1.1\r\nHost: h\r\nX-Two: a \r\nx-two:\tb\r\nEmpty:\r\n\r\n".to_vec(),
            4,
            HeaderNames::Canonical,
        )
        .unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("GET", "/a?b=%20"));
        assert_eq!((head.version, head.raw_path()), (Version::HTTP_11, &b"/a?b=%20"[..]));
        let two: Vec<_> = head.headers.get_all("x-two").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!((two, head.headers["empty"].len()), (vec![&b"a"[..], b"b"], 0));
        let head = parse(b"OPTIONS * HTTP/1.0\r\n\r\n".to_vec(), 0, HeaderNames::Canonical).unwrap();
        assert_eq!((head.raw_path(), head.uri.path(), head.version), (&b"*"[..], "*", Version::HTTP_10));
        let head = parse(b"GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), 1, HeaderNames::Canonical).unwrap();
        assert_eq!(head.raw_path(), "/ä".as_bytes(), "what is refused later is kept as it came");
    }
}
