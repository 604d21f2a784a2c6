//! Strict reading of an HTTP/1 head, before a more lenient parser sees it (RFC 9112).
//!
//! The problem: Pingora takes bare LF as a line end, takes `Content-Length` away beside `Transfer-Encoding`, and answers
//! what it cannot read with an empty 400. Whatever two parsers may read differently is refused here, with the reason.
//! It looks at bytes only: sizes and the path are judged on the parsed head (`downstream/validate.rs`), chunks as they pass
//! (`chunked.rs`).

use std::ops::Range;

use http::Version;

use super::{
    byte_class::{TOKEN, has_control},
    framing::{Body, Framing},
    hop_by_hop,
    target::{self, RequestTarget},
    upgrade::UpgradeFields,
    violation::Violation,
};

/// The length of the head in `bytes`, with its final empty line; `None` while it is incomplete. Bare LF ends lines here
/// too, so that a head written with them is found, and refused.
pub(crate) fn head_length(bytes: &[u8], searched: usize) -> Option<usize> {
    // An end may straddle two reads by up to three bytes.
    let mut at = searched.saturating_sub(3).max(leading_lines(bytes));
    loop {
        at += line_length(bytes.get(at..)?)?;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// The length of the first line, with its LF.
pub(crate) fn line_length(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

/// Empty lines before the request line, which a server should skip (RFC 9112 §2.2).
fn leading_lines(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len())
}

/// What a head that is accepted says of the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeadInfo {
    /// What follows it.
    pub(crate) body: Body,
    /// A target in absolute form stands there, and this is its origin form (RFC 9112 §3.2.2).
    pub(crate) rewrite: Option<(Range<usize>, Vec<u8>)>,
    /// The host of that target, when there is no `Host` field to say it: HTTP/1.0 has requests without one.
    pub(crate) host: Option<Vec<u8>>,
    /// Where the request line begins.
    pub(crate) start: usize,
    /// The length of the method.
    pub(crate) method: usize,
    /// How many fields there are.
    pub(crate) fields: usize,
    /// It asks for another protocol.
    pub(crate) upgrade: bool,
}

/// The fields that decide about a message, as they are met.
#[derive(Default)]
struct Seen {
    /// Items of `Connection`.
    options: usize,
    framing: Framing,
    hosts: u32,
    upgrade: UpgradeFields,
}

/// Checks a complete head; `secure`: it came over TLS.
pub(crate) fn verify(head: &[u8], secure: bool) -> Result<HeadInfo, Violation> {
    let start = leading_lines(head);
    if start > 4 || head[..start].chunks(2).any(|line| line != b"\r\n") {
        return Err("there is more than an empty line or two before the request");
    }
    let mut lines = Lines(&head[start..]);
    let (method, target, version) = request_line(lines.next().ok_or("the request line is missing")??)?;
    let form = target::read(method, target).ok_or("the request target is malformed")?;
    if !secure && matches!(form, RequestTarget::Absolute { secure: true, .. }) {
        return Err("this port does not speak TLS: use http");
    }
    let (mut seen, mut fields) = (Seen::default(), 0);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        fields += 1;
        let (name, value) = field(line)?;
        seen.note(name, value, form)?;
    }
    match seen.hosts {
        1 => {}
        0 if version == Version::HTTP_10 => {}
        0 => return Err("the Host field is missing"),
        _ => return Err("there is more than one Host field"),
    }
    let body = seen.framing.body(version)?;
    // What follows the head must not be a body for one and the new protocol for the other.
    if seen.upgrade.ask() && seen.framing.announces_body() {
        return Err("a request for an upgrade has no body");
    }
    let (rewrite, host) = match form {
        RequestTarget::Absolute { host, rest, .. } => {
            let from = start + method.len() + 1;
            let rewrite = (from..from + target.len(), origin_form(method, rest));
            (Some(rewrite), (seen.hosts == 0).then(|| host.to_vec()))
        }
        _ => (None, None),
    };
    Ok(HeadInfo { body, rewrite, host, start, method: method.len(), fields, upgrade: seen.upgrade.ask() })
}

/// The path of a target in absolute form, which may have been left out.
fn origin_form(method: &[u8], rest: &[u8]) -> Vec<u8> {
    match rest {
        [] if method == b"OPTIONS" => b"*".to_vec(),
        [b'/', ..] => rest.to_vec(),
        _ => [b"/", rest].concat(),
    }
}

