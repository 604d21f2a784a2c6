//! Metrics of services: attempts at backends, and what keeps them from doing harm.

use std::{collections::BTreeMap, fmt};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry, core::Collector as _,
    proto::MetricFamily,
};

use crate::{
    message::reason::Reason,
    telemetry::{
        Lazy,
        registry::{BUCKETS, Labels, counters, gauges, histograms, retain},
    },
};

/// The families that every service has children of.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    retries: IntCounterVec,
    attempts: IntCounterVec,
    budget_exhausted: IntCounterVec,
    hedges: IntCounterVec,
    mirror_dropped: IntCounterVec,
    breaker_state: IntGaugeVec,
    ejections: IntCounterVec,
    concurrency_limit: IntGaugeVec,
    backend_up: IntGaugeVec,
    failures: IntCounterVec,
    first_byte: HistogramVec,
}

/// The children of one service. None is there before it counts or is shown: a configuration that is rejected leaves no
/// trace.
#[derive(Clone)]
pub struct ServiceMetrics {
    families: UpstreamMetrics,
    service: String,
    attempts: [Lazy<IntCounter>; OUTCOMES.len()],
    /// Seconds from the end of a request, or the beginning of its attempt, to the answer's head.
    pub first_byte: Lazy<Histogram>,
    /// Retries and hedges that the budget refused.
    pub budget_exhausted: Lazy<IntCounter>,
    /// Second attempts at answers that were late.
    pub hedges: Lazy<IntCounter>,
    /// Copies that were not sent: too large, or too many.
    pub mirror_dropped: Lazy<IntCounter>,
    /// Attempts after the first.
    pub retries: Lazy<IntCounter>,
}

/// What has been counted of one service.
#[derive(Debug, Clone, Default)]
pub struct ServiceCounts {
    /// Attempts by how they ended, those that are not 0.
    pub attempts: BTreeMap<&'static str, u64>,
    /// Attempts after the first.
    pub retries: u64,
    /// Second attempts at answers that were late.
    pub hedges: u64,
}

/// How attempts end; `unknown`: nobody waited for it (the client left, or another attempt was faster).
const OUTCOMES: [&str; 6] = ["ok", "connect", "timeout", "reset", "status", "unknown"];

impl UpstreamMetrics {
    /// The families of this room.
    pub fn new(r: &Registry) -> Self {
        let (service, backend) = (&["service"], &["service", "backend"]);
        Self {
            retries: counters(r, "gateway_retries_total", "Attempts after the first one.", service),
            attempts: counters(
                r,
                "gateway_upstream_attempts_total",
                "Attempts at backends, by how they ended.",
                &["service", "outcome"],
            ),
            budget_exhausted: counters(
                r,
                "gateway_retry_budget_exhausted_total",
                "Retries and hedges that the budget refused.",
                service,
            ),
            hedges: counters(r, "gateway_hedges_total", "Second attempts at answers that were late.", service),
            mirror_dropped: counters(r, "gateway_mirror_dropped_total", "Copies that were not sent.", service),
            breaker_state: gauges(r, "gateway_circuit_breaker_state", "0 closed, 1 open, 2 half-open.", backend),
            ejections: counters(r, "gateway_backend_ejections_total", "Backends ejected.", backend),
            concurrency_limit: gauges(
                r,
                "gateway_concurrency_limit",
                "Requests that may be under way, as the adaptive limit has it.",
                service,
            ),
            failures: counters(
                r,
                "gateway_upstream_failures_total",
                "Attempts at backends that failed, by reason.",
                &["service", "reason"],
            ),
            first_byte: histograms(
                r,
                "gateway_upstream_first_byte_seconds",
                "Time from a request's end to its answer's head.",
                service,
                BUCKETS,
            ),
            backend_up: gauges(
                r,
                "gateway_backend_up",
                "1 when the backend is well by its checks; ejection is counted apart.",
                backend,
            ),
        }
    }

