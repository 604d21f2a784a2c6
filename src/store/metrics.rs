//! Metrics of the store.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

use crate::telemetry::registry::{counters, gauge, histograms};

/// A store on the same network answers in well under a millisecond; requests wait 20 of them at most.
const BOUNDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// What was asked of Redis, and what came of it.
#[derive(Debug)]
pub struct StoreMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
    without: IntCounterVec,
    nonces: IntCounterVec,
    pub(super) up: IntGauge,
    pub(super) gateways: IntGauge,
}

impl StoreMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let without = "Decisions of shared limits that were made without Redis, by what on_store_down says.";
        let nonces = "Nonces that were judged without Redis, by what on_store_down says.";
        Self {
            calls: counters(r, "gateway_redis_calls_total", "Calls to Redis, by what came of them.", &["result"]),
            seconds: histograms(r, "gateway_redis_call_seconds", "Time of calls that were answered.", &[], BOUNDS),
            without: counters(r, "gateway_limit_without_store_total", without, &["policy"]),
            nonces: counters(r, "gateway_nonces_without_store_total", nonces, &["policy"]),
            up: gauge(r, "gateway_redis_up", "Whether Redis is asked: 1, or 0 while it does not answer."),
            gateways: gauge(r, "gateway_redis_gateways", "Gateways that Redis has seen lately."),
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self, time: Duration) {
        self.calls.with_label_values(&["ok"]).inc();
        self.seconds.with_label_values::<&str>(&[]).observe(time.as_secs_f64());
    }

    /// A call was not, in time (`timeout`) or at all (`error`).
    pub(super) fn failed(&self, result: &str) {
        self.calls.with_label_values(&[result]).inc();
    }

    /// A limit has decided without the store.
    pub(super) fn without(&self, policy: &str) {
        self.without.with_label_values(&[policy]).inc();
    }

    /// A nonce was judged without the store.
    pub(super) fn nonce_without(&self, policy: &str) {
        self.nonces.with_label_values(&[policy]).inc();
    }
}
