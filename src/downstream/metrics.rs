//! Metrics of client connections and of the certificates shown to them.

use std::{collections::BTreeMap, io};

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

/// Why a handshake with a client has failed, as a label.
pub(super) fn handshake_failure(error: &io::Error) -> &'static str {
    use rustls::Error as E;
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(E::InvalidCertificate(_) | E::NoCertificatesPresented) => "tls_client_certificate",
        Some(E::AlertReceived(_)) => "tls_refused_by_client",
        Some(E::PeerIncompatible(_) | E::NoApplicationProtocol) => "tls_nothing_in_common",
        Some(E::InvalidMessage(_) | E::InappropriateMessage { .. } | E::PeerMisbehaved(_)) => "tls_malformed",
        _ => "tls_handshake",
    }
}
