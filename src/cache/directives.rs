//! What `Cache-Control` says, of requests and of responses (RFC 9111 §5.2, RFC 5861); what an answer says to caches
//! like this one alone is in `targeted.rs`.
//!
//! Where an answer says a thing badly, it is read the way that keeps less: a lifetime that is no number is one of zero, and
//! a `private` or `no-cache` with an unreadable list of fields is one without a list. Of a directive that is said twice the
//! first counts (RFC 9111 §4.2.1).

use http::{HeaderMap, HeaderName, header};

use super::list::{all, delta_seconds, items, unquote};

/// What `private` or `no-cache` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The whole answer.
    Everything,
    /// These fields only.
    Fields(Vec<HeaderName>),
}

/// What a response says about itself (RFC 9111 §5.2.2). Times are seconds, at most 2^31; one that cannot be read is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive of the RFC")]
pub struct ResponseDirectives {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`: not without asking again.
    pub no_cache: Option<Scope>,
    /// `private`: not for a shared cache.
    pub private: Option<Scope>,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`: `no-store`, unless the status is understood.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `max-age`.
    pub max_age: Option<u64>,
    /// `s-maxage`.
    pub s_maxage: Option<u64>,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
    /// These are from a targeted field (RFC 9213): `Cache-Control` and `Expires` do not count.
    pub targeted: bool,
}

/// What a request asks of caches (RFC 9111 §5.2.1). Times are seconds; one that cannot be read was not said, for all of it
/// is a wish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-store`: do not keep the answer.
    pub no_store: bool,
    /// `no-cache`: ask the backend.
    pub no_cache: bool,
    /// `only-if-cached`: do not ask the backend.
    pub only_if_cached: bool,
    /// `max-age`: nothing older.
    pub max_age: Option<u64>,
    /// `min-fresh`: nothing that ends sooner.
    pub min_fresh: Option<u64>,
    /// `max-stale`: stale for so long is good enough; without a number, `u64::MAX`.
    pub max_stale: Option<u64>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
}

/// The name of a directive and its value; `None` as the value when there is none.
fn pair(item: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let (name, value) = match item.iter().position(|byte| *byte == b'=') {
        Some(at) => (&item[..at], Some(&item[at + 1..])),
        None => (item, None),
    };
    (name.trim_ascii().to_ascii_lowercase(), value)
}

/// The fields that a list names; everything, when it is no list of names.
pub(super) fn scope(list: Option<&[u8]>) -> Scope {
    let Some(list) = list.and_then(unquote) else { return Scope::Everything };
    let names: Result<Vec<_>, _> = items(&list).map(HeaderName::from_bytes).collect();
    match names {
        Ok(names) if !names.is_empty() => Scope::Fields(names),
        _ => Scope::Everything,
    }
}

/// What is said twice about fields holds for all of them.
pub(super) fn widen(known: &mut Option<Scope>, more: Scope) {
    *known = Some(match (known.take(), more) {
        (Some(Scope::Fields(mut all)), Scope::Fields(more)) => {
            all.extend(more);
            Scope::Fields(all)
        }
        (None, more) => more,
        _ => Scope::Everything,
    });
}

impl ResponseDirectives {
    /// Reads `Cache-Control`. What an answer says to this cache is what `targeted::read` says.
    pub fn of_cache_control(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        for item in all(headers, &header::CACHE_CONTROL) {
            let (name, value) = pair(item);
            // A value with a space before it, or a name with one behind it, is none that the grammar knows.
            let seconds = || Some(value.and_then(unquote).and_then(|value| delta_seconds(&value)).unwrap_or(0));
            match name.as_slice() {
                b"no-cache" => widen(&mut this.no_cache, scope(value)),
                b"private" => widen(&mut this.private, scope(value)),
                b"max-age" => this.max_age = this.max_age.or_else(seconds),
                b"s-maxage" => this.s_maxage = this.s_maxage.or_else(seconds),
                b"stale-while-revalidate" => {
                    this.stale_while_revalidate = this.stale_while_revalidate.or_else(seconds);
                }
                b"stale-if-error" => this.stale_if_error = this.stale_if_error.or_else(seconds),
                name => this.flag(name),
            }
        }
        this
    }

    /// Takes up a directive that has no value; what nobody knows means nothing (RFC 9111 §5.2.3).
    pub(super) fn flag(&mut self, name: &[u8]) {
        let flag = match name {
            b"no-store" => &mut self.no_store,
            b"public" => &mut self.public,
            b"must-revalidate" => &mut self.must_revalidate,
            b"proxy-revalidate" => &mut self.proxy_revalidate,
            b"must-understand" => &mut self.must_understand,
            b"no-transform" => &mut self.no_transform,
            b"immutable" => &mut self.immutable,
            _ => return,
        };
        *flag = true;
    }

    /// True when a stale answer must not be used by a shared cache: `must-revalidate`, `proxy-revalidate`, and `s-maxage`,
    /// which includes the latter (RFC 9111 §5.2.2.10).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some()
    }
}

