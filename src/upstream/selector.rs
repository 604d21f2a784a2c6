//! Which backend is next: breakers first, then the sticky cookie, then the balancer over those that may be used, with
//! less and less choosiness as long as nothing is left.

use std::{
    sync::{
        Arc,
        atomic::{Ordering::SeqCst, fence},
    },
    time::Duration,
};

use super::{
    backend::{Backend, UnderWay},
    balance::Balancer,
    concurrency::Busy,
    resilience::Resilience,
    settings::service::AllUnhealthy,
    sticky::Sticky,
};
use crate::{
    clock::Now,
    resilience::{Admission, warm_share},
    units::CountPermit,
    upstream::{
        backend_list::{BackendList, Endpoints},
        choice::{Choice, Chosen, ProbeTickets, SelectError},
    },
};

/// Time between two looks for other backends, while all are full.
const LOOK: Duration = Duration::from_millis(250);

/// Chooses the backend of an attempt, and takes a permit at it.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(super) sticky: Option<Sticky>,
    pub(super) slow_start: Duration,
    pub(super) all_unhealthy: AllUnhealthy,
    pub(super) balancer: Box<dyn Balancer>,
    pub(super) endpoints: Endpoints,
    pub(super) resilience: Arc<Resilience>,
}

impl Selector {
    /// The next backend for a request that has found all of them full. It waits as long as `in_flight` allows, less what
    /// it has `waited` under it; that grows.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn wait_for_room(&self, choice: Choice<'_>, waited: &mut Duration) -> Result<Chosen, SelectError> {
        let Some(limits) = &self.resilience.in_flight else { return Err(SelectError::Overloaded(Busy::QueueFull)) };
        let left = limits.wait.0.saturating_sub(*waited);
        if left.is_zero() {
            return Err(SelectError::Overloaded(Busy::WaitOver));
        }
        let Some(_waiting) =
            CountPermit::within(self.resilience.waiting.clone(), usize::try_from(limits.queue).unwrap_or(usize::MAX))
        else {
            return Err(SelectError::Overloaded(Busy::QueueFull));
        };
        let begun = tokio::time::Instant::now();
        let result = self.room(choice, begun + left).await;
        *waited += begun.elapsed();
        result
    }

    async fn room(&self, choice: Choice<'_>, until: tokio::time::Instant) -> Result<Chosen, SelectError> {
        loop {
            let mut freed = std::pin::pin!(self.resilience.freed.notified());
            // From here on a place that is given back is told to this one, and not only to those who sleep already.
            freed.as_mut().enable();
            fence(SeqCst);
            match self.choose(&Choice { now: Now::monotonic(), ..choice }) {
                Err(SelectError::Overloaded(_)) => {}
                other => return other,
            }
            // There may also be another backend, or one that is well again: nobody tells.
            let look = until.min(tokio::time::Instant::now() + LOOK);
            if tokio::time::timeout_at(look, freed).await.is_err() && look == until {
                return Err(SelectError::Overloaded(Busy::WaitOver));
            }
        }
    }

    /// The next backend for a request, with a place at it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn choose(&self, choice: &Choice<'_>) -> Result<Chosen, SelectError> {
        let mut tickets = ProbeTickets::default();
        if let Some(breaker) = &self.resilience.breaker {
            let (admission, transition) = breaker.admit(choice.now);
            self.resilience.announce("", transition);
            match admission {
                Admission::Pass => {}
                Admission::Probe(ticket) => tickets.service = Some(ticket),
                Admission::Refused { retry_after } => return Err(SelectError::CircuitOpen { retry_after }),
            }
        }
        let backends = self.endpoints.load();
        let chosen = self.pick(&backends, choice).ok_or_else(|| self.why_none(&backends, choice));
        let chosen = chosen.and_then(|backend| {
            tickets.backend = self.ask_breaker(&backend, choice.now)?;
            Ok(backend)
        });
        match chosen {
            Ok(backend) => {
                let freed = (self.resilience.per_backend() > 0).then(|| self.resilience.freed.clone());
                let place = UnderWay::at(&backend, freed);
                Ok(Chosen { backend, place, tickets })
            }
            Err(none) => {
                if let (Some(breaker), Some(ticket)) = (&self.resilience.breaker, tickets.service) {
                    breaker.abandon(ticket);
                }
                Err(none)
            }
        }
    }

    fn pick(&self, backends: &BackendList, choice: &Choice<'_>) -> Option<Arc<Backend>> {
        let (now, limit) = (choice.now, self.resilience.per_backend());
        // The place that the request is about to leave does not stand in its own way.
        let most = |backend: &Backend| limit + u32::from(limit > 0 && choice.leaves == Some(backend.address));
        let fresh = |backend: &Backend| !choice.tried.contains(&backend.address);
        if let [only] = &**backends {
            // One backend needs no algorithm, and a second attempt has nowhere else to go.
            let usable =
                only.usable(now, most(only)) || self.all_unhealthy == AllUnhealthy::Any && only.has_room(most(only));
            return usable.then(|| only.clone());
        }
        let usable = |backend: &Backend| backend.usable(now, most(backend)) && fresh(backend);
        if let Some(backend) = self
            .sticky
            .as_ref()
            .and_then(|sticky| sticky.backend(backends, choice.headers))
            .filter(|backend| usable(backend))
        {
            return Some(backend);
        }
        let warm = |backend: &Backend| usable(backend) && self.is_warm(backend, now);
        // Ejected ones are better than none; so are those that have failed already, when another attempt is due.
        let any_well = |backend: &Backend| backend.healthy() && backend.has_room(most(backend)) && fresh(backend);
        let any_willing = |backend: &Backend| any_well(backend) && !is_open(backend, now);
        let any_usable = |backend: &Backend| backend.usable(now, most(backend));
        let nobody_well = |backend: &Backend| fresh(backend) && backend.has_room(most(backend));
        self.balancer
            .choose(backends, choice, &warm)
            .or_else(|| self.balancer.choose(backends, choice, &usable))
            .or_else(
                || if choice.tried.is_empty() { None } else { self.balancer.choose(backends, choice, &any_usable) },
            )
            .or_else(|| self.balancer.choose(backends, choice, &any_willing))
            .or_else(|| self.balancer.choose(backends, choice, &any_well))
            .or_else(|| {
                let any = self.all_unhealthy == AllUnhealthy::Any && !backends.iter().any(|backend| backend.healthy());
                if any { self.balancer.choose(backends, choice, &nobody_well) } else { None }
            })
    }

    /// By chance: true for the part of requests that a backend may get while it warms up.
    fn is_warm(&self, backend: &Backend, now: Duration) -> bool {
        if self.slow_start.is_zero() {
            return true;
        }
        let Some(returned) = backend.returned() else { return true };
        let share = warm_share(now.saturating_sub(returned), self.slow_start);
        share >= 1.0 || fastrand::f64() < share
    }

    fn ask_breaker(&self, backend: &Backend, now: Duration) -> Result<Option<u64>, SelectError> {
        let Some(breaker) = &backend.breaker else { return Ok(None) };
        let (admission, transition) = breaker.admit(now);
        self.resilience.announce(&backend.name, transition);
        match admission {
            Admission::Pass => Ok(None),
            Admission::Probe(ticket) => Ok(Some(ticket)),
            Admission::Refused { retry_after } => Err(SelectError::CircuitOpen { retry_after }),
        }
    }

    fn why_none(&self, backends: &[Arc<Backend>], choice: &Choice<'_>) -> SelectError {
        let most = self.resilience.per_backend();
        if backends.is_empty() {
            return SelectError::NoneKnown;
        }
        let mut well = backends.iter().filter(|backend| backend.healthy()).peekable();
        if well.peek().is_none() {
            return SelectError::NoneHealthy;
        }
        if well.clone().all(|backend| !backend.has_room(most)) {
            return SelectError::Overloaded(Busy::QueueFull);
        }
        if well.any(|backend| is_open(backend, choice.now)) {
            return SelectError::CircuitOpen { retry_after: Duration::from_secs(1) };
        }
        // They were full a moment ago: by now a place has been given back.
        if most > 0 { SelectError::Overloaded(Busy::QueueFull) } else { SelectError::NoneHealthy }
    }
}

/// A breaker of the backend's own lets nobody through.
fn is_open(backend: &Backend, now: Duration) -> bool {
    backend.breaker.as_ref().is_some_and(|breaker| !breaker.would_admit(now))
}
