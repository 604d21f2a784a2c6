//! `services:` in the YAML.

use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{
    resilience::{BreakerConfig, BudgetConfig, EjectionConfig, InFlightConfig, RetryConfig},
    sign::SignConfig,
};
use crate::{
    tls::client::UpstreamTls,
    units::{SecretRef, Span, Statuses},
    upstream::{balance::Balance, discovery::DiscoveryConfig, url::BackendUrl},
    yaml::Spanned,
};

/// One service: the backends that can answer for it, and how they are used.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Backends: `http://host:port`, `https://host:port`, `h2c://host:port` (HTTP/2 without TLS), or `{ url: ..., weight: 3 }`.
    #[serde(default)]
    pub urls: Vec<Spanned<BackendUrl>>,
    /// Where further backends come from, and how names are resolved.
    #[serde(default)]
    pub discovery: DiscoveryConfig,
    /// How a backend is chosen. Default `round_robin`.
    #[serde(default)]
    pub balance: Balance,
    /// Active health checks. Without them every backend counts as healthy.
    #[serde(default)]
    pub health_check: Option<HealthCheckConfig>,
    /// When no backend is healthy: answer 503 (`fail`, the default), or try one all the same (`any`).
    #[serde(default)]
    pub when_all_unhealthy: AllUnhealthy,
    /// What is tried again when an attempt fails.
    #[serde(default)]
    pub retry: RetryConfig,
    /// How much retries and hedges may add.
    #[serde(default)]
    pub retry_budget: BudgetConfig,
    /// A second attempt for answers that are late, before the first has failed.
    #[serde(default)]
    pub hedge: Option<HedgeConfig>,
    /// Leave the service alone for a while when it fails. Default: off.
    #[serde(default)]
    pub circuit_breaker: Option<BreakerConfig>,
    /// Pass over backends that fail.
    #[serde(default)]
    pub outlier_ejection: EjectionConfig,
    /// A backend that comes back gets its full share only after this. Default: at once.
    #[serde(default)]
    pub slow_start: Option<Span>,
    /// How much may be under way. Default: no limit.
    #[serde(default)]
    pub in_flight: Option<InFlightConfig>,
    /// Send a client where it has been before.
    #[serde(default)]
    pub sticky: Option<StickyConfig>,
    /// Sign its requests, so that backends know that they come from the gateway as they are.
    #[serde(default)]
    pub sign: Option<SignConfig>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Readiness (`/health/ready`) needs a healthy backend of this service. Default false.
    #[serde(default)]
    pub required: bool,
    /// For `https` backends.
    #[serde(default)]
    pub tls: UpstreamTls,
}

/// `sticky:` of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyConfig {
    /// The name of the gateway's cookie.
    pub cookie: String,
    /// How long a browser keeps it. Default: until it is closed.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// The same for all processes that are to agree on cookies, at least 16 bytes. Default: another one for each
    /// process, so that clients are given out anew after a restart or an upgrade.
    #[serde(default)]
    pub secret: Option<SecretRef>,
}

/// `hedge:` of a service: an idempotent request without a body that is not answered after this time is sent to another
/// backend too; the first answer is taken, the other one dropped. Hedges come out of the retry budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HedgeConfig {
    /// A time (`50ms`), or a percentile of recent latencies (`p95`).
    pub after: HedgeAfter,
}

/// How long an answer may take before a second attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// After a fixed time.
    Time(Span),
    /// When so many percent of recent answers were faster.
    Percentile(u8),
}

impl FromStr for HedgeAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('p').map(str::parse::<u8>) {
            Some(Ok(percentile @ 50..=99)) => Ok(Self::Percentile(percentile)),
            Some(_) => Err(format!("'{text}' is not a percentile from p50 to p99")),
            None => text.parse().map(Self::Time),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for HedgeAfter {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HedgeAfter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let percentile = json_schema!({ "type": "string", "pattern": "^p[5-9][0-9]$" });
        json_schema!({ "anyOf": [percentile, generator.subschema_for::<Span>()] })
    }
}

/// Time limits towards backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection (with TLS, if any) stands. Default 3s; then 504.
    pub connect: Span,
    /// Between two reads from the backend. Default 60s; then 504.
    pub read: Span,
    /// For one write to the backend. Default 60s; then 504.
    pub write: Span,
    /// An unused connection to a backend is kept this long. Default 55s, just below what common backends keep it for.
    pub keepalive: Span,
    /// An upgraded connection (WebSocket) ends when both sides have been silent for this long. Default 1h.
    pub idle: Span,
    /// From the request's head to the end of the answer, over all attempts. Default: no limit.
    pub total: Option<Span>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |n| Span(std::time::Duration::from_secs(n));
        Self {
            connect: seconds(3),
            read: seconds(60),
            write: seconds(60),
            keepalive: seconds(55),
            idle: seconds(3600),
            total: None,
        }
    }
}

impl Timeouts {
    /// How long an attempt takes at most whose backend says nothing before its answer; without a limit of one of its parts
    /// there is none of the whole.
    pub(crate) fn one_attempt(&self) -> std::time::Duration {
        let parts = [self.connect.0, self.write.0, self.read.0];
        if parts.iter().any(std::time::Duration::is_zero) { std::time::Duration::MAX } else { parts.iter().sum() }
    }

    /// How long a request takes at most that is tried once.
    pub(crate) fn whole(&self) -> std::time::Duration {
        self.total.map_or_else(|| self.one_attempt(), |total| total.0)
    }

    /// How long a backend may take nothing of what is sent; `None`: for ever.
    pub(crate) fn unread(&self) -> Option<std::time::Duration> {
        (!self.write.0.is_zero()).then_some(self.write.0)
    }
}

/// What to do without a healthy backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllUnhealthy {
    /// 503 with `Retry-After`.
    #[default]
    Fail,
    /// Use one as if it were healthy.
    Any,
}

/// Active health checks of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheckConfig {
    /// Ask for this path over HTTP. Without it, a TCP (or TLS) connection is proof enough.
    pub path: Option<String>,
    /// Time between two checks of a backend. Default 5s.
    pub every: Span,
    /// Time for one check. Default 1s.
    pub timeout: Span,
    /// Statuses that count as healthy: `200`, or `2xx` for a hundred of them. Default `[200]`.
    pub expect: Vec<Statuses>,
    /// Checks in a row that must succeed before a backend is used again. Default 1.
    pub healthy_after: usize,
    /// Checks in a row that must fail before a backend is used no more. Default 3.
    pub unhealthy_after: usize,
    /// The `Host` of the check. Default: the URL's host.
    pub host: Option<String>,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        let seconds = |n| Span(std::time::Duration::from_secs(n));
        Self {
            path: None,
            every: seconds(5),
            timeout: seconds(1),
            expect: vec![Statuses::one(200)],
            healthy_after: 1,
            unhealthy_after: 3,
            host: None,
        }
    }
}
