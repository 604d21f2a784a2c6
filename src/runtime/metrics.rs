//! Every metric of the process: each room brings its own families, here they are one page.

use std::{fmt, sync::Arc};

use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::{
    cache::metrics::{CacheMetrics, DiskMetrics, TierMetrics},
    downstream::ConnectionMetrics,
    filter::FilterMetrics,
    routing::metrics::RequestMetrics,
    store::StoreMetrics,
    telemetry::{ProcessMetrics, access_log::metrics::LogMetrics},
    upstream::UpstreamMetrics,
};

/// Every metric family of the process.
pub struct Metrics {
    registry: Registry,
    /// The process as a whole.
    pub process: ProcessMetrics,
    /// The cache.
    pub cache: CacheMetrics,
    /// The answers that gateways keep together.
    pub cache_tier: Arc<TierMetrics>,
    /// Answers on disk.
    pub cache_disk: Arc<DiskMetrics>,
    /// Client connections.
    pub connections: ConnectionMetrics,
    /// Requests.
    pub requests: RequestMetrics,
    /// Filters and limits.
    pub filters: Arc<FilterMetrics>,
    /// The store that gateways share.
    pub store: Arc<StoreMetrics>,
    /// Services.
    pub upstream: UpstreamMetrics,
    /// The access log.
    pub log: LogMetrics,
}

impl Metrics {
    /// A fresh set; one per process, and one per test.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        Arc::new(Self {
            process: ProcessMetrics::new(&registry),
            cache: CacheMetrics::new(&registry),
            cache_tier: Arc::new(TierMetrics::new(&registry)),
            cache_disk: Arc::new(DiskMetrics::new(&registry)),
            connections: ConnectionMetrics::new(&registry),
            requests: RequestMetrics::new(&registry),
            filters: Arc::new(FilterMetrics::new(&registry)),
            store: Arc::new(StoreMetrics::new(&registry)),
            upstream: UpstreamMetrics::new(&registry),
            log: LogMetrics::new(&registry),
            registry,
        })
    }

    /// The text exposition of everything.
    pub fn render(&self) -> Vec<u8> {
        self.requests.refresh();
        self.process.refresh();
        let mut out = Vec::with_capacity(16 << 10);
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            log::error!("metrics: {e}");
        }
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
