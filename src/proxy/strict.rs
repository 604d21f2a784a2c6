//! Strict reading of an HTTP/1 head, before a more lenient parser sees it (RFC 9112).
//!
//! The problem: Pingora takes bare LF as a line end, takes `Content-Length` away beside `Transfer-Encoding`, and answers
//! what it cannot read with an empty 400. Whatever two parsers may read differently is refused here, with the reason.
//! It looks at bytes only: sizes and the path are judged on the parsed head (`head.rs`).

/// Why a head is refused.
pub(super) type Reason = &'static str;

/// The length of the head in `bytes`, with its final empty line; `None` while it is incomplete. Bare LF ends lines here
/// too, so that a head written with them is found, and refused.
pub(super) fn head_length(bytes: &[u8], searched: usize) -> Option<usize> {
    // An end may straddle two reads by up to three bytes.
    let from = searched.saturating_sub(3).max(leading_lines(bytes));
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        let line_end = at + found;
        match &bytes[line_end + 1..] {
            [b'\n', ..] => return Some(line_end + 2),
            [b'\r', b'\n', ..] => return Some(line_end + 3),
            _ => at = line_end + 1,
        }
    }
    None
}

/// Empty lines before the request line, which a server should skip (RFC 9112 §2.2).
fn leading_lines(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len())
}

/// Checks a complete head.
pub(super) fn verify(head: &[u8]) -> Result<(), Reason> {
    let start = leading_lines(head);
    if start > 4 {
        return Err("there are too many empty lines before the request");
    }
    let mut lines = Lines(&head[start..]);
    let (target, version) = request_line(lines.next().ok_or("the request line is missing")??)?;
    let (mut lengths, mut codings, mut hosts) = (0, 0, 0);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            // No sign, no list, no space within: digits and nothing else (RFC 9112 §6.3).
            if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
                return Err("the Content-Length field is malformed");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("the transfer coding is not supported");
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            if !is_host(value) {
                return Err("the Host field is malformed");
            }
            if authority(target).is_some_and(|authority| !authority.eq_ignore_ascii_case(value)) {
                return Err("the request target and the Host field disagree");
            }
        }
    }
    match hosts {
        1 => {}
        0 if version == b'0' => {}
        0 => return Err("the Host field is missing"),
        _ => return Err("there is more than one Host field"),
    }
    match (lengths, codings) {
        (2.., _) => Err("there is more than one Content-Length field"),
        (_, 2..) => Err("there is more than one Transfer-Encoding field"),
        (1, 1) => Err("Content-Length and Transfer-Encoding exclude each other"),
        (_, 1) if version == b'0' => Err("HTTP/1.0 has no Transfer-Encoding"),
        _ => Ok(()),
    }
}

/// Lines of a head, without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        let Some((b'\r', line)) = line.split_last() else { return Some(Err("a line ends with LF alone")) };
        // CR alone, NUL and every other control character but the tab.
        if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
            return Some(Err("there is a control character in the head"));
        }
        Some(Ok(line))
    }
}

/// The authority of a target in absolute form (RFC 9112 §3.2.2).
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.windows(3).position(|window| window == b"://")?;
    if target.starts_with(b"/") {
        return None;
    }
    let rest = &target[scheme + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// uri-host [":" port] (RFC 9112 §3.2); user information has no place there. Empty is allowed.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte))
}

/// `method SP target SP HTTP/1.x`: answers the target and the minor version's digit.
fn request_line(line: &[u8]) -> Result<(&[u8], u8), Reason> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next().unwrap_or_default(), words.next(), words.next());
    let (Some(target), Some(version), None) = (target, version, words.next()) else {
        return Err("the request line is not 'method target version'");
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("the method is malformed");
    }
    if target.is_empty() || target.contains(&b'\t') || target.contains(&b'#') {
        return Err("the request target is malformed");
    }
    match version {
        b"HTTP/1.1" => Ok((target, b'1')),
        b"HTTP/1.0" => Ok((target, b'0')),
        _ => Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

/// `name: value`: the value without the white space around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a header field has no colon")?;
    let name = &line[..colon];
    if matches!(name.first(), Some(b' ' | b'\t')) {
        return Err("a header field is folded");
    }
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err("a header field's name is malformed");
    }
    Ok((name, line[colon + 1..].trim_ascii()))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(head: &str) -> bool {
        let length = head_length(head.as_bytes(), 0).unwrap_or_else(|| panic!("{head:?} has no end"));
        assert_eq!(length, head.len(), "{head:?}");
        verify(head.as_bytes()).is_ok()
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
            assert!(ok(head), "{head:?}: {:?}", verify(head.as_bytes()));
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
            let _ = verify(&bytes[..length.unwrap_or(bytes.len())]);
        }
    }
}