    /// The children of a service. A reload asks again and gets the same counters.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        let counter = |family: &IntCounterVec| Lazy::<IntCounter>::of(family, &[service]);
        ServiceMetrics {
            attempts: OUTCOMES.map(|outcome| Lazy::<IntCounter>::of(&self.attempts, &[service, outcome])),
            first_byte: Lazy::histogram(&self.first_byte, &[service]),
            budget_exhausted: counter(&self.budget_exhausted),
            hedges: counter(&self.hedges),
            mirror_dropped: counter(&self.mirror_dropped),
            retries: counter(&self.retries),
            service: service.to_owned(),
            families: self.clone(),
        }
    }

    /// Failed attempts by service and reason.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and positive")]
    pub fn failures(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
        let families = self.failures.collect();
        for series in families.iter().flat_map(MetricFamily::get_metric) {
            let labels: Labels<'_> = series.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            let of_service = all.entry(labels["service"].to_owned()).or_default();
            of_service.insert(labels["reason"].to_owned(), series.get_counter().get_value() as u64);
        }
        all
    }

    /// Ends the series of services that are gone.
    pub fn keep_services(&self, keep: &dyn Fn(&str) -> bool) {
        let counters = [
            &self.retries,
            &self.attempts,
            &self.budget_exhausted,
            &self.hedges,
            &self.mirror_dropped,
            &self.ejections,
            &self.failures,
        ];
        for family in counters {
            retain(family, &|labels| keep(labels["service"]));
        }
        retain(&self.first_byte, &|labels| keep(labels["service"]));
        for family in [&self.breaker_state, &self.concurrency_limit, &self.backend_up] {
            retain(family, &|labels| keep(labels["service"]));
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
    /// Shows what has not been counted yet as zero.
    pub fn show(&self) {
        let single = [&self.budget_exhausted, &self.hedges, &self.mirror_dropped, &self.retries];
        self.attempts.iter().chain(single).for_each(Lazy::show);
    }

    /// Says whether a backend may be used.
    pub fn backend_up(&self, backend: &str, up: bool) {
        self.families.backend_up.with_label_values(&[&self.service, backend]).set(i64::from(up));
    }

    /// Counts an attempt; without a `failure` it went well.
    pub fn attempt(&self, failure: Option<&str>) {
        let place = failure.and_then(|failure| OUTCOMES.iter().position(|known| *known == failure)).unwrap_or(0);
        self.attempts[place].inc();
    }

    /// Counts why an attempt failed.
    pub fn failure(&self, reason: Reason) {
        self.families.failures.with_label_values(&[&self.service, reason.label()]).inc();
    }

    /// What has been counted of it, without its failures: those are in a family for all services.
    pub fn counts(&self) -> ServiceCounts {
        let attempts = OUTCOMES.into_iter().zip(self.attempts.iter().map(Lazy::value));
        ServiceCounts {
            attempts: attempts.filter(|(_, count)| *count > 0).collect(),
            retries: self.retries.value(),
            hedges: self.hedges.value(),
        }
    }

    /// Shows the state of a circuit breaker: 0 closed, 1 open, 2 half-open. `backend` is empty for a service's own.
    pub fn breaker_state(&self, backend: &str, state: i64) {
        self.families.breaker_state.with_label_values(&[&self.service, backend]).set(state);
    }

    /// Counts the ejection of a backend.
    pub fn ejected(&self, backend: &str) {
        self.families.ejections.with_label_values(&[&self.service, backend]).inc();
    }

    /// Shows the adaptive limit.
    pub fn limit(&self, limit: u32) {
        self.families.concurrency_limit.with_label_values(&[&self.service]).set(limit.into());
    }

    /// Ends the series of backends that are gone.
    pub fn keep_backends(&self, keep: &dyn Fn(&str) -> bool) {
        let keep = |labels: &Labels<'_>| labels["service"] != self.service || keep(labels["backend"]);
        retain(&self.families.ejections, &keep);
        retain(&self.families.breaker_state, &keep);
        retain(&self.families.backend_up, &keep);
    }
}
