//! What an unsafe request changes (RFC 9111 §4.4): its own URL, and those of the same origin that its answer names.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    key::{plain_host, url},
    query::QueryRule,
};
use crate::message::{fields::single, path};

/// What a request was for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// It came by `https`.
    pub secure: bool,
    /// The host, with its port.
    pub host: &'a str,
    /// The path as the client has it.
    pub path: &'a str,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// Which part of a query counts, by each of the routes that what is stored may have come by.
    pub rules: &'a [QueryRule],
}

impl Target<'_> {
    fn urls(&self, path: &str, query: Option<&str>) -> impl Iterator<Item = String> {
        // As it is, too: other gateways may have other rules.
        let whole = url(self.secure, self.host, path, query);
        let parts = self.rules.iter().map(move |rule| {
            let query = query.and_then(|query| rule.apply(query));
            url(self.secure, self.host, path, query.as_deref())
        });
        std::iter::once(whole).chain(parts)
    }
}

/// The URLs, as keys have them, of which nothing that is stored may be given any more; all that is stored for them is
/// purged, whatever else their keys say.
pub fn urls(method: &Method, target: &Target<'_>, status: StatusCode, response: &HeaderMap) -> Vec<String> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let named = [header::LOCATION, header::CONTENT_LOCATION].map(|field| named(target, response, &field));
    let mut all: Vec<String> =
        target.urls(target.path, target.query).chain(named.into_iter().flatten().flatten()).collect();
    let mut seen = HashSet::new();
    all.retain(|url| seen.insert(url.clone()));
    all
}

/// Methods that change nothing (RFC 9110 §9.2.1); one that nobody knows may change anything.
fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method)
}

/// The URLs that a field names, if they are of the same origin.
fn named(target: &Target<'_>, response: &HeaderMap, field: &HeaderName) -> Option<Vec<String>> {
    let reference = single(response, field)?.to_str().ok()?;
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = if target.secure { "https:" } else { "http:" };
    let rest = match reference.split_once("//") {
        Some((before, rest)) if before.is_empty() || before.eq_ignore_ascii_case(scheme) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, rest) = rest.split_at(end);
            if plain_host(target.secure, host) != plain_host(target.secure, target.host) {
                return None;
            }
            if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
        }
        // A colon before the first slash ends the name of another scheme.
        _ if reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) => return None,
        _ if reference.starts_with('/') => reference.to_owned(),
        _ if reference.is_empty() => return None,
        _ if reference.starts_with('?') => format!("{}{reference}", target.path),
        _ => {
            let folder = target.path.rfind('/').map_or("/", |slash| &target.path[..=slash]);
            format!("{folder}{reference}")
        }
    };
    let (path, query) = rest.split_once('?').map_or((rest.as_str(), None), |(path, query)| (path, Some(query)));
    let reading = path::read(path).ok()?;
    Some(target.urls(&reading.path, query).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::test_entry::Made, *};

    const TARGET: Target<'_> =
        Target { secure: false, host: "a.test:8080", path: "/dir/x", query: Some("q=1"), rules: &[QueryRule::Whole] };

    #[test]
    fn what_unsafe_requests_change() {
        let of = |method: &str, status| {
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            let status = StatusCode::from_u16(status).unwrap_or_default();
            urls(&method, &TARGET, status, &HeaderMap::new())
        };
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
            assert_eq!(of(method, 200), ["http://a.test:8080/dir/x?q=1"], "{method}");
            assert_eq!(of(method, 303).len(), 1);
            assert!(of(method, 404).is_empty() && of(method, 500).is_empty());
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(of(method, 200).is_empty(), "{method}");
        }
    }

    #[test]
    fn what_answers_name() {
        for (location, expected) in [
            ("http://a.test:8080/y?z#top", Some("http://a.test:8080/y?z")),
            ("HTTP://A.TEST:8080/y", Some("http://a.test:8080/y")),
            ("//a.test:8080/y", Some("http://a.test:8080/y")),
            ("//a.test:8080", Some("http://a.test:8080/")),
            ("//a.test:8080?z", Some("http://a.test:8080/?z")),
            ("/y//z", Some("http://a.test:8080/y/z")),
            ("y", Some("http://a.test:8080/dir/y")),
            ("../y", Some("http://a.test:8080/y")),
            ("?z", Some("http://a.test:8080/dir/x?z")),
            ("/%79", Some("http://a.test:8080/y")),
            ("http://a.test/y", None),
            ("https://a.test:8080/y", None),
            ("http://b.test:8080/y", None),
            ("mailto:a@b", None),
            ("", None),
            ("/a%zz", None),
            ("../../../y", None),
        ] {
            let response = Made::saying("").with("location", location).response;
            let found = urls(&Method::POST, &TARGET, StatusCode::CREATED, &response);
            assert_eq!(found.get(1).map(String::as_str), expected, "{location}");
        }
        let both = Made::saying("").with("location", "/y").with("content-location", "/z").response;
        assert_eq!(urls(&Method::PUT, &TARGET, StatusCode::OK, &both).len(), 3);
    }

    proptest! {
        #[test]
        fn only_the_same_origin(location in "[a-z:/?#.%0-9@]{0,30}") {
            let response = Made::saying("").with("location", &location).response;
            for url in urls(&Method::POST, &TARGET, StatusCode::OK, &response) {
                prop_assert!(url.starts_with("http://a.test:8080/"), "{}", url);
            }
        }
    }
}
