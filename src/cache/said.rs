//! What an answer says about the cache: `Cache-Status` (RFC 9211), `Age` (RFC 9111 §5.1), `X-Cache` and `X-Cache-Age`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{bypass::Past, entry::Entry, refusal::Refusal, reuse::Why};
use crate::{clock::Now, message::fields};

/// The name under which this cache speaks.
const NAME: &str = "tollgate";
/// Caches between here and the backend have spoken before (RFC 9211 §2): our member is the last.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What happened, in one word.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// `Age` again, which other caches on the way leave as it is.
pub const X_CACHE_AGE: HeaderName = HeaderName::from_static("x-cache-age");

/// Values of the fields that speak of the cache.
#[derive(Debug)]
pub struct Said {
    /// Of `Cache-Status`.
    pub status: HeaderValue,
    /// Of `X-Cache`.
    pub word: HeaderValue,
    /// Of `Age` and `X-Cache-Age`, when the answer was made of an entry.
    pub age: Option<HeaderValue>,
}

/// Why a request went to the backend (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// It goes past the cache.
    Past(Past),
    /// Nothing is stored under its key.
    UriMiss,
    /// What is stored is for other requests.
    VaryMiss,
    /// There is an entry that may not be given as it is.
    Entry(Why),
}

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An entry was given, for which the backend was not asked.
    Hit,
    /// A stale one was given; why.
    Stale(StaleBecause),
    /// The backend said that the entry is good, with a 304.
    Revalidated,
    /// The backend answered.
    Miss {
        /// Why it was asked.
        forwarded: Forwarded,
        /// Its status, where the client got another one or none.
        status: Option<StatusCode>,
        /// Whether the answer is kept, or why not; `None` when the answer came from another request's fetch.
        stored: Option<Result<(), Refusal>>,
    },
    /// Nobody was asked: `only-if-cached` (504).
    Unavailable,
}

/// Why a stale entry was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleBecause {
    /// The client takes it (`max-stale`).
    Request,
    /// A new one is being fetched (`stale-while-revalidate`).
    Revalidating,
    /// The backend answered with an error (`stale-if-error`).
    Error(StatusCode),
    /// No backend answered.
    NoAnswer,
}

impl Forwarded {
    fn word(self) -> &'static str {
        match self {
            Self::Past(Past::Method) => "method",
            Self::Past(_) => "bypass",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Entry(Why::Stale | Why::NoCache) => "stale",
            Self::Entry(Why::Request) => "request",
            Self::Entry(Why::Credentials) => "miss",
        }
    }

    fn detail(self) -> Option<&'static str> {
        match self {
            Self::Past(past) => Some(past.label()),
            Self::Entry(Why::NoCache) => Some("no-cache"),
            Self::Entry(Why::Credentials) => Some("credentials"),
            Self::UriMiss | Self::VaryMiss | Self::Entry(Why::Stale | Why::Request) => None,
        }
    }
}

impl Outcome {
    /// The word of `X-Cache`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Stale(_) => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Miss { forwarded: Forwarded::Past(_), .. } => "BYPASS",
            Self::Miss { .. } | Self::Unavailable => "MISS",
        }
    }

    /// The word of metrics and the access log: that of `X-Cache` in small letters.
    pub fn label(self) -> &'static str {
        match self.word() {
            "HIT" => "hit",
            "STALE" => "stale",
            "REVALIDATED" => "revalidated",
            "BYPASS" => "bypass",
            _ => "miss",
        }
    }

    /// Our member of `Cache-Status`. `ttl` is how long the entry that was given, or stored, is fresh still, in seconds;
    /// negative when it is stale. `collapsed`: the request waited for the fetch of another one.
    pub fn cache_status(self, ttl: Option<i64>, collapsed: bool) -> HeaderValue {
        let mut out = String::with_capacity(48);
        out.push_str(NAME);
        let mut detail = None;
        match self {
            Self::Hit => out.push_str("; hit"),
            Self::Stale(StaleBecause::Request | StaleBecause::Revalidating) => {
                out.push_str("; hit");
                detail = Some(if self == Self::Stale(StaleBecause::Request) { "max-stale" } else { "revalidating" });
            }
            Self::Stale(StaleBecause::Error(status)) => {
                out.extend(["; fwd=stale; fwd-status=", status.as_str()]);
                detail = Some("stale-if-error");
            }
            Self::Stale(StaleBecause::NoAnswer) => {
                out.push_str("; fwd=stale");
                detail = Some("unreachable");
            }
            Self::Revalidated => out.push_str("; fwd=stale; fwd-status=304"),
            Self::Miss { forwarded, status, stored } => {
                out.extend(["; fwd=", forwarded.word()]);
                if let Some(status) = status {
                    out.extend(["; fwd-status=", status.as_str()]);
                }
                detail = forwarded.detail();
                match stored {
                    Some(Ok(())) => out.push_str("; stored"),
                    // Why it went past says why it is not kept.
                    Some(Err(refusal)) => detail = detail.or(Some(refusal.label())),
                    None => {}
                }
            }
            Self::Unavailable => detail = Some("only-if-cached"),
        }
        if let Some(ttl) = ttl {
            out.extend(["; ttl=", itoa::Buffer::new().format(ttl)]);
        }
        if collapsed {
            out.push_str("; collapsed");
        }
        if let Some(detail) = detail {
            out.extend(["; detail=", detail]);
        }
        // Made of words and numbers alone.
        HeaderValue::try_from(out).unwrap_or(HeaderValue::from_static(NAME))
    }

    /// What is said on an answer. `entry` is the one that it was made of, if any.
    pub fn said(self, entry: Option<(&Entry, Now)>, stored_ttl: Option<i64>, collapsed: bool) -> Said {
        let ttl = entry.map(|(entry, now)| ttl(entry, now)).or(stored_ttl);
        Said {
            status: self.cache_status(ttl, collapsed),
            word: HeaderValue::from_static(self.word()),
            age: entry.map(|(entry, now)| fields::number(entry.age(now).as_secs())),
        }
    }
}

