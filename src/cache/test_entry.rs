//! Entries for tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{
    body::Body,
    config::CacheConfig,
    date,
    directives::RequestDirectives,
    draft::Draft,
    entry::Entry,
    freshness::Times,
    held::Held,
    policy::Policy,
    refusal::Refusal,
    storable::{Candidate, Terms},
};
use crate::{clock::Now, message::reserved::ReservedHeaders};

/// When tests happen, in seconds since 1970.
pub(super) const UNIX: u64 = 1_800_000_000;

/// An exchange whose answer may become an entry.
#[derive(Clone)]
pub(crate) struct Made {
    pub(super) method: Method,
    pub(super) status: u16,
    pub(super) request: HeaderMap,
    pub(super) response: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) policy: Policy,
    pub(super) one_client: bool,
    pub(super) reserved: ReservedHeaders,
}

impl Made {
    /// An answer with this `Cache-Control`, under the default policy.
    pub(crate) fn saying(cache_control: &str) -> Self {
        let made = Self::under("{}");
        if cache_control.is_empty() { made } else { made.with("cache-control", cache_control) }
    }

    /// One that says nothing, kept by `ttl: 5m`.
    pub(super) fn ttl() -> Self {
        Self::under("{ttl: 5m}")
    }

    /// One that says nothing, under this policy.
    pub(super) fn under(yaml: &str) -> Self {
        Self {
            method: Method::GET,
            status: 200,
            request: HeaderMap::new(),
            response: HeaderMap::new(),
            body: b"0123456789".to_vec(),
            policy: serde_yaml::from_str::<CacheConfig>(yaml).unwrap().policy().unwrap(),
            one_client: false,
            reserved: ReservedHeaders::default(),
        }
    }

    /// Adds a field to the answer; `@5` is a date 5 seconds from when it came.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.response.append(name.parse::<HeaderName>().unwrap(), Self::value(value));
        self
    }

    /// Adds a field to the request.
    pub(super) fn asked_with(mut self, name: &str, value: &str) -> Self {
        self.request.append(name.parse::<HeaderName>().unwrap(), Self::value(value));
        self
    }

    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn value(text: &str) -> HeaderValue {
        match text.strip_prefix('@').and_then(|text| text.parse::<i64>().ok()) {
            Some(delta) => date::format(UNIX.saturating_add_signed(delta)),
            None => HeaderValue::from_bytes(text.as_bytes()).unwrap(),
        }
    }

    pub(super) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            method: &self.method,
            request: &self.request,
            has_query: false,
            one_client: self.one_client,
            status: StatusCode::from_u16(self.status).unwrap(),
            response: &self.response,
            times: Times { asked: Self::later(0), answered: Self::later(0) },
            reserved: &self.reserved,
        }
    }

    pub(super) fn terms(&self) -> Result<Terms, Refusal> {
        Draft::of(&self.candidate(), &self.policy).map(|draft| draft.terms)
    }

    pub(super) fn try_entry(&self) -> Result<Entry, Refusal> {
        Draft::of(&self.candidate(), &self.policy)?.with(Body::copied(&[&self.body], &Held::default()))
    }

    pub(crate) fn entry(&self) -> Entry {
        self.try_entry().unwrap()
    }

    /// So many seconds after the answer came.
    pub(super) fn later(seconds: u64) -> Now {
        Now { since_start: Duration::from_secs(1000 + seconds), unix: UNIX + seconds }
    }

    /// What a request with this `Cache-Control` wants.
    pub(super) fn wishes(cache_control: &str) -> RequestDirectives {
        let field = (http::header::CACHE_CONTROL, HeaderValue::from_str(cache_control).unwrap());
        RequestDirectives::of(&[field].into_iter().collect())
    }
}

/// These fields.
pub(super) fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    list.iter().map(field).collect()
}
