//! The settings by which a service survives its backends: retries, circuit breakers, ejection, limits on what is under
//! way. The algorithms are pure and live in `crate::resilience`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    resilience::{Backoff, BreakerPolicy, BudgetPolicy, EjectionPolicy, FailureRate, GradientPolicy},
    units::{Problems, Share, Span},
    upstream::failure_kind::FailureKind,
    yaml::Node,
};

fn seconds(n: u64) -> Span {
    Span(std::time::Duration::from_secs(n))
}

fn millis(n: u64) -> Span {
    Span(std::time::Duration::from_millis(n))
}

/// `retry:` of a service or a route. A failed attempt is repeated, on another backend when there is one, if the request
/// may be repeated: its method is idempotent, or nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts in all; 1 is no retry. Default 3.
    pub max_attempts: u32,
    /// What is repeated: `connect`, `timeout`, `reset`, and statuses. Default `[connect, reset]`.
    pub on: Vec<FailureKind>,
    /// The pause before each further attempt.
    pub backoff: BackoffConfig,
    /// Also repeat what is not idempotent, when the client sent an `Idempotency-Key`. Default false.
    pub idempotency_key: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            on: vec![FailureKind::Connect, FailureKind::Reset],
            backoff: BackoffConfig::default(),
            idempotency_key: false,
        }
    }
}

/// `backoff:` of a retry: a random time below a bound that doubles with every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffConfig {
    /// The bound before the second attempt. Default 25ms.
    pub initial: Span,
    /// The highest bound. Default 1s.
    pub max: Span,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { initial: millis(25), max: seconds(1) }
    }
}

impl BackoffConfig {
    /// These settings as the rule in `crate::resilience` wants them.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.initial.0, max: self.max.0 }
    }
}

/// `retry_budget:` of a service: what retries and hedges may add to its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Retries per request, over the window. Default 20%.
    pub share: Share,
    /// So many retries are free within each window. Default 10.
    pub min: u32,
    /// The time looked back upon. Default 10s.
    pub window: Span,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { share: Share(0.2), min: 10, window: seconds(10) }
    }
}

impl BudgetConfig {
    pub(crate) fn policy(&self) -> BudgetPolicy {
        BudgetPolicy { share: self.share.0, minimum: self.min, window: self.window.0 }
    }
}

/// `circuit_breaker:` of a service: after failures it is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that open it; 0 is never. Default 5.
    pub failure_threshold: u32,
    /// Share of failures within `window` that opens it. Default: does not count.
    pub failure_rate: Option<Share>,
    /// The time that `failure_rate` looks back upon. Default 10s.
    pub window: Span,
    /// Attempts within the window below which `failure_rate` says nothing. Default 20.
    pub min_requests: u32,
    /// How long it stays open. Then one probe at a time is let through. Default 15s.
    pub reset_timeout: Span,
    /// Probes that must succeed before it closes. Default 1.
    pub probes: u32,
    /// What counts as a failure. Default `[connect, timeout, reset, 500, 502, 503, 504]`.
    pub failures: Vec<FailureKind>,
    /// One breaker for each backend instead of one for the service. Default false.
    pub per_backend: bool,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            failure_rate: None,
            window: seconds(10),
            min_requests: 20,
            reset_timeout: seconds(15),
            probes: 1,
            failures: failures(),
            per_backend: false,
        }
    }
}

fn failures() -> Vec<FailureKind> {
    let statuses = [500, 502, 503, 504].map(FailureKind::Status);
    [FailureKind::Connect, FailureKind::Timeout, FailureKind::Reset].into_iter().chain(statuses).collect()
}

impl BreakerConfig {
    pub(crate) fn policy(&self) -> BreakerPolicy {
        let rate = |share: Share| FailureRate { share: share.0, window: self.window.0, minimum: self.min_requests };
        BreakerPolicy {
            consecutive: (self.failure_threshold > 0).then_some(self.failure_threshold),
            rate: self.failure_rate.map(rate),
            open: self.reset_timeout.0,
            probes: self.probes.max(1),
        }
    }
}

/// `outlier_ejection:` of a service: a backend that fails again and again is passed over for a while, without waiting
/// for a health check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EjectionConfig {
    /// Failures in a row; 0 switches it off. Default 5.
    pub consecutive: u32,
    /// How long the first time; a multiple of it every further time. Default 10s.
    pub base: Span,
    /// The longest. Default 5m.
    pub max: Span,
    /// Never more of the backends than this (of two or more, one may always go). Default 50%.
    pub share: Share,
    /// What counts as a failure. Default `[connect, timeout, reset, 502, 503, 504]`.
    pub failures: Vec<FailureKind>,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        let failures = failures().into_iter().filter(|failure| *failure != FailureKind::Status(500)).collect();
        Self { consecutive: 5, base: seconds(10), max: seconds(300), share: Share(0.5), failures }
    }
}

