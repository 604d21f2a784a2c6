//! What a stored answer is good for, for this request and now (RFC 9111 §4, RFC 5861).

use std::time::Duration;

use http::{HeaderMap, header};

use super::{
    directives::RequestDirectives,
    entry::Entry,
    policy::{CookieRule, Policy},
};
use crate::clock::Now;

/// What a request says that matters here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Its `Cache-Control`, if the policy heeds it.
    pub directives: RequestDirectives,
    /// It has a `Cookie` or an `Authorization` that makes no difference to the key, and may make one to the backend.
    pub credentials: bool,
}

impl Asked {
    /// What the request with these fields says.
    pub fn of(request: &HeaderMap, policy: &Policy) -> Self {
        let heeded = policy.client_directives;
        let directives = if heeded { RequestDirectives::of(request) } else { RequestDirectives::default() };
        let cookie = policy.cookies == CookieRule::Refuse && request.contains_key(header::COOKIE);
        let other = !policy.authorized && !policy.shared && request.contains_key(header::AUTHORIZATION);
        Self { directives, credentials: cookie || other }
    }
}

/// Why the backend is asked although there is an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is stale.
    Stale,
    /// The backend said `no-cache`.
    NoCache,
    /// The client asked for it: `no-cache`, `max-age`, `min-fresh`.
    Request,
    /// The request has credentials, and the backend does not say that the entry is good for others.
    Credentials,
}

impl Why {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::Request => "request",
            Self::Credentials => "credentials",
        }
    }
}

/// In place of what an entry may be given when the backend was asked in vain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InPlaceOf {
    /// Of a 500, 502, 503 or 504 (RFC 5861 §4).
    pub error: bool,
    /// Of no answer at all (RFC 9111 §4.2.4).
    pub nothing: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Give it.
    Fresh,
    /// Give it, although it is stale: the client says that it may be (`max-stale`).
    Stale,
    /// Give it, although it is stale, and have one request fetch a new one meanwhile.
    StaleWhileRevalidate,
    /// Ask the backend whether it is good still (`conditional::validators`).
    Revalidate {
        /// Why.
        why: Why,
        /// When it may be given all the same.
        or: InPlaceOf,
    },
    /// Ask the backend as if there were none.
    Unusable(Why),
    /// Answer 504: the client wants nothing that is not here (`only-if-cached`).
    Unavailable,
}

/// Decides about an entry that the request was found to be for. Without one, see [`without`].
pub fn decide(entry: &Entry, asked: &Asked, now: Now) -> Reuse {
    let wants_here = asked.directives.only_if_cached;
    if asked.credentials && !entry.terms.for_credentials {
        return if wants_here { Reuse::Unavailable } else { Reuse::Unusable(Why::Credentials) };
    }
    let stale = entry.stale_for(now);
    let why = match reason(entry, asked, stale, now) {
        None => return Reuse::Fresh,
        Some(Why::Stale) => {
            let stale = stale.unwrap_or_default();
            if asked.directives.max_stale.is_some_and(|most| stale <= seconds(most)) && !entry.terms.forbids_stale {
                return Reuse::Stale;
            }
            if is_within(stale, entry.terms.stale_while_revalidate) {
                return Reuse::StaleWhileRevalidate;
            }
            Why::Stale
        }
        Some(why) => why,
    };
    if wants_here { Reuse::Unavailable } else { Reuse::Revalidate { why, or: in_place_of(entry, asked, stale) } }
}

/// Decides when nothing is found; `None` is "fetch it".
pub fn without(asked: &Asked) -> Option<Reuse> {
    asked.directives.only_if_cached.then_some(Reuse::Unavailable)
}

fn reason(entry: &Entry, asked: &Asked, stale: Option<Duration>, now: Now) -> Option<Why> {
    let wishes = &asked.directives;
    let (age, left) = (entry.age(now), entry.fresh_for(now));
    if entry.terms.always_validate {
        Some(Why::NoCache)
    } else if wishes.no_cache
        || wishes.max_age.is_some_and(|most| age > seconds(most))
        || wishes.min_fresh.is_some_and(|least| left < seconds(least))
    {
        Some(Why::Request)
    } else {
        stale.map(|_| Why::Stale)
    }
}

fn in_place_of(entry: &Entry, asked: &Asked, stale: Option<Duration>) -> InPlaceOf {
    let terms = &entry.terms;
    if terms.always_validate {
        return InPlaceOf::default();
    }
    let Some(stale) = stale else { return InPlaceOf { error: true, nothing: true } };
    let wish = asked.directives.stale_if_error.filter(|_| !terms.forbids_stale).map_or(Duration::ZERO, seconds);
    let error = is_within(stale, terms.stale_if_error.max(wish));
    InPlaceOf { error, nothing: error || is_within(stale, terms.stale_if_unreachable) }
}

