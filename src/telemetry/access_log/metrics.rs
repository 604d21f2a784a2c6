//! Metrics of the access log.

use prometheus::{IntCounter, Registry};

use crate::telemetry::registry::counter;

/// What became of lines.
#[derive(Debug)]
pub struct LogMetrics {
    /// Lines lost.
    pub dropped: IntCounter,
}

impl LogMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        Self { dropped: counter(r, "gateway_access_log_dropped_total", "Access log lines lost.") }
    }
}
