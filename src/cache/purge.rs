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
    /// All whose URL begins so as far as its query, or as [`Purge::LONGEST`] bytes of it: what is left of a longer URL.
    Under(String),
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
        let path = &*reading.path;
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
        let rest = if rest.is_empty() { String::new() } else { begun(rest)? };
        let Some((secure, host)) = origin else { return Ok(Self::Prefix(rest)) };
        // Without a path, the host may not be at its end yet; a port that the scheme has anyway and a final dot are in no URL.
        let host = plain_host(secure, host).into_owned();
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

    /// The same with every query, if it is one of a URL.
    #[must_use]
    pub fn with_any_query(&self) -> Self {
        if let Self::Url(url) = self { Self::Under(under(url).to_owned()) } else { self.clone() }
    }

    /// The most bytes of a URL, a prefix or a tag that other processes are told of.
    pub const LONGEST: usize = 512;

    /// One for other processes that is about this one's answers at least, and never long: a long URL stands for its path with every
    /// query, a long prefix for what it begins with. No answer has a tag as long as that.
    #[must_use]
    pub fn short(&self) -> Self {
        match self {
            Self::Url(url) if url.len() > Self::LONGEST => Self::Under(under(url).to_owned()),
            Self::Prefix(prefix) => Self::Prefix(beginning(prefix).to_owned()),
            Self::Tag(tag) => Self::Tag(tag.iter().take(Self::LONGEST).copied().collect()),
            Self::Url(_) | Self::Under(_) | Self::All => self.clone(),
        }
    }

    /// As bytes, for other processes.
    pub fn write(&self, manner: Manner) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Url(url) => (b'u', url.as_bytes()),
            Self::Prefix(prefix) => (b'p', prefix.as_bytes()),
            Self::Under(under) => (b'q', under.as_bytes()),
            Self::Tag(tag) => (b't', tag.as_slice()),
            Self::All => (b'a', &b""[..]),
        };
        let manner = if manner == Manner::Soft { b's' } else { b'h' };
        [&[kind, manner], text].concat()
    }

    /// What was written; everything, when it cannot be read: another version knows more than this one.
    pub fn read(bytes: &[u8]) -> (Self, Manner) {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
        let read = match bytes {
            [b'u', manner, url @ ..] => text(url).map(Self::Url).zip(Some(*manner)),
            [b'p', manner, prefix @ ..] => text(prefix).map(Self::Prefix).zip(Some(*manner)),
            [b'q', manner, under @ ..] => text(under).map(Self::Under).zip(Some(*manner)),
            [b't', manner, tag @ ..] => Some((Self::Tag(tag.to_vec()), *manner)),
            [b'a', manner] => Some((Self::All, *manner)),
            _ => None,
        };
        match read {
            Some((purge, b's')) => (purge, Manner::Soft),
            Some((purge, b'h')) => (purge, Manner::Hard),
            _ => (Self::All, Manner::Hard),
        }
    }

    /// True when an entry with this URL and these tags is one of them.
    pub fn is_about(&self, url: &str, tags: &[Arc<[u8]>]) -> bool {
        match self {
            Self::Url(wanted) => in_form_of(wanted, url) == wanted,
            Self::Prefix(wanted) => in_form_of(wanted, url).starts_with(wanted.as_str()),
            Self::Under(wanted) => under(in_form_of(wanted, url)) == wanted,
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

/// The beginning of a path, as keys have it; a query is only begun after all of its path.
fn begun(rest: &str) -> Result<String, String> {
    if let Some((path, query)) = rest.split_once('?') {
        let reading = path::read(if path.is_empty() { "/" } else { path }).map_err(|e| e.detail().to_owned())?;
        return Ok(format!("{}?{query}", reading.path));
    }
    if let Some((_, cut)) = rest.rsplit_once('%')
        && cut.len() < 2
        && cut.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err("ends within a percent-encoding: leave it out, or write all three characters of it".to_owned());
    }
    // The last segment goes on: a dot is not yet one that stands for a directory, which the mark before it sees to.
    let (before, last) = rest.rsplit_once('/').unwrap_or_default();
    let marked = format!("{before}/{MARK}{last}");
    let reading = path::read(&marked).map_err(|e| e.detail().to_owned())?;
    let (before, last) = reading.path.rsplit_once('/').unwrap_or_default();
    Ok(format!("{before}/{}", last.strip_prefix(MARK).unwrap_or(last)))
}

/// A character that is no dot, and the same in each spelling.
const MARK: char = '_';

/// A URL without its query, and no more of it than other processes are told of.
pub(super) fn under(url: &str) -> &str {
    beginning(url.split('?').next().unwrap_or_default())
}

/// No more of it than other processes are told of.
fn beginning(text: &str) -> &str {
    let end = (0..=Purge::LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
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
    fn another_process_reads_what_was_written() {
        let all = [
            Purge::Under("u".into()),
            Purge::Url("u".into()),
            Purge::Prefix("/p".into()),
            Purge::Tag(b"t\xff".to_vec()),
            Purge::All,
        ];
        for purge in all {
            for manner in [Manner::Soft, Manner::Hard] {
                assert_eq!(Purge::read(&purge.write(manner)), (purge.clone(), manner));
            }
        }
        for unknown in [&b""[..], b"u", b"xh1", b"ux1", b"uh\xff", b"ah1"] {
            assert_eq!(Purge::read(unknown), (Purge::All, Manner::Hard));
        }
    }

    #[test]
    fn a_short_one_is_about_at_least_as_much() {
        let long = "x".repeat(Purge::LONGEST);
        for url in
            [format!("http://h/a?{long}"), format!("/a?{long}"), format!("http://h/{long}y?z"), format!("/{long}y?z")]
        {
            let full = format!("{}{url}", if url.starts_with('/') { "http://h" } else { "" });
            for purge in [Purge::Url(url.clone()), Purge::Prefix(url.clone())] {
                let short = purge.short();
                assert!(
                    short.write(Manner::Hard).len() <= Purge::LONGEST + 2 && short.is_about(&full, &[]),
                    "{short:?}"
                );
                assert!(!short.is_about("http://h/b", &[]) && short != Purge::All, "{short:?}");
            }
        }
        for purge in [Purge::Url("/a?b".into()), Purge::Prefix("/a?b".into()), Purge::Tag(b"t".to_vec()), Purge::All] {
            assert_eq!(purge.short(), purge);
        }
    }

    #[test]
    fn urls_are_read_as_keys_have_them() {
        for (text, url, prefix) in [
            ("http://a.test", "http://a.test/", "http://a.test"),
            ("HTTPS://A.test:443/x", "https://a.test/x", "https://a.test/x"),
            ("http://a.test:8080?q", "http://a.test:8080/?q", "http://a.test:8080/?q"),
            ("http://A.te", "http://a.te/", "http://a.te"),
            ("http://a.te:80", "http://a.te/", "http://a.te"),
            ("http://a.te.", "http://a.te/", "http://a.te"),
            ("http://a.te:8", "http://a.te:8/", "http://a.te:8"),
            ("http://[::1]:80/%7ex/../y?%7e", "http://[::1]/y?%7e", "http://[::1]/y?%7e"),
            ("/a//b?c", "/a/b?c", "/a/b?c"),
            ("/a//b/%7Ec", "/a/b/~c", "/a/b/~c"),
            ("/a/./%2fB/%2e%21", "/a/%2FB/.!", "/a/%2FB/.!"),
            ("/a/b/..", "/a/", "/a/b/.."),
            ("/_", "/_", "/_"),
        ] {
            assert_eq!(Purge::of_url(text), Ok(Purge::Url(url.to_owned())));
            assert_eq!(Purge::of_prefix(text), Ok(Purge::Prefix(prefix.to_owned())));
        }
        for text in ["", "a.test/x", "ftp://a.test/", "http:///x", "http://u@a.test/", "/x#y", "/a b", "/\n", "/ü"] {
            assert!(Purge::of_url(text).is_err() && Purge::of_prefix(text).is_err(), "{text:?}");
        }
        assert!(
            Purge::of_url("/%zz").is_err() && Purge::of_prefix("/%zz").is_err() && Purge::of_prefix("/../").is_err()
        );
        for cut in ["/a%", "/a%7", "http://a.test/%4/%"] {
            assert!(Purge::of_prefix(cut).is_err_and(|e| e.starts_with("ends within")), "{cut}");
        }
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
            (Purge::Under("http://a.test/img/x".to_owned()), true),
            (Purge::Under("/img/x".to_owned()), true),
            (Purge::Under("http://a.test/img/".to_owned()), false),
            (Purge::Tag(b"t".to_vec()), true),
            (Purge::Tag(b"T".to_vec()), false),
            (Purge::All, true),
        ] {
            assert_eq!(purge.is_about(url, &[(*b"t").into()]), expected, "{purge:?}");
        }
        assert!(!Purge::Prefix("/".to_owned()).is_about("http://a.test", &[]));
    }
}
