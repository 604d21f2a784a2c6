//! What a route's cache does: its settings, checked and in the form that every request needs.

use std::time::Duration;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{condition::Bypass, query::QueryRule};
use crate::units::Statuses;

/// Who decides how long an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginRule {
    /// The backend; where it says nothing, `ttl`.
    Respect,
    /// `ttl`.
    Override,
}

/// What becomes of an answer with `Set-Cookie`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookieRule {
    /// It is not kept.
    Refuse,
    /// It is kept without the field.
    Strip,
    /// It is kept with the field: every client gets the cookie of the first.
    Keep,
}

/// Whether answers that no backend calls good for others are for requests with a `Cookie`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CookieRule {
    /// They are not.
    Refuse,
    /// They are: cookies make no difference.
    Ignore,
}

/// A route's rules; see `config.rs`, which says what each means.
#[derive(Debug, Clone)]
pub struct Policy {
    /// For answers without a lifetime.
    pub ttl: Option<Duration>,
    /// The statuses that `ttl` is for.
    pub statuses: Vec<Statuses>,
    /// Who decides.
    pub origin: OriginRule,
    /// Identities share entries.
    pub shared: bool,
    /// Answers to requests with `Authorization` are kept too.
    pub authorized: bool,
    /// Answers with `Set-Cookie`.
    pub set_cookie: SetCookieRule,
    /// Requests with `Cookie`.
    pub cookies: CookieRule,
    /// The part of the time since `Last-Modified`; 0 to 1.
    pub heuristic: f64,
    /// Methods that are answered; GET is one of them.
    pub methods: Vec<Method>,
    /// Parameters that make a difference.
    pub query: QueryRule,
    /// Fields that make a difference.
    pub key_headers: Vec<HeaderName>,
    /// Requests that go past the cache.
    pub bypass: Bypass,
    /// The largest body, in bytes.
    pub max_object: usize,
    /// Where the backend does not say.
    pub stale_while_revalidate: Duration,
    /// Where the backend does not say.
    pub stale_if_error: Duration,
    /// While no backend can be reached.
    pub stale_if_unreachable: Duration,
    /// Clients' `Cache-Control` counts.
    pub client_directives: bool,
    /// Differs between different settings; part of every key.
    pub fingerprint: u64,
}

impl Policy {
    /// True when `ttl` is for answers with this status.
    pub fn ttl_is_for(&self, status: u16) -> bool {
        self.statuses.iter().any(|statuses| statuses.contains(status))
    }
}