fn is_within(stale: Duration, window: Duration) -> bool {
    !window.is_zero() && stale <= window
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::{super::test_entry::Made, *};

    const NOTHING: InPlaceOf = InPlaceOf { error: false, nothing: false };
    const NO_ANSWER: InPlaceOf = InPlaceOf { error: false, nothing: true };
    const BOTH: InPlaceOf = InPlaceOf { error: true, nothing: true };

    fn stale(or: InPlaceOf) -> Reuse {
        Reuse::Revalidate { why: Why::Stale, or }
    }

    /// What the backend said, so many seconds ago; what the client says; what is done.
    type Case = (&'static str, u64, &'static str, Reuse);

    #[test]
    fn what_an_entry_is_good_for() {
        let request = |or| Reuse::Revalidate { why: Why::Request, or };
        let cases: &[Case] = &[
            ("max-age=10", 9, "", Reuse::Fresh),
            ("max-age=10", 10, "", stale(NO_ANSWER)),
            ("max-age=10", 70, "", stale(NO_ANSWER)),
            ("max-age=10", 71, "", stale(NOTHING)),
            ("max-age=10, must-revalidate", 11, "", stale(NOTHING)),
            ("max-age=10, proxy-revalidate", 11, "", stale(NOTHING)),
            ("max-age=10, s-maxage=10", 11, "", stale(NOTHING)),
            ("max-age=10, no-cache", 1, "", Reuse::Revalidate { why: Why::NoCache, or: NOTHING }),
            ("max-age=10, stale-while-revalidate=5", 15, "", Reuse::StaleWhileRevalidate),
            ("max-age=10, stale-while-revalidate=5", 16, "", stale(NO_ANSWER)),
            ("max-age=10, stale-while-revalidate=5, must-revalidate", 11, "", stale(NOTHING)),
            ("s-maxage=10, stale-while-revalidate=5", 11, "", Reuse::StaleWhileRevalidate),
            ("max-age=10, stale-if-error=20", 30, "", stale(BOTH)),
            ("max-age=10, stale-if-error=20", 31, "", stale(NO_ANSWER)),
            ("max-age=10, stale-if-error=90", 99, "", stale(BOTH)),
            ("max-age=10", 3, "no-cache", request(BOTH)),
            ("max-age=10", 1, "max-age=0", request(BOTH)),
            ("max-age=10", 3, "max-age=3", Reuse::Fresh),
            ("max-age=10", 4, "max-age=3", request(BOTH)),
            ("max-age=10", 4, "min-fresh=6", Reuse::Fresh),
            ("max-age=10", 4, "min-fresh=7", request(BOTH)),
            ("max-age=10", 20, "max-stale=10", Reuse::Stale),
            ("max-age=10", 20, "max-stale", Reuse::Stale),
            ("max-age=10", 21, "max-stale=10", stale(NO_ANSWER)),
            ("max-age=10, must-revalidate", 11, "max-stale", stale(NOTHING)),
            ("max-age=10", 11, "stale-if-error=5", stale(BOTH)),
            ("max-age=10, must-revalidate", 11, "stale-if-error=5", stale(NOTHING)),
            ("max-age=10", 9, "only-if-cached", Reuse::Fresh),
            ("max-age=10", 11, "only-if-cached", Reuse::Unavailable),
            ("max-age=10", 11, "only-if-cached, max-stale", Reuse::Stale),
            ("max-age=10", 9, "no-store", Reuse::Fresh),
        ];
        for (said, age, wish, expected) in cases {
            let entry = Made::saying(said).with("etag", "\"a\"").entry();
            let asked = Asked { directives: Made::wishes(wish), credentials: false };
            assert_eq!(decide(&entry, &asked, Made::later(*age)), *expected, "{said} after {age}: {wish}");
        }
        assert_eq!(without(&Asked::default()), None);
        let here = Asked { directives: Made::wishes("only-if-cached"), credentials: false };
        assert_eq!(without(&here), Some(Reuse::Unavailable));
    }

    #[test]
    fn what_was_marked_is_stale_since_then() {
        let entry = Made::saying("max-age=100, stale-while-revalidate=5").entry();
        entry.mark_stale(Made::later(20));
        entry.mark_stale(Made::later(24));
        assert_eq!(decide(&entry, &Asked::default(), Made::later(25)), Reuse::StaleWhileRevalidate);
        assert_eq!(decide(&entry, &Asked::default(), Made::later(26)), stale(NO_ANSWER));
        assert_eq!(entry.fresh_for(Made::later(21)), Duration::ZERO);
    }

    #[test]
    fn a_guess_is_not_for_requests_with_credentials() {
        for (yaml, field, counts) in [
            ("{ttl: 5m}", "cookie", true),
            ("{ttl: 5m}", "authorization", true),
            ("{ttl: 5m, cookies: ignore}", "cookie", false),
            ("{ttl: 5m, cookies: ignore}", "authorization", true),
            ("{ttl: 5m, authorized: true}", "authorization", false),
            ("{ttl: 5m, shared: true}", "authorization", false),
        ] {
            let made = Made::under(yaml);
            let asked = Asked::of(&made.clone().asked_with(field, "x").request, &made.policy);
            let expected = if counts { Reuse::Unusable(Why::Credentials) } else { Reuse::Fresh };
            assert_eq!(decide(&made.entry(), &asked, Made::later(1)), expected, "{yaml} {field}");
            assert_eq!(decide(&made.entry(), &Asked::default(), Made::later(1)), Reuse::Fresh);
            let said = made.with("cache-control", "max-age=9").entry();
            assert_eq!(decide(&said, &asked, Made::later(1)), Reuse::Fresh);
        }
    }
}
