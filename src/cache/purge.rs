//! Which entries are purged.

use std::sync::Arc;

use super::{
    key::{self, plain_host},
    query::QueryRule,
};
use crate::message::path;

/// What is purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// All that is stored for a URL as `key::url` writes it, or for a path (with its query) on every host.
    Url(String),
    /// All whose URL begins so; a prefix that begins with a slash is one of paths, on every host.
    Prefix(String),
    /// All that have this tag.
    Tag(Vec<u8>),
    /// Everything.
    All,
}

/// How it is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It is marked as stale: it may be validated, and given as stale entries may be.
    Soft,
    /// It is gone.
    Hard,
}

impl Purge {
    /// Of a URL, or of a path on every host, as people write it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_url(text: &str) -> Result<Self, String> {
        let (origin, rest) = split(text)?;
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        let (path, query) = rest.split_once('?').map_or((rest.as_str(), None), |(path, query)| (path, Some(query)));
        let reading = path::read(path).map_err(|e| e.detail().to_owned())?;
        let path = reading.sent.as_deref().unwrap_or(&reading.path);
        let Some((secure, host)) = origin else {
            return Ok(Self::Url(query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))));
        };
        Ok(Self::Url(key::url(secure, host, path, query)))
    }

    /// Of all URLs that begin so, or of all paths on every host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_prefix(text: &str) -> Result<Self, String> {
        let (origin, rest) = split(text)?;
        let Some((secure, host)) = origin else { return Ok(Self::Prefix(rest.to_owned())) };
        // Without a path, the host may not be at its end yet.
        let host = if rest.is_empty() { host.to_ascii_lowercase() } else { plain_host(secure, host).into_owned() };
        Ok(Self::Prefix(format!("{}{host}{rest}", if secure { "https://" } else { "http://" })))
    }

    /// The same for each part of a query that counts by one of these rules: what is kept is kept under that part.
    pub fn by_rules(&self, rules: &[QueryRule]) -> Vec<Self> {
        let mut all = vec![self.clone()];
        if let Self::Url(url) = self
            && let Some((path, query)) = url.split_once('?')
        {
            for rule in rules {
                let left = rule.apply(query).map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
                let purge = Self::Url(left);
                if !all.contains(&purge) {
                    all.push(purge);
                }
            }
        }
        all
    }

    /// True when an entry with this URL and these tags is one of them.
    pub fn is_about(&self, url: &str, tags: &[Arc<[u8]>]) -> bool {
        match self {
            Self::Url(wanted) => in_form_of(wanted, url) == wanted,
            Self::Prefix(wanted) => in_form_of(wanted, url).starts_with(wanted.as_str()),
            Self::Tag(wanted) => tags.iter().any(|tag| **tag == **wanted),
            Self::All => true,
        }
    }
}

/// `https` or not, and the host.
type Origin<'t> = (bool, &'t str);

/// Where a URL leads, and what comes after that; nowhere for one that begins with its path.
fn split(text: &str) -> Result<(Option<Origin<'_>>, &str), String> {
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        return Err(format!("'{}' cannot be part of a URL here", odd.escape_default()));
    }
    if text.starts_with('/') {
        return Ok((None, text));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let secure = scheme.eq_ignore_ascii_case("https");
    let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.is_empty() || host.contains('@') || !(secure || scheme.eq_ignore_ascii_case("http")) {
        return Err("begins with http:// or https:// and a host, or with a slash for a path on every host".to_owned());
    }
    Ok((Some((secure, host)), rest))
}

/// The URL, or only what comes after its host, when it is compared with such a one.
pub(super) fn in_form_of<'u>(wanted: &str, url: &'u str) -> &'u str {
    if !wanted.starts_with('/') {
        return url;
    }
    let after = url.find("://").map_or(0, |at| at + 3);
    url[after..].find(['/', '?']).map_or("", |slash| &url[after + slash..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_keys_have_them() {
        for (text, url, prefix) in [
            ("http://a.test", "http://a.test/", "http://a.test"),
            ("HTTPS://A.test:443/x", "https://a.test/x", "https://a.test/x"),
            ("http://a.test:8080?q", "http://a.test:8080/?q", "http://a.test:8080?q"),
            ("http://A.te", "http://a.te/", "http://a.te"),
            ("http://[::1]:80/%7ex/../y?%7e", "http://[::1]/y?%7e", "http://[::1]/%7ex/../y?%7e"),
            ("/a//b?c", "/a/b?c", "/a//b?c"),
        ] {
            assert_eq!(Purge::of_url(text), Ok(Purge::Url(url.to_owned())));
            assert_eq!(Purge::of_prefix(text), Ok(Purge::Prefix(prefix.to_owned())));
        }
        for text in ["", "a.test/x", "ftp://a.test/", "http:///x", "http://u@a.test/", "/x#y", "/a b", "/\n", "/ü"] {
            assert!(Purge::of_url(text).is_err() && Purge::of_prefix(text).is_err(), "{text:?}");
        }
        assert!(Purge::of_url("/%zz").is_err());
    }

    #[test]
    fn a_url_stands_for_what_its_query_is_kept_under() {
        let rules = [QueryRule::Whole, QueryRule::Exclude(vec!["u".to_owned()])];
        let of = |url: &str| Purge::Url(url.to_owned()).by_rules(&rules);
        assert_eq!(of("/a?u=1&b"), ["/a?u=1&b", "/a?b"].map(|url| Purge::Url(url.to_owned())));
        assert_eq!(of("/a?u=1").len() + of("/a").len() + Purge::All.by_rules(&rules).len(), 4);
    }

    #[test]
    fn what_is_meant() {
        let url = "http://a.test/img/x?y=/z";
        for (purge, expected) in [
            (Purge::Url(url.to_owned()), true),
            (Purge::Url("http://a.test/img/x".to_owned()), false),
            (Purge::Url("/img/x?y=/z".to_owned()), true),
            (Purge::Url("/img/x".to_owned()), false),
            (Purge::Prefix("http://a.test/img".to_owned()), true),
            (Purge::Prefix("http://b".to_owned()), false),
            (Purge::Prefix("/img/".to_owned()), true),
            (Purge::Prefix("/z".to_owned()), false),
            (Purge::Tag(b"t".to_vec()), true),
            (Purge::Tag(b"T".to_vec()), false),
            (Purge::All, true),
        ] {
            assert_eq!(purge.is_about(url, &[(*b"t").into()]), expected, "{purge:?}");
        }
        assert!(!Purge::Prefix("/".to_owned()).is_about("http://a.test", &[]));
    }
}
