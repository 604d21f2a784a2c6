//! What a service learns from every attempt, and what it does about it: breakers open, backends are ejected, limits
//! move. Each change is logged once, with its reason, and shown as a metric.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    backend::{Backend, LATENCY_MEMORY},
    concurrency::ConcurrencyLimit,
    failure_kind::FailureKind,
    service_limits::ServiceLimits,
    settings::{
        resilience::{BreakerConfig, EjectionConfig, InFlightConfig},
        service::ServiceConfig,
    },
};
use crate::{
    resilience::{Breaker, BreakerState, Budget, EjectionPolicy, Gradient, Quantile, Transition},
    upstream::{
        ServiceMetrics,
        backend_list::Endpoints,
        choice::{ProbeTickets, SelectError},
        settings::service::{HedgeAfter, HedgeConfig},
    },
};

/// How an attempt at a backend ended, as far as breakers, ejection and metrics are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    /// The backend answered with this status.
    Answered(u16),
    /// It broke off, or was too late, in this way.
    Failed(FailureKind),
    /// Nobody can say: the client left, or the gateway refused.
    Unknown,
}

/// What a service has learned from its attempts: breaker, retry budget, ejection, latencies, limits.
pub(crate) struct Resilience {
    /// The service's name, for the log.
    service: Arc<str>,
    metrics: ServiceMetrics,
    endpoints: Endpoints,
    /// The balancer decides by latency.
    wants_latency: bool,
    hedge: Option<HedgeConfig>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) breaker_config: Option<BreakerConfig>,
    pub(crate) ejection: EjectionConfig,
    ejection_policy: EjectionPolicy,
    pub(crate) concurrency: Option<Arc<ConcurrencyLimit>>,
    gradient: Option<Arc<Gradient>>,
    pub(crate) in_flight: Option<InFlightConfig>,
    /// Told whenever a backend has room again.
    pub(crate) freed: Arc<Notify>,
    /// How many requests wait for that, or for a permit of `concurrency`.
    pub(crate) waiting: Arc<AtomicUsize>,
    /// Recent latencies, when a hedge waits for a percentile of them.
    pub(crate) latencies: Option<Arc<Quantile>>,
}

// What has happened so far is no setting: a Runtime must look the same before and after traffic.
impl fmt::Debug for Resilience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resilience")
            .field("budget", self.budget.policy())
            .field("breaker", &self.breaker_config)
            .field("ejection", &self.ejection)
            .field("in_flight", &self.in_flight)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}

impl Resilience {
    /// What it learns begins with nothing, save what `before`, the service's own in the configuration before, has learned
    /// under the same settings.
    pub(crate) fn new(
        service: &str,
        config: &ServiceConfig,
        endpoints: Endpoints,
        wants_latency: bool,
        metrics: &ServiceMetrics,
        before: Option<&Self>,
    ) -> Self {
        let breaker = config.circuit_breaker.as_ref().filter(|breaker| !breaker.per_backend);
        let breaker = breaker.map(|config| {
            let known = before.and_then(|before| before.breaker.clone());
            known
                .filter(|known| *known.policy() == config.policy())
                .unwrap_or_else(|| Breaker::new(config.policy()).into())
        });
        let policy = config.retry_budget.policy();
        let budget = before.map(|before| before.budget.clone()).filter(|known| *known.policy() == policy);
        let in_flight = config.in_flight.clone();
        let same_limits = before.filter(|before| before.in_flight == in_flight).map(Self::limits);
        let limits = same_limits.unwrap_or_else(|| ServiceLimits::new(in_flight.as_ref()));
        let same_hedge = before.filter(|before| before.hedge == config.hedge);
        let latencies = || config.hedge.as_ref().map(|_| Quantile::new(LATENCY_MEMORY).into());
        Self {
            service: service.into(),
            metrics: metrics.clone(),
            endpoints,
            wants_latency,
            hedge: config.hedge,
            budget: budget.unwrap_or_else(|| Budget::new(policy).into()),
            breaker,
            breaker_config: config.circuit_breaker.clone(),
            ejection_policy: config.outlier_ejection.policy(),
            ejection: config.outlier_ejection.clone(),
            waiting: limits.waiting,
            concurrency: limits.concurrency,
            gradient: limits.gradient,
            in_flight,
            freed: limits.freed,
            latencies: same_hedge.map_or_else(latencies, |before| before.latencies.clone()),
        }
    }

    fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            concurrency: self.concurrency.clone(),
            gradient: self.gradient.clone(),
            freed: self.freed.clone(),
            waiting: self.waiting.clone(),
        }
    }

    /// Shows its breaker and its limit, once the configuration that it belongs to serves.
    pub(crate) fn show(&self) {
        if let Some(breaker) = &self.breaker {
            self.metrics.breaker_state("", breaker.state().gauge());
        }
        if let (Some(_), Some(concurrency)) = (&self.gradient, &self.concurrency) {
            self.metrics.limit(concurrency.limit());
        }
    }

    /// The most requests under way at one backend; 0 is any number.
    pub(crate) fn per_backend(&self) -> u32 {
        self.in_flight.as_ref().map_or(0, |limits| limits.per_backend)
    }

    /// Learns how an attempt ended; `elapsed` is the time from its beginning to the answer's head, or to the failure.
    pub(crate) fn record_outcome(
        &self,
        backend: &Backend,
        tickets: ProbeTickets,
        now: Duration,
        elapsed: Option<Duration>,
        outcome: AttemptOutcome,
    ) {
        let failure = match outcome {
            AttemptOutcome::Unknown => {
                self.metrics.attempt(Some("unknown"));
                return self.give_back(backend, tickets);
            }
            AttemptOutcome::Answered(status) => (status >= 400).then_some(FailureKind::Status(status)),
            AttemptOutcome::Failed(failure) => Some(failure),
        };
        self.metrics
            .attempt(failure.filter(|_| !matches!(outcome, AttemptOutcome::Answered(..=499))).map(FailureKind::label));
        let counts = |list: &[FailureKind]| failure.is_some_and(|failure| list.contains(&failure));
        if let Some(config) = &self.breaker_config {
            let ok = !counts(&config.failures);
            if let Some(breaker) = &self.breaker {
                self.announce("", breaker.record(now, tickets.service, ok));
            }
            if let Some(breaker) = &backend.breaker {
                self.announce(&backend.name, breaker.record(now, tickets.backend, ok));
            }
        }
        self.update_ejection(backend, now, failure.filter(|failure| self.ejection.failures.contains(failure)));
        if let Some(elapsed) = elapsed {
            let failed = matches!(outcome, AttemptOutcome::Failed(_));
            self.learn_latency(backend, now, elapsed, failed || self.is_failure(outcome));
        }
    }

    /// Lets others probe while the request of this attempt is being sent: a client that is slow must not keep a breaker
    /// half-open. True when it is a probe: then it asks again when all has been sent.
    ///
    /// # Errors
    /// Too many are being sent; the tickets have been given back.
    pub(crate) fn suspend(
        &self,
        backend: &Backend,
        tickets: &mut ProbeTickets,
        now: Duration,
    ) -> Result<bool, SelectError> {
        let mut wait = None;
        for (ticket, breaker) in self.held_tickets(backend, *tickets) {
            wait = wait.max(breaker.suspend(now, ticket).err());
        }
        if let Some(retry_after) = wait {
            self.give_back(backend, std::mem::take(tickets));
            return Err(SelectError::CircuitOpen { retry_after });
        }
        Ok(tickets.service.is_some() || tickets.backend.is_some())
    }

    /// Asks again: the answer to come decides, if no other request's does.
    pub(crate) fn resume(&self, backend: &Backend, tickets: &mut ProbeTickets, now: Duration) {
        let resumed = |breaker: &Option<Arc<Breaker>>, ticket: Option<u64>| {
            ticket.filter(|ticket| breaker.as_ref().is_some_and(|breaker| breaker.resume(now, *ticket)))
        };
        tickets.service = resumed(&self.breaker, tickets.service);
        tickets.backend = resumed(&backend.breaker, tickets.backend);
    }

    fn held_tickets<'a>(
        &'a self,
        backend: &'a Backend,
        tickets: ProbeTickets,
    ) -> impl Iterator<Item = (u64, &'a Breaker)> {
        let all = [(tickets.service, self.breaker.as_deref()), (tickets.backend, backend.breaker.as_deref())];
        all.into_iter().filter_map(|(ticket, breaker)| Some((ticket?, breaker?)))
    }

    /// Takes back the tickets of an attempt that came to nothing, or was never made.
    pub(crate) fn give_back(&self, backend: &Backend, tickets: ProbeTickets) {
        self.held_tickets(backend, tickets).for_each(|(ticket, breaker)| breaker.abandon(ticket));
    }

    /// Logs and shows a breaker's change of state; `backend` is empty for the service's own.
    pub(crate) fn announce(&self, backend: &str, transition: Option<Transition>) {
        let Some(Transition { to, reason }) = transition else { return };
        // Of one that has gone meanwhile, nobody wants to know.
        if !backend.is_empty() && !self.has(backend) {
            return;
        }
        self.metrics.breaker_state(backend, to.gauge());
        let of = if backend.is_empty() { String::new() } else { format!(", backend {backend}") };
        // What gets worse is for somebody to look at.
        let level = if to == BreakerState::Open { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "service {}{of}: circuit breaker is {}: {reason}", self.service, to.label());
    }

    /// True for the name of a backend that has not gone meanwhile.
    fn has(&self, backend: &str) -> bool {
        self.endpoints.load().iter().any(|known| known.name == backend)
    }

    /// Ejects a backend that has failed too often.
    fn update_ejection(&self, backend: &Backend, now: Duration, failure: Option<FailureKind>) {
        let ok = failure.is_none();
        let policy = &self.ejection_policy;
        let (mut ejected, mut all) = (0, 0);
        if !ok {
            let backends = self.endpoints.load();
            ejected = backends.iter().filter(|other| other.ejected(now)).count();
            all = backends.len();
        }
        if backend.conduct.has_come_back(now) {
            log::info!("service {}: backend {} is back after its ejection", self.service, backend.name);
        }
        if let Some(span) = backend.conduct.record(policy, now, ok, ejected, all).filter(|_| self.has(&backend.name)) {
            self.metrics.ejected(&backend.name);
            let last = failure.map_or_else(String::new, |failure| format!(", the last one: {failure}"));
            let reason = format!("{} failures in a row{last}", policy.consecutive);
            log::warn!("service {}: backend {} is ejected for {span:?}: {reason}", self.service, backend.name);
            backend.ejection.set(now, reason);
        }
    }

    /// True when it counts for a breaker, or for ejection.
    pub(crate) fn is_failure(&self, outcome: AttemptOutcome) -> bool {
        let AttemptOutcome::Answered(status) = outcome else { return true };
        let failure = FailureKind::Status(status);
        status >= 500
            || self.ejection.failures.contains(&failure)
            || self.breaker_config.as_ref().is_some_and(|config| config.failures.contains(&failure))
    }

    /// Takes in how long an answer, or a failure, took to come.
    pub(crate) fn learn_latency(&self, backend: &Backend, now: Duration, elapsed: Duration, failed: bool) {
        if self.wants_latency {
            // A backend that fails fast must not look fast.
            let floor = if failed { backend.latency.value_at(now).unwrap_or(elapsed) * 2 } else { elapsed };
            backend.latency.observe(now, elapsed.max(floor).min(Duration::from_secs(60)));
        }
        if let (Some(latencies), false) = (&self.latencies, failed) {
            latencies.observe(now, elapsed);
        }
        if let (Some(gradient), Some(concurrency)) = (&self.gradient, &self.concurrency) {
            let limit = gradient.observe(elapsed, concurrency.inside(), failed);
            if limit != concurrency.limit() {
                concurrency.resize(limit);
                self.metrics.limit(limit);
            }
        }
    }

    /// The state of its circuit breaker, when it has one.
    pub(crate) fn breaker(&self) -> Option<BreakerState> {
        self.breaker.as_ref().map(|breaker| breaker.state())
    }

    /// The limit on what is under way, when there is one.
    pub(crate) fn concurrency(&self) -> Option<&Arc<ConcurrencyLimit>> {
        self.concurrency.as_ref()
    }

    /// Counts a request for the retry budget.
    pub(crate) fn count_request(&self, now: Duration) {
        self.budget.request(now);
    }

    /// True when late answers make it ask twice.
    pub(crate) fn hedges(&self) -> bool {
        self.hedge.is_some()
    }

    /// How long to wait for an answer before another backend is asked too; `None` when none is, or when too little is
    /// known yet to say.
    pub(crate) fn hedge_after(&self, now: Duration) -> Option<Duration> {
        match self.hedge?.after {
            HedgeAfter::Time(time) => Some(time.0),
            HedgeAfter::Percentile(percent) => self.latencies.as_ref()?.value(now, f64::from(percent) / 100.0),
        }
    }

    /// Takes a retry, or a hedge, out of the budget; false when it is used up.
    pub(crate) fn may_retry(&self, now: Duration) -> bool {
        let granted = self.budget.try_retry(now);
        if !granted {
            self.metrics.budget_exhausted.inc();
        }
        granted
    }
}