impl Seen {
    fn note(&mut self, name: &[u8], value: &[u8], form: RequestTarget<'_>) -> Result<(), Violation> {
        if name.eq_ignore_ascii_case(b"content-length") {
            self.framing.length(value)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.framing.coding(value)?;
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            if !target::is_host(value) {
                return Err("the Host field is malformed");
            }
            if let RequestTarget::Absolute { host, .. } = form
                && !host.eq_ignore_ascii_case(value)
            {
                return Err("the request target and the Host field disagree");
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade.protocols(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            hop_by_hop::options(value, &mut self.options, |option| self.upgrade.option(option))?;
        }
        Ok(())
    }
}

/// Fields that a trailer section must not have: they frame, route, authenticate or describe the message, and came too
/// late for that (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: [&[u8]; 14] = [
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// True for a field that a trailer section must not have.
pub(crate) fn is_no_trailer(name: &[u8]) -> bool {
    NOT_IN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

/// Checks one line of a trailer section, without its CRLF.
pub(crate) fn trailer(line: &[u8]) -> Result<(), Violation> {
    if has_control(line) {
        return Err("there is a control character in the trailers");
    }
    let (name, _) = field(line)?;
    if is_no_trailer(name) {
        return Err("there is a field in the trailers that does not belong there");
    }
    Ok(())
}

/// Lines of a head, without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = line_length(self.0)?;
        let line = &self.0[..end - 1];
        self.0 = &self.0[end..];
        let Some((b'\r', line)) = line.split_last() else { return Some(Err("a line ends with LF alone")) };
        if has_control(line) {
            return Some(Err("there is a control character in the head"));
        }
        Some(Ok(line))
    }
}

/// `method SP target SP HTTP/1.x`: answers method, target and version.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Violation> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next().unwrap_or_default(), words.next(), words.next());
    let (Some(target), Some(version), None) = (target, version, words.next()) else {
        return Err("the request line is not 'method target version'");
    };
    if method.is_empty() || !TOKEN.has_all(method) {
        return Err("the method is malformed");
    }
    match version {
        b"HTTP/1.1" => Ok((method, target, Version::HTTP_11)),
        b"HTTP/1.0" => Ok((method, target, Version::HTTP_10)),
        _ => Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

/// `name: value`: the value without the white space around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a header field has no colon")?;
    let name = &line[..colon];
    if matches!(name.first(), Some(b' ' | b'\t')) {
        return Err("a header field is folded");
    }
    if name.is_empty() || !TOKEN.has_all(name) {
        return Err("a header field's name is malformed");
    }
    Ok((name, line[colon + 1..].trim_ascii()))
}

/// True when a request may begin with this: a method, or an empty line before it (RFC 9112 §2.2).
pub(crate) fn may_begin(byte: u8) -> bool {
    TOKEN.has(byte) || matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(head: &str) -> bool {
        let length = head_length(head.as_bytes(), 0).unwrap_or_else(|| panic!("{head:?} has no end"));
        assert_eq!(length, head.len(), "{head:?}");
        verify(head.as_bytes(), false).is_ok()
    }

    #[test]
    fn takes_what_the_rfc_allows() {
        for head in [
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "m-search / HTTP/1.1\r\nHost:h\r\nX-Empty:\r\nX:\ta b\t\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nX: \u{e9}\r\nContent-Length:  10 \r\n\r\n",
        ] {
            assert!(ok(head), "{head:?}: {:?}", verify(head.as_bytes(), false));
        }
    }

    #[test]
    fn refuses_what_two_parsers_read_differently() {
        for head in [
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: h\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /?a=<b> HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /?\"a\" HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h%zz\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(!ok(head), "{head:?}");
        }
    }

    #[test]
    fn finds_the_end_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nbody";
        for cut in 0..head.len() {
            let expected = (cut >= 27).then_some(27);
            assert_eq!(head_length(&head[..cut], cut.saturating_sub(1).min(26)), expected, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), searched in 0usize..200) {
            let length = head_length(&bytes, searched.min(bytes.len()));
            let _ = verify(&bytes[..length.unwrap_or(bytes.len())], false);
        }
    }
}