impl RequestDirectives {
    /// Reads `Cache-Control` of a request. `Pragma` is not looked at: it is deprecated (RFC 9111 §5.4).
    pub fn of(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            return this;
        }
        for item in all(headers, &header::CACHE_CONTROL) {
            let (name, value) = pair(item);
            let seconds = || value.and_then(unquote).and_then(|value| delta_seconds(&value));
            match name.as_slice() {
                b"no-store" => this.no_store = true,
                b"no-cache" => this.no_cache = true,
                b"only-if-cached" => this.only_if_cached = true,
                b"max-age" => this.max_age = this.max_age.or_else(seconds),
                b"min-fresh" => this.min_fresh = this.min_fresh.or_else(seconds),
                b"max-stale" if value.is_none() => this.max_stale = Some(u64::MAX),
                b"max-stale" => this.max_stale = this.max_stale.or_else(seconds),
                b"stale-if-error" => this.stale_if_error = this.stale_if_error.or_else(seconds),
                _ => {}
            }
        }
        this
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn response(text: &str) -> ResponseDirectives {
        ResponseDirectives::of_cache_control(&lines(&[text]))
    }

    #[test]
    fn lifetimes() {
        for (text, expected) in [
            ("max-age=3600", Some(3600)),
            ("MaX-aGe=3600", Some(3600)),
            ("foobar, max-age=3600", Some(3600)),
            ("max-age=003600", Some(3600)),
            ("max-age=\"3600\"", Some(3600)),
            ("max-age=99999999999", Some(1 << 31)),
            ("max-age=1, max-age=1800", Some(1)),
            ("max-age=1800, max-age=1", Some(1800)),
            ("extension=\"max-age=3600\", max-age=1", Some(1)),
            ("max-age=1, extension=\"max-age=3600\"", Some(1)),
            ("extension=\"max-age=3600", None),
            ("", None),
            // What is no number is stale.
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=-3600", Some(0)),
            ("max-age='3600'", Some(0)),
            ("max-age=3600.0", Some(0)),
            ("max-age=3600a", Some(0)),
            ("max-age=1x", Some(0)),
            ("max-age= 3600", Some(0)),
            ("max-age=\"3600", Some(0)),
        ] {
            assert_eq!(response(text).max_age, expected, "{text}");
        }
        assert_eq!(ResponseDirectives::of_cache_control(&lines(&["max-age=3600", "s-maxage=1"])).s_maxage, Some(1));
        let stale = response("max-age=1, stale-while-revalidate=5, stale-if-error=7");
        assert_eq!((stale.stale_while_revalidate, stale.stale_if_error), (Some(5), Some(7)));
    }

    #[test]
    fn flags_and_fields() {
        let all = response("No-StOrE, must-understand, public, must-revalidate, no-transform, immutable");
        assert!(all.no_store && all.must_understand && all.public && all.no_transform && all.immutable);
        assert!(all.forbids_stale() && !response("max-age=1").forbids_stale());
        assert!(response("s-maxage=1").forbids_stale() && response("proxy-revalidate").forbids_stale());
        let fields = |names: &[&'static str]| {
            Some(Scope::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect()))
        };
        assert_eq!(response("no-cache=\"a, B\"").no_cache, fields(&["a", "b"]));
        assert_eq!(response("private=\"set-cookie\", max-age=1").private, fields(&["set-cookie"]));
        assert_eq!(response("no-cache=a").no_cache, fields(&["a"]));
        assert_eq!(response("private=\"a\", private=\"b\"").private, fields(&["a", "b"]));
        for everything in ["private", "private=", "private=\"\"", "private=\"a", "private=\"a b\"", "PRIVATE , x"] {
            assert_eq!(response(everything).private, Some(Scope::Everything), "{everything}");
        }
        assert_eq!(response("private=\"a\", private").private, Some(Scope::Everything));
        // A comma in quotes begins no directive.
        assert_eq!(response("x=\"a, private, no-store\""), ResponseDirectives::default());
    }

    #[test]
    fn requests() {
        let request = |text: &str| RequestDirectives::of(&lines(&[text]));
        assert_eq!(RequestDirectives::of(&HeaderMap::new()), RequestDirectives::default());
        let all = request("no-cache, No-Store, only-if-cached, max-age=1, min-fresh=2, max-stale=3");
        assert!(all.no_cache && all.no_store && all.only_if_cached);
        assert_eq!((all.max_age, all.min_fresh, all.max_stale), (Some(1), Some(2), Some(3)));
        assert_eq!(request("max-stale").max_stale, Some(u64::MAX));
        assert_eq!(request("max-age=x, min-fresh=-1"), RequestDirectives::default());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z\",\\\\ =0-9-]{0,60}") {
            let _ = (response(&text), RequestDirectives::of(&lines(&[&text])));
        }
    }
}
