//! Which entries are purged.

use std::sync::Arc;

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