impl EjectionConfig {
    pub(crate) fn policy(&self) -> EjectionPolicy {
        EjectionPolicy { consecutive: self.consecutive, base: self.base.0, max: self.max.0, share: self.share.0 }
    }
}

/// `in_flight:` of a route: how many requests may be under way at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// The most requests under way at once; at least 1.
    pub max: u32,
    /// Requests that may wait for a place; further ones get 503 at once. Default 0.
    #[serde(default)]
    pub queue: u32,
    /// How long one may wait. Default 100ms.
    #[serde(default = "wait")]
    pub wait: Span,
}

fn wait() -> Span {
    millis(100)
}

/// `in_flight:` of a service: how much may be under way at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InFlightConfig {
    /// Requests under way. Default 0: no limit.
    pub max: u32,
    /// Requests under way at one backend. Default 0: no limit.
    pub per_backend: u32,
    /// Requests that may wait for a place; further ones get 503 at once. Default 0.
    pub queue: u32,
    /// How long one may wait. Default 100ms.
    pub wait: Span,
    /// Let the limit follow the latency.
    pub adaptive: Option<AdaptiveConfig>,
}

impl Default for InFlightConfig {
    fn default() -> Self {
        Self { max: 0, per_backend: 0, queue: 0, wait: wait(), adaptive: None }
    }
}

/// `adaptive:` of `in_flight`: the limit grows while answers are as fast as ever, and shrinks when they get slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveConfig {
    /// The lowest limit. Default 10.
    pub min: u32,
    /// The limit to begin with. Default 50.
    pub initial: u32,
    /// How much slower than usual answers may become before the limit shrinks. Default 50%.
    pub tolerance: Share,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self { min: 10, initial: 50, tolerance: Share(0.5) }
    }
}

impl AdaptiveConfig {
    pub(crate) fn policy(&self, maximum: u32) -> GradientPolicy {
        GradientPolicy { minimum: self.min, maximum, initial: self.initial, tolerance: 1.0 + self.tolerance.0 }
    }
}

impl RetryConfig {
    /// Checks what one key alone cannot show; `node` is the `retry`.
    pub fn validate(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        if !(1..=10).contains(&self.max_attempts) {
            wrong("max_attempts", format!("{} is not a number from 1 to 10", self.max_attempts));
        }
        if self.backoff.initial > self.backoff.max {
            wrong(
                "backoff.initial",
                format!("{} is more than the 'max' of {}", self.backoff.initial, self.backoff.max),
            );
        }
    }
}

impl InFlightConfig {
    /// Checks what one key alone cannot show; `node` is the `in_flight`.
    pub(crate) fn validate(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        if self.max == 0 && self.per_backend == 0 {
            wrong("max", "nothing is limited: set 'max' or 'per_backend'".to_owned());
        }
        if let Some(adaptive) = &self.adaptive {
            if self.max == 0 {
                wrong("adaptive", "it needs 'max', the highest limit".to_owned());
            } else if !(1..=self.max).contains(&adaptive.min) || !(adaptive.min..=self.max).contains(&adaptive.initial)
            {
                let of = |key: &str, value: u32| {
                    let written = node.at("adaptive").get(key).is_some();
                    format!("{key} ({value}{})", if written { "" } else { ", the default" })
                };
                let (min, initial) = (of("min", adaptive.min), of("initial", adaptive.initial));
                wrong("adaptive", format!("expected 1 <= {min} <= {initial} <= max ({})", self.max));
            }
        }
    }
}

impl BreakerConfig {
    /// Checks what one key alone cannot show; `node` is the `circuit_breaker`.
    pub(crate) fn validate(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        if self.failure_threshold == 0 && self.failure_rate.is_none() {
            wrong("failure_threshold", "it would never open: set 'failure_threshold' or 'failure_rate'".to_owned());
        }
        if self.failure_rate.is_some_and(|share| share.0 <= 0.0) {
            wrong("failure_rate", "a share of 0% would open it at the first success".to_owned());
        }
        for (key, span) in [("window", self.window), ("reset_timeout", self.reset_timeout)] {
            if span < millis(100) {
                wrong(key, format!("{span} is too short: at least 100ms"));
            }
        }
        if !(1..=1000).contains(&self.probes) {
            wrong("probes", format!("{} is not a number from 1 to 1000", self.probes));
        }
    }
}
