//! How long an answer is fresh, and how old it is (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    date,
    directives::ResponseDirectives,
    list::delta_seconds,
    policy::{OriginRule, Policy},
};
use crate::{clock::Now, message::fields::single};

/// What a lifetime was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// `s-maxage`, `max-age` or `Expires`, or one of the first two in a targeted field.
    Said,
    /// The operator's `ttl`, against what the backend says.
    Override,
    /// The operator's `ttl`, for the backend says nothing.
    Ttl,
    /// `Last-Modified` (RFC 9111 §4.2.2).
    Heuristic,
    /// Nothing: there is no lifetime.
    Nothing,
}

impl Basis {
    /// True when the backend has said for how long.
    pub fn is_said(self) -> bool {
        self == Self::Said
    }
}

/// A heuristic lifetime is no longer than this.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(3600);

/// The statuses that are kept without a word from the backend (RFC 9110 §15.1), except 206.
const HEURISTICALLY: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// When an answer was asked for and when its head came; both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The request was sent.
    pub asked: Now,
    /// The head of the answer was there.
    pub answered: Now,
}

/// What a lifetime is taken from.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// What it says to this cache.
    pub directives: &'a ResponseDirectives,
    /// When the head came, in seconds since 1970.
    pub answered: u64,
    /// The request had a query.
    pub has_query: bool,
}

/// How long an answer is fresh, counted from when its backend made it; zero with `Basis::Nothing` when nobody says.
pub fn lifetime(answer: &Answer<'_>, policy: &Policy) -> (Duration, Basis) {
    let status = answer.status.as_u16();
    if policy.origin == OriginRule::Override
        && policy.ttl_is_for(status)
        && let Some(ttl) = policy.ttl
    {
        return (ttl, Basis::Override);
    }
    if let Some(seconds) = answer.directives.s_maxage.or(answer.directives.max_age) {
        return (Duration::from_secs(seconds), Basis::Said);
    }
    if !answer.directives.targeted && answer.headers.contains_key(header::EXPIRES) {
        return (expires(answer), Basis::Said);
    }
    if let Some(ttl) = policy.ttl.filter(|_| policy.ttl_is_for(status)) {
        return (ttl, Basis::Ttl);
    }
    match heuristic(answer, policy.heuristic) {
        Some(time) => (time, Basis::Heuristic),
        None => (Duration::ZERO, Basis::Nothing),
    }
}

/// `Expires` less `Date`, or less the time of arrival when there is no date. What is no date, or is said twice and not
/// alike, is stale (RFC 9111 §4.2.1, §5.3).
fn expires(answer: &Answer<'_>) -> Duration {
    let mut values = answer.headers.get_all(header::EXPIRES).iter();
    let first = values.next();
    let alike = values.all(|value| Some(value) == first);
    let until = first.filter(|_| alike).and_then(|value| date::parse(value.as_bytes(), answer.answered));
    Duration::from_secs(until.unwrap_or(0).saturating_sub(made(answer.headers, answer.answered)))
}

/// When the backend says that it made the answer; when it came, if that is not said.
fn made(headers: &HeaderMap, answered: u64) -> u64 {
    dated(headers, &header::DATE, answered).unwrap_or(answered)
}

/// The date in a field.
pub fn dated(headers: &HeaderMap, field: &HeaderName, now: u64) -> Option<u64> {
    date::parse(headers.get(field)?.as_bytes(), now)
}

fn heuristic(answer: &Answer<'_>, share: f64) -> Option<Duration> {
    let allowed = answer.directives.public || HEURISTICALLY.contains(&answer.status.as_u16());
    if share <= 0.0 || answer.has_query || !allowed {
        return None;
    }
    let modified = dated(answer.headers, &header::LAST_MODIFIED, answer.answered)?;
    let age = Duration::from_secs(made(answer.headers, answer.answered).saturating_sub(modified));
    // No share of a time that is no longer than this is longer than that of the bound itself.
    let age = age.min(LONGEST_HEURISTIC.mul_f64(1.0 / share.max(1e-6)));
    let time = age.mul_f64(share.min(1.0)).min(LONGEST_HEURISTIC);
    (!time.is_zero()).then_some(time)
}

