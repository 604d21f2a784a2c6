//! The grammar of request targets and hosts (RFC 9112 §3.2, RFC 3986 §3.2), on bytes.

use std::net::Ipv6Addr;

use super::byte_class::{HOST, NOT_IN_PATH, TARGET};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestTarget<'a> {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute {
        /// The scheme is `https`.
        secure: bool,
        /// The host, with its port.
        host: &'a [u8],
        /// What comes after it.
        rest: &'a [u8],
    },
    /// `host:port`, which only CONNECT may ask for.
    Authority,
    /// `*`, which only OPTIONS may ask for.
    Asterisk,
}

/// Reads a target; `None` when it is none.
pub(crate) fn read<'a>(method: &[u8], target: &'a [u8]) -> Option<RequestTarget<'a>> {
    // Spaces and control characters have been refused; a fragment is never sent (RFC 9110 §7.1). Of what RFC 3986 does not
    // allow, browsers send brackets, braces, `|`, `^`, a backtick and a backslash in queries (WHATWG URL standard, "query
    // percent-encode set"): what is left, nobody sends by accident.
    if !TARGET.has_all(target) {
        return None;
    }
    match target {
        [b'/', ..] => is_path(target).then_some(RequestTarget::Origin),
        b"*" if method == b"OPTIONS" => Some(RequestTarget::Asterisk),
        _ if method == b"CONNECT" => is_host(target).then_some(RequestTarget::Authority),
        _ => {
            let colon = target.iter().position(|byte| *byte == b':')?;
            let (scheme, rest) = (&target[..colon], target[colon..].strip_prefix(b"://")?);
            let secure = scheme.eq_ignore_ascii_case(b"https");
            if !secure && !scheme.eq_ignore_ascii_case(b"http") {
                return None;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            let host = &rest[..end];
            (!host.is_empty() && is_host(host) && is_path(&rest[end..])).then_some(RequestTarget::Absolute {
                secure,
                host,
                rest: &rest[end..],
            })
        }
    }
}

/// True when what stands before the query has no character that a path must not have (RFC 3986 §3.3); a bracket or `|`
/// may pass, which browsers do not encode there either.
fn is_path(target: &[u8]) -> bool {
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    !NOT_IN_PATH.has_any(&target[..end])
}

/// The most bytes of a host with its port: a domain name has 253 at most, and twice that leaves room for whatever else.
const LONGEST_HOST: usize = 512;

/// `uri-host [":" port]`, not empty; user information has no place there, and no percent-encoding, which RFC 3986 allows:
/// names have none, and `:authority` of HTTP/2 cannot be made of one.
pub(crate) fn is_host(host: &[u8]) -> bool {
    if host.len() > LONGEST_HOST {
        return false;
    }
    let (name, port) = match host {
        [b'[', inner @ ..] => {
            let Some(end) = inner.iter().position(|byte| *byte == b']') else { return false };
            if !is_ip_literal(&inner[..end]) {
                return false;
            }
            (&b"v6"[..], &inner[end + 1..])
        }
        _ => host.split_at(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let port_is_fine = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            let digit = |number: u16, digit: &u8| match digit {
                b'0'..=b'9' => number.checked_mul(10)?.checked_add(u16::from(digit - b'0')),
                _ => None,
            };
            digits.iter().try_fold(0, digit).is_some()
        }
        _ => false,
    };
    port_is_fine && !name.is_empty() && HOST.has_all(name)
}

/// What stands in brackets: an IPv6 address, or `v1.x` of a later version (RFC 3986 §3.2.2).
fn is_ip_literal(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    if text.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    let later = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
    later.is_some_and(|(version, address)| {
        let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(&byte);
        digits && !address.is_empty() && address.bytes().all(allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["h", "a.b-c_d.", "127.0.0.1:80", "[::1]", "[2001:db8::1]:8080", "h:", "xn--a", "[v1.a:b]"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "u@h", "h:x", "h:99999", "h:1:2", "[::1", "[zz]", "::1", "a,b", "a/b", "[::1]x", "h%",
            "h%2", "h%zz", "xn--a%20", "[v1]", "[v.x]", "\u{e4}",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn every_host_can_be_an_authority() {
        let long = "a".repeat(LONGEST_HOST);
        let hosts = (0..=u8::MAX).flat_map(|byte| {
            let spellings: [&[&[u8]]; 6] = [
                &[&[byte]],
                &[b"a", &[byte], b"b"],
                &[b"a:", &[byte]],
                &[b"[v1.", &[byte], b"]:80"],
                &[b"[", &[byte], b"::1]"],
                &[long.as_bytes(), &[byte]],
            ];
            spellings.map(<[&[u8]]>::concat)
        });
        for host in hosts.chain([long.clone().into_bytes()]).filter(|host| is_host(host)) {
            assert!(http::uri::Authority::try_from(&host[..]).is_ok(), "{}", host.escape_ascii());
        }
        assert!(is_host(long.as_bytes()) && !is_host(format!("{long}a").as_bytes()));
    }

    #[test]
    fn targets() {
        let of = |method: &str, target: &'static str| read(method.as_bytes(), target.as_bytes());
        assert_eq!(of("GET", "/a?b"), Some(RequestTarget::Origin));
        let absolute = |secure, host, rest| Some(RequestTarget::Absolute { secure, host, rest });
        assert_eq!(of("GET", "HTTP://h:80/a?b"), absolute(false, b"h:80", b"/a?b"));
        assert_eq!(of("GET", "https://h"), absolute(true, b"h", b""));
        assert_eq!(of("GET", "/?a[]={b}|c"), Some(RequestTarget::Origin));
        assert_eq!(of("OPTIONS", "*"), Some(RequestTarget::Asterisk));
        assert_eq!(of("CONNECT", "h:80"), Some(RequestTarget::Authority));
        for bad in [
            "*",
            "h:80",
            "a",
            "?a",
            "http:/h",
            "http://",
            "http:///a",
            "ftp://h/",
            "http://u@h/",
            "/a#b",
            "/`",
            "/a{b}",
            "http://h/`",
            "/?a=<b>",
            "/?\"a\"",
            "/\u{e4}",
            "",
        ] {
            assert_eq!(of("GET", bad), None, "{bad}");
        }
    }
}
