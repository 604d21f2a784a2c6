//! What a request's head must be like before anything is done with it.
//!
//! Pingora takes heads of up to 1 MiB and HTTP/1.1 without `Host` (`pingora-core` 0.9.1, v1/common.rs and v1/server.rs).
//! An operator expects less patience. What can be judged by bytes alone has been, in `message/request_head.rs`.

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use pingora::http::RequestHeader;

use super::limits::ClientLimits;
use crate::message::{
    fields,
    framing::Framing,
    path::{self, PathError, Reading},
    reason::Reason,
    replies,
    reply::Reply,
    target,
};

/// What there is to know of a path that has been admitted.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// As the backend gets it, when that is spelled differently than in the head.
    pub(crate) sent: Option<String>,
    /// A backend may read it differently.
    pub(crate) suspect: bool,
    /// The target as the client wrote it, when the head's has been changed.
    pub(crate) original: Option<Uri>,
}

/// The most bytes of a method; the longest registered one has 17 (`UPDATEREDIRECTREF`).
pub(crate) const LONGEST_METHOD: usize = 32;

/// Fields that decide how a request is read.
static FRAMING: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];

/// Checks a head and normalises its path in place.
///
/// # Errors
/// The refusal: 400, 405, 414 or 431.
pub(crate) fn validate_request(head: &mut RequestHeader, limits: &ClientLimits) -> Result<Admitted, Reply> {
    sizes(head, limits)?;
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(replies::no_such_method().closing());
    }
    if head.method.as_str().len() > LONGEST_METHOD {
        return Err(replies::unknown_method().closing());
    }
    host(head).map_err(bad)?;
    authority(head).map_err(bad)?;
    name_host(head).map_err(bad)?;
    let [length, coding, expect] = fields::present(&head.headers, &FRAMING);
    if length || coding {
        Framing::of(&head.headers).and_then(|framing| framing.body(head.version)).map_err(bad)?;
    }
    let expected = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if expect && !head.headers.get_all(header::EXPECT).iter().all(expected) {
        return Err(Reply::problem(StatusCode::EXPECTATION_FAILED, "this expectation is not supported")
            .because(Reason::Expectation)
            .closing());
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        return Ok(Admitted::default());
    }
    normalise(head).map_err(|e| bad(e.detail()))
}

/// What holds for every request, also those that lead nowhere: sizes, and one host.
///
/// # Errors
/// The refusal: 400, 414 or 431.
pub(crate) fn check_head(head: &RequestHeader, limits: &ClientLimits) -> Result<(), Reply> {
    sizes(head, limits)?;
    host(head).map_err(bad)
}

/// A request that cannot be read in one way only: what follows it on the connection cannot be trusted either.
fn bad(detail: &'static str) -> Reply {
    replies::malformed(detail).closing()
}

fn sizes(head: &RequestHeader, limits: &ClientLimits) -> Result<(), Reply> {
    if head.raw_path().len() as u64 > limits.uri.0 {
        return Err(replies::too_large(true).closing());
    }
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes as u64 > limits.header_size.0 || head.headers.len() > limits.headers {
        return Err(replies::too_large(false).closing());
    }
    Ok(())
}

/// RFC 9112 §3.2: HTTP/1.1 has exactly one `Host`.
fn host(head: &RequestHeader) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err("there is more than one Host field"),
        (None, None) if head.version == Version::HTTP_11 => Err("the Host field is missing"),
        (Some(host), None) if !target::is_host(host.as_bytes()) => Err("the Host field is malformed"),
        _ => Ok(()),
    }
}

/// HTTP/2 has the host in `:authority`; a `Host` beside it must say the same (RFC 9113 §8.3.1).
fn authority(head: &RequestHeader) -> Result<(), &'static str> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    let (authority, host) = (head.uri.authority(), head.headers.get(header::HOST));
    match (authority, host) {
        (None, None) => Err("the :authority field is missing"),
        (Some(authority), _) if !target::is_host(authority.as_str().as_bytes()) => {
            Err("the :authority field is malformed")
        }
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err("the :authority and Host fields disagree")
        }
        _ => Ok(()),
    }
}

