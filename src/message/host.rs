//! The host that a request is for.

use http::header;
use pingora::http::RequestHeader;

/// The host that a request is for, with its port.
pub(crate) fn host_and_port(head: &RequestHeader) -> &str {
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default()
}

/// The host that a request is for, without its port.
pub(crate) fn host_of(head: &RequestHeader) -> &str {
    let host = host_and_port(head);
    // Over bytes: what searches in text costs more than these few are worth.
    let host = match host.bytes().rposition(|byte| byte == b':') {
        Some(colon) if !host.as_bytes()[colon..].contains(&b']') => &host[..colon],
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn host_without_port() {
        for (field, host) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a.", "a")] {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            head.insert_header("host", field).unwrap();
            assert_eq!(host_of(&head), host);
        }
    }
}
