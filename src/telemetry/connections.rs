//! Metrics of client connections and of the certificates shown to them.

use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{GenericCounterVec, GenericGaugeVec},
};

use crate::telemetry::registry::register;

/// What happens before a request.
#[derive(Debug)]
pub struct ConnectionMetrics {
    /// Client connections that are open.
    pub open: IntGauge,
    refused: IntCounterVec,
    certificates: IntGaugeVec,
}

impl ConnectionMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let refused = Opts::new("gateway_connections_refused_total", "Client connections that never got to a request.");
        let certificates = Opts::new(
            "gateway_certificate_expiry_timestamp_seconds",
            "When a certificate stops being valid, in seconds since 1970.",
        );
        Self {
            open: register(r, IntGauge::new("gateway_connections", "Client connections that are open.")),
            refused: register(r, GenericCounterVec::new(refused, &["reason"])),
            certificates: register(r, GenericGaugeVec::new(certificates, &["name"])),
        }
    }

    /// Counts a connection that was closed before its first request.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Says when the certificate for a name ends.
    pub fn certificate_ends(&self, name: &str, unix: i64) {
        self.certificates.with_label_values(&[name]).set(unix);
    }
}
