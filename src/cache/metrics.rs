//! Metrics of the cache.

use prometheus::{IntCounterVec, Registry};

use crate::telemetry::registry::counters;

/// What has been done for requests on routes with a cache.
#[derive(Debug)]
pub struct CacheMetrics {
    requests: IntCounterVec,
}

impl CacheMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let help = "Requests on routes with a cache, by what it did.";
        Self { requests: counters(r, "gateway_cache_requests_total", help, &["result"]) }
    }

    /// Counts a request; `result` is a word of a closed list (`said::Outcome::label`).
    pub fn count(&self, result: &str) {
        self.requests.with_label_values(&[result]).inc();
    }
}
