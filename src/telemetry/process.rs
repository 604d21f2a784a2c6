//! What is known of the process as a whole.

use std::time::Instant;

use prometheus::{Gauge, IntCounter, IntGauge, Registry, process_collector::ProcessCollector};

use super::registry::{counter, gauge, gauges, register};

/// Metrics of the process.
#[derive(Debug)]
pub struct ProcessMetrics {
    started: Instant,
    uptime: Gauge,
    memory: IntGauge,
    /// Panics caught in request tasks.
    pub panics: IntCounter,
}

impl ProcessMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let build = gauges(r, "gateway_build_info", "Always 1; the version is in the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // `process_*`, as every exporter names them.
        if let Err(e) = r.register(Box::new(ProcessCollector::for_self())) {
            log::warn!("metrics of the process: {e}");
        }
        Self {
            started: Instant::now(),
            uptime: register(r, Gauge::new("gateway_uptime_seconds", "Time since the start.")),
            memory: gauge(r, "gateway_memory_alloc_bytes", "Resident memory of the process."),
            panics: counter(r, "gateway_panics_total", "Panics caught."),
        }
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Takes what is only known when somebody asks.
    pub fn refresh(&self) {
        self.uptime.set(self.uptime());
        self.memory.set(i64::try_from(resident_bytes()).unwrap_or(i64::MAX));
    }
}

/// Resident memory in bytes, or 0 where `/proc` is not there.
fn resident_bytes() -> u64 {
    // statm counts pages; 4 KiB is the page size of every platform that Pingora's upgrade supports.
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * 4096)
}
