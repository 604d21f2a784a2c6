//! Metrics of filters, and of the limits that they apply.

use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::telemetry::{
    Lazy,
    registry::{counter, counters, retain},
};

/// The families of filters.
#[derive(Debug)]
pub struct FilterMetrics {
    refusals: IntCounterVec,
    faults: IntCounterVec,
    limited: IntCounterVec,
    checks: IntCounterVec,
    /// Rate limit buckets thrown out to stay within their number.
    pub evictions: IntCounter,
}

impl FilterMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let labels = ["route", "filter"];
        Self {
            refusals: counters(r, "gateway_filter_refusals_total", "Requests that a filter answered.", &labels),
            faults: counters(r, "gateway_filter_faults_total", "Filters that could not do their work.", &labels),
            limited: counters(r, "gateway_rate_limited_total", "Requests refused by a rate limit.", &labels[..1]),
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

    /// Ends the series of routes that are gone.
    pub fn keep_routes(&self, keep: &dyn Fn(&str) -> bool) {
        for family in [&self.refusals, &self.faults, &self.limited] {
            retain(family, &|labels| keep(labels["route"]));
        }
    }
}