/// How long an entry is fresh still, in seconds; negative when it is stale.
pub fn ttl(entry: &Entry, now: Now) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match entry.stale_for(now) {
        Some(stale) => -seconds(stale),
        None => seconds(entry.fresh_for(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::test_entry::Made, *};

    #[test]
    fn what_is_said() {
        let miss = |forwarded, stored| Outcome::Miss { forwarded, status: None, stored: Some(stored) };
        for (outcome, ttl, status, word) in [
            (Outcome::Hit, Some(9), "tollgate; hit; ttl=9", "HIT"),
            (
                Outcome::Stale(StaleBecause::Revalidating),
                Some(-2),
                "tollgate; hit; ttl=-2; detail=revalidating",
                "STALE",
            ),
            (
                Outcome::Stale(StaleBecause::Error(StatusCode::BAD_GATEWAY)),
                Some(-2),
                "tollgate; fwd=stale; fwd-status=502; ttl=-2; detail=stale-if-error",
                "STALE",
            ),
            (Outcome::Stale(StaleBecause::NoAnswer), None, "tollgate; fwd=stale; detail=unreachable", "STALE"),
            (Outcome::Stale(StaleBecause::Request), None, "tollgate; hit; detail=max-stale", "STALE"),
            (Outcome::Revalidated, Some(5), "tollgate; fwd=stale; fwd-status=304; ttl=5", "REVALIDATED"),
            (miss(Forwarded::UriMiss, Ok(())), Some(5), "tollgate; fwd=uri-miss; stored; ttl=5", "MISS"),
            (miss(Forwarded::VaryMiss, Err(Refusal::Private)), None, "tollgate; fwd=vary-miss; detail=private", "MISS"),
            (miss(Forwarded::Entry(Why::Stale), Ok(())), None, "tollgate; fwd=stale; stored", "MISS"),
            (miss(Forwarded::Entry(Why::Request), Ok(())), None, "tollgate; fwd=request; stored", "MISS"),
            (
                miss(Forwarded::Entry(Why::Credentials), Err(Refusal::Cookie)),
                None,
                "tollgate; fwd=miss; detail=credentials",
                "MISS",
            ),
            (
                miss(Forwarded::Past(Past::Method), Err(Refusal::Method)),
                None,
                "tollgate; fwd=method; detail=method",
                "BYPASS",
            ),
            (
                miss(Forwarded::Past(Past::Rule), Err(Refusal::Method)),
                None,
                "tollgate; fwd=bypass; detail=bypass-rule",
                "BYPASS",
            ),
            (Outcome::Unavailable, None, "tollgate; detail=only-if-cached", "MISS"),
        ] {
            assert_eq!(outcome.cache_status(ttl, false), status);
            assert_eq!((outcome.word(), outcome.label()), (word, word.to_ascii_lowercase().as_str()));
        }
        assert_eq!(
            miss(Forwarded::UriMiss, Ok(())).cache_status(None, true),
            "tollgate; fwd=uri-miss; stored; collapsed"
        );
    }

    #[test]
    fn fields_of_a_hit() {
        let entry = Made::saying("max-age=9").with("age", "3").entry();
        let said = Outcome::Hit.said(Some((&entry, Made::later(2))), None, false);
        assert_eq!((said.status.as_bytes(), said.word.as_bytes()), (&b"tollgate; hit; ttl=4"[..], &b"HIT"[..]));
        assert_eq!(said.age, Some(HeaderValue::from_static("5")));
        assert_eq!(ttl(&entry, Made::later(8)), -2);
    }
}
