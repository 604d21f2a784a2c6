//! Metrics of the cache.

use std::collections::BTreeMap;

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Registry,
    core::Collector as _,
    proto::{Metric, MetricFamily},
};

use super::memory::Stats;
use crate::telemetry::registry::{counter, counters, gauge};

/// What has been done for requests on routes with a cache.
#[derive(Debug)]
pub struct CacheMetrics {
    requests: IntCounterVec,
    bytes: IntGauge,
    coded: IntGauge,
    held: IntGauge,
    entries: IntGauge,
    evictions: IntCounter,
}

/// What has been done with the store that gateways share.
#[derive(Debug)]
pub struct TierMetrics {
    reads: IntCounterVec,
    writes: IntCounterVec,
    /// Whether it is asked.
    pub up: IntGauge,
}

impl TierMetrics {
    /// The families of this store.
    pub fn new(r: &Registry) -> Self {
        let (reads, writes) = ("Look-ups of answers in Redis, by what came of them.", "Answers written to Redis.");
        Self {
            reads: counters(r, "gateway_cache_redis_reads_total", reads, &["result"]),
            writes: counters(r, "gateway_cache_redis_writes_total", writes, &["result"]),
            up: gauge(r, "gateway_cache_redis_up", "Whether answers are looked for in Redis: 1 or 0."),
        }
    }

    /// One was looked for: `hit`, `miss`, `timeout`, `error` or `down`.
    pub fn read(&self, result: &str) {
        self.reads.with_label_values(&[result]).inc();
    }

    /// One was written (`ok`), or not: `busy`, `timeout`, `error` or `down`.
    pub fn wrote(&self, result: &str) {
        self.writes.with_label_values(&[result]).inc();
    }
}

/// What has been done with the files of answers.
#[derive(Debug)]
pub struct DiskMetrics {
    reads: IntCounterVec,
    writes: IntCounterVec,
    /// Whether there is a folder, and it takes files.
    pub up: IntGauge,
    bytes: IntGauge,
    entries: IntGauge,
}

impl DiskMetrics {
    /// The families of these files.
    pub fn new(r: &Registry) -> Self {
        let (reads, writes) = ("Answers read from disk, by what came of it.", "Answers written to disk.");
        Self {
            reads: counters(r, "gateway_cache_disk_reads_total", reads, &["result"]),
            writes: counters(r, "gateway_cache_disk_writes_total", writes, &["result"]),
            up: gauge(r, "gateway_cache_disk_up", "Whether answers are kept on disk: 1 or 0."),
            bytes: gauge(r, "gateway_cache_disk_bytes", "Bytes of answers on disk."),
            entries: gauge(r, "gateway_cache_disk_entries", "Keys with answers on disk."),
        }
    }

    /// A file was read (`ok`), or not: `busy`, `timeout`, `error`, or `altered`.
    pub fn read(&self, result: &str) {
        self.reads.with_label_values(&[result]).inc();
    }

    /// One was written (`ok`), or not: `error`, or `down` while none is tried.
    pub fn wrote(&self, result: &str) {
        self.writes.with_label_values(&[result]).inc();
    }

    /// Takes how much there is.
    pub fn take(&self, (bytes, entries): (u64, usize)) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}

impl CacheMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let help = "Requests on routes with a cache, by what it did.";
        Self {
            requests: counters(r, "gateway_cache_requests_total", help, &["result"]),
            bytes: gauge(r, "gateway_cache_bytes", "Memory that kept answers take."),
            coded: gauge(r, "gateway_cache_coded_bytes", "Memory that their bodies take once more, compressed."),
            held: gauge(
                r,
                "gateway_cache_held_bytes",
                "Memory of bodies that are kept no longer and still being sent.",
            ),
            entries: gauge(r, "gateway_cache_entries", "Keys with kept answers."),
            evictions: counter(r, "gateway_cache_evictions_total", "Keys whose answers were dropped to make room."),
        }
    }

    /// Counts a request; `result` is a word of a closed list (`said::Outcome::label`).
    pub fn count(&self, result: &str) {
        self.requests.with_label_values(&[result]).inc();
    }

    /// Requests by what was done for them.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    pub fn results(&self) -> BTreeMap<String, u64> {
        let families = self.requests.collect();
        let series = families.iter().flat_map(MetricFamily::get_metric);
        let result = |series: &Metric| series.get_label().iter().map(|label| label.value().to_owned()).collect();
        series.map(|series| (result(series), series.get_counter().get_value() as u64)).collect()
    }

    /// Takes what the store counts by itself, when somebody asks, the bytes of `coded` bodies, and what is `held` beyond both.
    pub fn take(&self, stats: Stats, coded: u64, held: u64) {
        self.coded.set(i64::try_from(coded).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        self.entries.set(i64::try_from(stats.entries).unwrap_or(i64::MAX));
        self.evictions.inc_by(stats.evictions.saturating_sub(self.evictions.get()));
    }
}