/// Gives a request over HTTP/2 the `Host` that it has as `:authority`: whatever looks at fields (limits, conditions of
/// routes, balancing) then sees the same host over every protocol.
fn name_host(head: &mut RequestHeader) -> Result<(), &'static str> {
    if head.version != Version::HTTP_2 || head.headers.contains_key(header::HOST) {
        return Ok(());
    }
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    let host = HeaderValue::try_from(authority.as_str());
    let set = host.ok().and_then(|host| head.insert_header(header::HOST, host).ok());
    set.ok_or("the :authority field is malformed")
}

fn normalise(head: &mut RequestHeader) -> Result<Admitted, PathError> {
    let raw = head.raw_path();
    // A target with bytes beyond ASCII never becomes a `Uri` path that says the same.
    if !raw.is_ascii() {
        return Err(PathError::Character);
    }
    let Reading { path, sent, suspect } = path::read(head.uri.path())?;
    let mut admitted = Admitted { sent, suspect, original: None };
    // Absolute-form (RFC 9112 §3.2.2): Pingora keeps its path in the URI and the whole of it for the wire, and has
    // refused an authority that disagrees with Host. A backend gets origin-form.
    let absolute = !raw.starts_with(b"/");
    if matches!(path, std::borrow::Cow::Borrowed(_)) && !absolute {
        return Ok(admitted);
    }
    let target = match head.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    admitted.original = Some(head.uri.clone());
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| PathError::Character)?);
    head.set_uri(http::Uri::from_parts(parts).map_err(|_| PathError::Character)?);
    Ok(admitted)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn admitted(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<String, u16> {
        let mut head = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        head.set_version(Version::HTTP_11);
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        validate_request(&mut head, &ClientLimits::default()).map_err(|reply| reply.status.as_u16())?;
        Ok(head.uri.to_string())
    }

    #[test]
    fn normalises_the_path_and_keeps_the_query() {
        let host = [("host", "h")];
        assert_eq!(admitted("GET", "/a/../b?x=/../y", &host).unwrap(), "/b?x=/../y");
        assert_eq!(admitted("GET", "/a", &host).unwrap(), "/a");
        assert_eq!(admitted("GET", "/../a", &host), Err(400));
    }

    #[test]
    fn the_target_as_it_was_written_stays_known() {
        let original = |target: &str| {
            let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            head.append_header("host", "h").unwrap();
            let admitted = validate_request(&mut head, &ClientLimits::default()).unwrap();
            admitted.original.map(|uri| uri.to_string())
        };
        assert_eq!(original("/a/%2e/b?x=%2e").as_deref(), Some("/a/%2e/b?x=%2e"));
        assert_eq!(original("/a/b?x=%2e"), None, "nothing was changed");
    }

    #[test]
    fn refuses_ambiguous_heads() {
        assert_eq!(admitted("GET", "/", &[]), Err(400));
        assert_eq!(admitted("GET", "/", &[("host", "a"), ("host", "b")]), Err(400));
        assert_eq!(admitted("GET", "/", &[("host", "a b")]), Err(400));
        let both = [("host", "h"), ("content-length", "3"), ("transfer-encoding", "chunked")];
        assert_eq!(admitted("POST", "/", &both), Err(400));
        assert_eq!(admitted("POST", "/", &[("host", "h"), ("transfer-encoding", "gzip, chunked")]), Err(400));
        assert_eq!(admitted("TRACE", "/", &[("host", "h")]), Err(405));
    }

    #[test]
    fn has_limits() {
        let long = "a".repeat(9000);
        assert_eq!(admitted("GET", &format!("/{long}"), &[("host", "h")]), Err(414));
        let large = "a".repeat(40_000);
        assert_eq!(admitted("GET", "/", &[("host", "h"), ("x", &large)]), Err(431));
        let many: Vec<_> = std::iter::once(("host", "h")).chain(std::iter::repeat_n(("x", "y"), 101)).collect();
        assert_eq!(admitted("GET", "/", &many), Err(431));
    }
}
