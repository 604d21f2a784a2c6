//! Metrics of client connections and of the certificates shown to them.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::telemetry::registry::{counters, gauge, gauges, retain};

/// What happens before a request.
#[derive(Debug)]
pub struct ConnectionMetrics {
    /// Client connections that are open.
    pub open: IntGauge,
    refused: IntCounterVec,
    certificates: IntGaugeVec,
}

impl ConnectionMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        Self {
            open: gauge(r, "gateway_connections", "Client connections that are open."),
            refused: counters(
                r,
                "gateway_connections_refused_total",
                "Client connections that never got to a request.",
                &["reason"],
            ),
            certificates: gauges(
                r,
                "gateway_certificate_expiry_timestamp_seconds",
                "When a certificate stops being valid, in seconds since 1970.",
                &["name"],
            ),
        }
    }

    /// Counts a connection that was closed before its first request.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Says when the certificates for these names end, and that there are no others.
    pub fn certificate_ends(&self, ends: &BTreeMap<String, i64>) {
        retain(&self.certificates, &|labels| ends.contains_key(labels["name"]));
        for (name, end) in ends {
            self.certificates.with_label_values(&[name]).set(*end);
        }
    }
}
