//! Metrics of services: attempts at backends, and what keeps them from doing harm.

use std::fmt;

use prometheus::{
    IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{GenericCounterVec, GenericGaugeVec},
};

use crate::telemetry::registry::register;

/// The families that every service has children of.
#[derive(Debug)]
pub(super) struct ServiceFamilies {
    retries: IntCounterVec,
    attempts: IntCounterVec,
    budget_exhausted: IntCounterVec,
    hedges: IntCounterVec,
    mirror_dropped: IntCounterVec,
    breaker_state: IntGaugeVec,
    ejections: IntCounterVec,
    concurrency_limit: IntGaugeVec,
    backend_up: IntGaugeVec,
}

/// The children of one service.
#[derive(Clone)]
pub struct ServiceMetrics {
    backend_up: IntGaugeVec,
    breaker_state: IntGaugeVec,
    ejections: IntCounterVec,
    concurrency_limit: IntGaugeVec,
    service: String,
    attempts: [IntCounter; OUTCOMES.len()],
    /// Retries and hedges that the budget refused.
    pub budget_exhausted: IntCounter,
    /// Second attempts at answers that were late.
    pub hedges: IntCounter,
    /// Copies that were not sent: too large, or too many.
    pub mirror_dropped: IntCounter,
    /// Attempts after the first.
    pub retries: IntCounter,
}

/// How attempts end; `unknown`: nobody waited for it (the client left, or another attempt was faster).
const OUTCOMES: [&str; 6] = ["ok", "connect", "timeout", "reset", "status", "unknown"];

impl ServiceFamilies {
    pub(super) fn new(r: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register::<IntCounterVec>(r, GenericCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges =
            |name: &str, help: &str, labels: &[&str]| register(r, GenericGaugeVec::new(Opts::new(name, help), labels));
        Self {
            retries: counters("gateway_retries_total", "Attempts after the first one.", &["service"]),
            attempts: counters(
                "gateway_upstream_attempts_total",
                "Attempts at backends, by how they ended.",
                &["service", "outcome"],
            ),
            budget_exhausted: counters(
                "gateway_retry_budget_exhausted_total",
                "Retries and hedges that the budget refused.",
                &["service"],
            ),
            hedges: counters("gateway_hedges_total", "Second attempts at answers that were late.", &["service"]),
            mirror_dropped: counters("gateway_mirror_dropped_total", "Copies that were not sent.", &["service"]),
            breaker_state: gauges(
                "gateway_circuit_breaker_state",
                "0 closed, 1 open, 2 half-open.",
                &["service", "backend"],
            ),
            ejections: counters("gateway_backend_ejections_total", "Backends ejected.", &["service", "backend"]),
            concurrency_limit: gauges(
                "gateway_concurrency_limit",
                "Requests that may be under way, as the adaptive limit has it.",
                &["service"],
            ),
            backend_up: gauges("gateway_backend_up", "1 when the backend may be used.", &["service", "backend"]),
        }
    }

    pub(super) fn of(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics {
            backend_up: self.backend_up.clone(),
            breaker_state: self.breaker_state.clone(),
            ejections: self.ejections.clone(),
            concurrency_limit: self.concurrency_limit.clone(),
            attempts: OUTCOMES.map(|outcome| self.attempts.with_label_values(&[service, outcome])),
            budget_exhausted: self.budget_exhausted.with_label_values(&[service]),
            hedges: self.hedges.with_label_values(&[service]),
            mirror_dropped: self.mirror_dropped.with_label_values(&[service]),
            service: service.to_owned(),
            retries: self.retries.with_label_values(&[service]),
        }
    }
}

// Counters are not settings: what a Runtime shows of itself must not change with traffic.
impl fmt::Debug for ServiceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceMetrics({})", self.service)
    }
}

impl ServiceMetrics {
    /// Says whether a backend may be used.
    pub fn backend_up(&self, backend: &str, up: bool) {
        self.backend_up.with_label_values(&[&self.service, backend]).set(i64::from(up));
    }

    /// Counts an attempt; without a `trouble` it went well.
    pub fn attempt(&self, trouble: Option<&str>) {
        let place = trouble.and_then(|trouble| OUTCOMES.iter().position(|known| *known == trouble)).unwrap_or(0);
        self.attempts[place].inc();
    }

    /// Shows the state of a circuit breaker: 0 closed, 1 open, 2 half-open. `backend` is empty for a service's own.
    pub fn breaker_state(&self, backend: &str, state: i64) {
        self.breaker_state.with_label_values(&[&self.service, backend]).set(state);
    }

    /// Counts the ejection of a backend.
    pub fn ejected(&self, backend: &str) {
        self.ejections.with_label_values(&[&self.service, backend]).inc();
    }

    /// Shows the adaptive limit.
    pub fn limit(&self, limit: u32) {
        self.concurrency_limit.with_label_values(&[&self.service]).set(limit.into());
    }

    /// Forgets a backend that is no longer there.
    pub fn backend_gone(&self, backend: &str) {
        let _ = self.breaker_state.remove_label_values(&[&self.service, backend]);
        let _ = self.ejections.remove_label_values(&[&self.service, backend]);
        let _ = self.backend_up.remove_label_values(&[&self.service, backend]);
    }
}