/// The age of an answer when its head came (`corrected_initial_age`, RFC 9111 §4.2.3).
pub fn initial_age(headers: &HeaderMap, times: &Times) -> Duration {
    let delay = times.answered.since_start.saturating_sub(times.asked.since_start);
    let apparent = times.answered.unix.saturating_sub(made(headers, times.answered.unix));
    Duration::from_secs(apparent).max(said_age(headers).saturating_add(delay))
}

/// `Age`: what is no number is no age (RFC 9111 §5.1).
fn said_age(headers: &HeaderMap) -> Duration {
    if !headers.contains_key(header::AGE) {
        return Duration::ZERO;
    }
    // RFC 9111 §5.1 would take the first of several, and none for one that cannot be read. Either may be far older than that:
    // what nobody can tell the age of is taken for stale.
    let age = single(headers, header::AGE).and_then(|line| delta_seconds(line.as_bytes().trim_ascii()));
    age.map_or(Duration::MAX, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{
        super::{config::CacheConfig, targeted},
        *,
    };
    use crate::units::{Share, Span};

    const NOW: u64 = 1_800_000_000;

    fn now(since_start: u64, unix: u64) -> Now {
        Now { since_start: Duration::from_secs(since_start), unix }
    }

    /// Fields; a number stands for a date so many seconds from now.
    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let value = |text: &str| match text.strip_prefix('@').and_then(|text| text.parse::<i64>().ok()) {
            Some(delta) => date::format(NOW.saturating_add_signed(delta)),
            None => HeaderValue::from_str(text).unwrap(),
        };
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value(text));
        }
        headers
    }

    fn of(config: &CacheConfig, status: u16, fields: &[(&str, &str)]) -> (u64, Basis) {
        let headers = headers(fields);
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            directives: &targeted::read(&headers),
            answered: NOW,
            has_query: false,
        };
        let (time, basis) = lifetime(&answer, &config.policy().unwrap());
        (time.as_secs(), basis)
    }

    /// Fields, and the lifetime that they mean.
    type Case = (&'static [(&'static str, &'static str)], u64, Basis);

    #[test]
    fn what_backends_say() {
        let config = CacheConfig::default();
        let cases: &[Case] = &[
            (&[("cache-control", "max-age=5")], 5, Basis::Said),
            (&[("cache-control", "max-age=5, s-maxage=7")], 7, Basis::Said),
            (&[("cache-control", "max-age=5"), ("expires", "@-9")], 5, Basis::Said),
            (&[("cache-control", "max-age=5"), ("expires", "0")], 5, Basis::Said),
            (&[("cache-control", "max-age=0"), ("expires", "@9")], 0, Basis::Said),
            (&[("expires", "@9"), ("date", "@0")], 9, Basis::Said),
            (&[("expires", "@9"), ("date", "@-1")], 10, Basis::Said),
            (&[("expires", "@9"), ("date", "foo")], 9, Basis::Said),
            (&[("expires", "@300"), ("date", "@400")], 0, Basis::Said),
            (&[("expires", "0"), ("date", "@0")], 0, Basis::Said),
            (&[("expires", "@9"), ("expires", "@9")], 9, Basis::Said),
            (&[("expires", "@9"), ("expires", "@8")], 0, Basis::Said),
            (&[("cache-control", "max-age=1"), ("cdn-cache-control", "max-age=9")], 9, Basis::Said),
            (&[("expires", "@9"), ("cdn-cache-control", "foo")], 0, Basis::Nothing),
            (&[("last-modified", "@-1000"), ("date", "@0")], 100, Basis::Heuristic),
            (&[("last-modified", "@-99999999")], 3600, Basis::Heuristic),
            (&[("last-modified", "@5")], 0, Basis::Nothing),
            (&[("last-modified", "yesterday")], 0, Basis::Nothing),
            (&[], 0, Basis::Nothing),
        ];
        for (fields, seconds, basis) in cases {
            assert_eq!(of(&config, 200, fields), (*seconds, *basis), "{fields:?}");
        }
    }

    #[test]
    fn what_the_rfc_guesses() {
        let config = CacheConfig::default();
        let modified = ("last-modified", "@-1000");
        for status in HEURISTICALLY {
            assert_eq!(of(&config, status, &[modified]).1, Basis::Heuristic, "{status}");
        }
        for status in [201, 202, 302, 307, 403, 500, 502, 503, 504, 599] {
            assert_eq!(of(&config, status, &[modified]).1, Basis::Nothing, "{status}");
            let public = ("cache-control", "public");
            assert_eq!(of(&config, status, &[modified, public]).1, Basis::Heuristic, "{status}");
        }
        let never = CacheConfig { heuristic: Share(0.0), ..CacheConfig::default() };
        assert_eq!(of(&never, 200, &[modified]).1, Basis::Nothing);
    }

    #[test]
    fn what_the_operator_says() {
        let ttl = CacheConfig { ttl: Some(Span(Duration::from_secs(300))), ..CacheConfig::default() };
        assert_eq!(of(&ttl, 200, &[]), (300, Basis::Ttl));
        assert_eq!(of(&ttl, 404, &[("last-modified", "@-1000")]), (300, Basis::Ttl));
        assert_eq!(of(&ttl, 200, &[("cache-control", "max-age=5")]), (5, Basis::Said));
        assert_eq!(of(&ttl, 500, &[]), (0, Basis::Nothing));
        let over = CacheConfig { origin: OriginRule::Override, ..ttl };
        assert_eq!(of(&over, 200, &[("cache-control", "max-age=5")]), (300, Basis::Override));
        assert_eq!(of(&over, 500, &[("cache-control", "max-age=5")]), (5, Basis::Said));
    }

    #[test]
    fn ages() {
        let age = |fields: &[(&str, &str)]| {
            let times = Times { asked: now(10, NOW - 2), answered: now(12, NOW) };
            initial_age(&headers(fields), &times).as_secs()
        };
        assert_eq!(age(&[]), 2);
        for (text, expected) in [
            ("30", 32),
            ("abc", u64::MAX),
            ("-7200", u64::MAX),
            ("7200.0", u64::MAX),
            ("7200, 0", u64::MAX),
            ("0, 7200", u64::MAX),
            ("2147483648", (1 << 31) + 2),
            ("999999999999999999999", (1 << 31) + 2),
            ("", u64::MAX),
        ] {
            assert_eq!(age(&[("age", text)]), expected, "{text}");
        }
        assert_eq!(age(&[("age", "7200"), ("age", "0")]), u64::MAX);
        // The clock of the backend may be slow or fast.
        assert_eq!(age(&[("date", "@-7200")]), 7200);
        assert_eq!(age(&[("date", "@7200"), ("age", "15")]), 17);
    }

    proptest! {
        #[test]
        fn ages_never_underflow(asked: u32, answered: u32, wall in 0u64..u64::MAX, text in "[0-9,x-]{0,24}", date in -9_999_999_999i64..9_999_999_999) {
            let times = Times { asked: now(asked.into(), wall), answered: now(answered.into(), wall) };
            let fields = headers(&[("age", &text), ("date", &format!("@{date}")), ("expires", &format!("@{date}"))]);
            let age = initial_age(&fields, &times);
            prop_assert!(age >= said_age(&fields));
            let answer = Answer {
                status: StatusCode::OK,
                headers: &fields,
                directives: &ResponseDirectives::default(),
                answered: wall,
                has_query: false,
            };
            let _ = (expires(&answer), heuristic(&answer, 0.5));
        }
    }
}
