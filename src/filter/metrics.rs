//! Metrics of filters, and of the limits that they apply.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use crate::{
    limit::Origin,
    telemetry::{
        Lazy,
        registry::{counter, counters, gauges, retain},
    },
};

/// The families of filters.
#[derive(Debug)]
pub struct FilterMetrics {
    refusals: IntCounterVec,
    faults: IntCounterVec,
    limited: IntCounterVec,
    checks: IntCounterVec,
    shared: IntCounterVec,
    key_fetches: IntCounterVec,
    asked: IntCounterVec,
    keys: IntGaugeVec,
    keys_confirmed: IntGaugeVec,
    /// Rate limit buckets thrown out to stay within their number.
    pub evictions: IntCounter,
}

/// What was decided of one limit that gateways keep together. Of what it has admitted, at most `admitted_alone` are too many, and
/// at most `withheld` are missing.
#[derive(Debug)]
pub struct SharedCounts {
    admitted: Lazy<IntCounter>,
    refused: Lazy<IntCounter>,
    admitted_alone: Lazy<IntCounter>,
    refused_alone: Lazy<IntCounter>,
    withheld: Lazy<IntCounter>,
}

impl SharedCounts {
    /// Counts a decision.
    pub fn count(&self, allowed: bool, origin: Origin) {
        let counter = match (allowed, origin) {
            (true, Origin::Alone) => &self.admitted_alone,
            (false, Origin::Alone) => &self.refused_alone,
            (true, _) => &self.admitted,
            (false, Origin::Withheld) => &self.withheld,
            (false, Origin::Counted) => &self.refused,
        };
        counter.inc();
    }
}

impl FilterMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let labels = ["route", "filter"];
        let set = ["jwks", "outcome"];
        Self {
            key_fetches: counters(r, "gateway_jwks_fetches_total", "Fetches of key sets.", &set),
            keys: gauges(r, "gateway_jwks_keys", "Keys of a key set that can check signatures.", &set[..1]),
            keys_confirmed: gauges(
                r,
                "gateway_jwks_confirmed_timestamp_seconds",
                "When a key set was fetched for the last time without a mistake.",
                &set[..1],
            ),
            asked: counters(
                r,
                "gateway_forward_auth_total",
                "Requests about which another service was asked, or remembered.",
                &["route", "outcome"],
            ),
            refusals: counters(r, "gateway_filter_refusals_total", "Requests that a filter answered.", &labels),
            faults: counters(r, "gateway_filter_faults_total", "Filters that could not do their work.", &labels),
            limited: counters(r, "gateway_rate_limited_total", "Requests refused by a rate limit.", &labels[..1]),
            shared: counters(
                r,
                "gateway_shared_limit_decisions_total",
                "Decisions of limits that gateways keep together, by what they stood on.",
                &["route", "limit", "result"],
            ),
            checks: counters(r, "rate_limit_checks_total", "Rate limit decisions.", &["result"]),
            evictions: counter(r, "gateway_limiter_evictions_total", "Buckets evicted while still in use."),
        }
    }

    /// Requests that `filter` answered on `route`.
    pub fn refusals(&self, route: &str, filter: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.refusals, &[route, filter])
    }

    /// Times that `filter` failed on `route`.
    pub fn faults(&self, route: &str, filter: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.faults, &[route, filter])
    }

    /// Requests that rate limits of `route` refused.
    pub fn limited(&self, route: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.limited, &[route])
    }

    /// Rate limit decisions: (allowed, refused).
    pub fn limit_checks(&self) -> (Lazy<IntCounter>, Lazy<IntCounter>) {
        (Lazy::<IntCounter>::of(&self.checks, &["allowed"]), Lazy::<IntCounter>::of(&self.checks, &["refused"]))
    }

    /// Requests of `route` that another service has judged: by its `outcome`.
    pub fn asked(&self, route: &str, outcome: &str) -> Lazy<IntCounter> {
        Lazy::<IntCounter>::of(&self.asked, &[route, outcome])
    }

    /// Decisions of a limit that gateways keep together.
    pub fn shared_limit(&self, route: &str, limit: &str) -> SharedCounts {
        let of = |result| Lazy::<IntCounter>::of(&self.shared, &[route, limit, result]);
        SharedCounts {
            admitted: of("admitted"),
            refused: of("refused"),
            admitted_alone: of("admitted_alone"),
            refused_alone: of("refused_alone"),
            withheld: of("withheld"),
        }
    }

    /// A fetch of the key set `name` has ended, at `unix`; it has `keys` now.
    pub(crate) fn key_set_fetched(&self, name: &str, good: bool, keys: usize, unix: u64) {
        self.key_fetches.with_label_values(&[name, if good { "ok" } else { "failed" }]).inc();
        self.keys.with_label_values(&[name]).set(i64::try_from(keys).unwrap_or(i64::MAX));
        if good {
            self.keys_confirmed.with_label_values(&[name]).set(i64::try_from(unix).unwrap_or(i64::MAX));
        }
    }

    /// Ends the series of key sets that are gone.
    pub(crate) fn keep_key_sets(&self, keep: &dyn Fn(&str) -> bool) {
        retain(&self.key_fetches, &|labels| keep(labels["jwks"]));
        for family in [&self.keys, &self.keys_confirmed] {
            retain(family, &|labels| keep(labels["jwks"]));
        }
    }

    /// Ends the series of routes that are gone.
    pub fn keep_routes(&self, keep: &dyn Fn(&str) -> bool) {
        for family in [&self.refusals, &self.faults, &self.limited, &self.asked] {
            retain(family, &|labels| keep(labels["route"]));
        }
    }
}
