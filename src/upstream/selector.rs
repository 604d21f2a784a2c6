//! Which backend is next: breakers first, then the sticky cookie, then the balancer over those that may be used, with
//! less and less choosiness as long as nothing is left.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use http::{HeaderMap, StatusCode};

use super::{
    Service,
    backend::{Backend, Place},
    resilience::Leave,
    settings::service::AllUnhealthy,
};
use crate::{
    clock::Now,
    message::reply::Reply,
    resilience::{Admission, warm_share},
};

/// What choosing a backend may look at.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The client.
    pub client: std::net::IpAddr,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Its path.
    pub path: &'a str,
    /// Backends that this request has tried.
    pub tried: &'a [SocketAddr],
    /// The time.
    pub now: Duration,
}

/// The backend of an attempt.
#[derive(Debug)]
pub struct Chosen {
    /// It.
    pub backend: Arc<Backend>,
    /// The place at it.
    pub place: Place,
    /// Its tickets, when it probes.
    pub leave: Leave,
}

/// Why there is no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBackend {
    /// None is well.
    Unwell,
    /// Those that are well have as much under way as they may have.
    Full,
    /// A circuit breaker is open.
    Open {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

impl NoBackend {
    /// What the client is told of it: 503, and when to come back.
    pub(crate) fn reply(self, service: &str) -> Reply {
        let (detail, wait) = match self {
            Self::Unwell => ("no backend of this service is available".to_owned(), None),
            Self::Full => (format!("the service '{service}' is busy"), None),
            Self::Open { retry_after } => {
                (format!("the circuit breaker of the service '{service}' is open"), Some(retry_after))
            }
        };
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(wait.unwrap_or(Duration::from_secs(1)))
    }
}

/// A place in the queue for backends that are full, given up on drop.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicU32, most: u32) -> Option<Self> {
        let before = count.fetch_add(1, Relaxed);
        let waiting = Self(count);
        (before < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Service {
    /// The next backend for a request that has found all of them full. It waits as long as `in_flight` allows, less what
    /// it has `waited` under it; that grows.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn wait_for_room(&self, choice: Choice<'_>, waited: &mut Duration) -> Result<Chosen, NoBackend> {
        let Some(limits) = &self.guard.in_flight else { return Err(NoBackend::Full) };
        let patience = limits.wait.0.saturating_sub(*waited);
        if patience.is_zero() {
            return Err(NoBackend::Full);
        }
        let Some(_waiting) = Waiting::enter(&self.guard.waiting, limits.queue) else { return Err(NoBackend::Full) };
        let begun = tokio::time::Instant::now();
        let result = self.room(choice, begun + patience).await;
        *waited += begun.elapsed();
        result
    }

    async fn room(&self, choice: Choice<'_>, until: tokio::time::Instant) -> Result<Chosen, NoBackend> {
        loop {
            let mut freed = std::pin::pin!(self.guard.freed.notified());
            // From here on a place that is given back is told to this one, and not only to those who sleep already.
            freed.as_mut().enable();
            fence(SeqCst);
            match self.choose(&Choice { now: Now::monotonic(), ..choice }) {
                Err(NoBackend::Full) => {}
                other => return other,
            }
            if tokio::time::timeout_at(until, freed).await.is_err() {
                return Err(NoBackend::Full);
            }
        }
    }

    /// The next backend for a request, with a place at it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, choice: &Choice<'_>) -> Result<Chosen, NoBackend> {
        let mut leave = Leave::default();
        if let Some(breaker) = &self.guard.breaker {
            let (admission, transition) = breaker.admit(choice.now);
            self.announce("", transition);
            match admission {
                Admission::Pass => {}
                Admission::Probe(ticket) => leave.service = Some(ticket),
                Admission::Refused { retry_after } => return Err(NoBackend::Open { retry_after }),
            }
        }
        let backends = self.endpoints.load();
        let chosen = self.pick(&backends, choice).ok_or_else(|| self.why_none(&backends, choice));
        let chosen = chosen.and_then(|backend| {
            leave.backend = self.ask_breaker(&backend, choice.now)?;
            Ok(backend)
        });
        match chosen {
            Ok(backend) => {
                let freed = (self.guard.per_backend() > 0).then(|| self.guard.freed.clone());
                let place = Place::at(&backend, freed);
                Ok(Chosen { backend, place, leave })
            }
            Err(none) => {
                if let (Some(breaker), Some(ticket)) = (&self.guard.breaker, leave.service) {
                    breaker.abandon(ticket);
                }
                Err(none)
            }
        }
    }

    fn pick(&self, backends: &[Arc<Backend>], choice: &Choice<'_>) -> Option<Arc<Backend>> {
        let (now, most) = (choice.now, self.guard.per_backend());
        let fresh = |backend: &Backend| !choice.tried.contains(&backend.address);
        if let [only] = backends {
            // One backend needs no algorithm, and a second attempt has nowhere else to go.
            let usable = only.usable(now, most) || self.all_unhealthy == AllUnhealthy::Any && only.has_room(most);
            return usable.then(|| only.clone());
        }
        let usable = |backend: &Backend| backend.usable(now, most) && fresh(backend);
        if let Some(backend) = self.stuck_to(backends, choice.headers).filter(|backend| usable(backend)) {
            return Some(backend);
        }
        let warm = |backend: &Backend| usable(backend) && self.is_warm(backend, now);
        // Ejected ones are better than none; so are those that have failed already, when another attempt is due.
        let any_well = |backend: &Backend| backend.healthy() && backend.has_room(most) && fresh(backend);
        let any_usable = |backend: &Backend| backend.usable(now, most);
        let nobody_well = |backend: &Backend| fresh(backend) && backend.has_room(most);
        self.balancer
            .choose(backends, choice, &warm)
            .or_else(|| self.balancer.choose(backends, choice, &usable))
            .or_else(
                || if choice.tried.is_empty() { None } else { self.balancer.choose(backends, choice, &any_usable) },
            )
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

    fn ask_breaker(&self, backend: &Backend, now: Duration) -> Result<Option<u64>, NoBackend> {
        let Some(breaker) = &backend.breaker else { return Ok(None) };
        let (admission, transition) = breaker.admit(now);
        self.announce(&backend.name, transition);
        match admission {
            Admission::Pass => Ok(None),
            Admission::Probe(ticket) => Ok(Some(ticket)),
            Admission::Refused { retry_after } => Err(NoBackend::Open { retry_after }),
        }
    }

    fn why_none(&self, backends: &[Arc<Backend>], choice: &Choice<'_>) -> NoBackend {
        let most = self.guard.per_backend();
        let mut well = backends.iter().filter(|backend| backend.healthy()).peekable();
        if well.peek().is_none() {
            return NoBackend::Unwell;
        }
        if well.clone().all(|backend| !backend.has_room(most)) {
            return NoBackend::Full;
        }
        let open =
            |backend: &&Arc<Backend>| backend.breaker.as_ref().is_some_and(|breaker| !breaker.would_admit(choice.now));
        if well.any(|backend| open(&backend)) {
            return NoBackend::Open { retry_after: Duration::from_secs(1) };
        }
        // They were full a moment ago: by now a place has been given back.
        if most > 0 { NoBackend::Full } else { NoBackend::Unwell }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const BALANCES: [&str; 5] =
        ["round_robin", "random", "least_connections", "p2c_ewma", "{ consistent_hash: client_ip }"];

    /// A service with so many backends; `more` is further YAML.
    fn service(backends: usize, more: &str) -> Arc<Service> {
        let urls: Vec<String> = (1..=backends).map(|i| format!("\"http://127.0.0.{i}:80\"")).collect();
        parsed(&format!("urls: [{}]\n{more}", urls.join(", ")))
    }

    fn parsed(yaml: &str) -> Arc<Service> {
        let (node, problems) = parse(yaml, &|_| None).unwrap();
        let (config, wrong) = read::<ServiceConfig>(&node);
        let mut found = Problems::default();
        let service = Service::build("s", &config.unwrap(), &node, None, &Metrics::new(), &mut found);
        assert!(problems.is_empty() && wrong.is_empty() && found.is_empty(), "{wrong:?} {found:?}");
        service
    }

    fn choice<'a>(headers: &'a HeaderMap, tried: &'a [SocketAddr], now: Duration) -> Choice<'a> {
        Choice { client: [192, 0, 2, 1].into(), headers, path: "/", tried, now }
    }

    fn eject(service: &Service, backend: &Backend, now: Duration) {
        for _ in 0..5 {
            let trouble = Outcome::Failed(Trouble::Reset);
            service.settle(backend, Leave::default(), now, Some(Duration::ZERO), trouble);
        }
    }

    use crate::{
        telemetry::Metrics,
        units::Problems,
        upstream::{failure_kind::Trouble, resilience::Outcome, settings::service::ServiceConfig},
        yaml::{parse, read},
    };

    #[test]
    fn every_balancer_uses_every_backend_and_a_slow_one_least() {
        let (headers, now) = (HeaderMap::new(), Duration::from_secs(100));
        for balance in BALANCES.into_iter().filter(|balance| !balance.contains("hash")) {
            let service = service(3, &format!("balance: {balance}"));
            let mut counts = [0; 3];
            let all = service.backends();
            for round in 0..300u64 {
                let at = now + Duration::from_millis(round);
                let chosen = service.choose(&choice(&headers, &[], at)).unwrap();
                let place = all.iter().position(|backend| backend.address == chosen.backend.address).unwrap();
                counts[place] += 1;
                let latency = Duration::from_millis(if place == 2 { 50 } else { 5 });
                service.settle(&chosen.backend, chosen.leave, at, Some(latency), Outcome::Answered(200));
            }
            assert!(counts.iter().all(|count| *count > 0), "{balance}: {counts:?}");
            if balance == "p2c_ewma" {
                assert!(counts[2] * 5 < counts[0], "{counts:?}");
            }
        }
    }

    #[test]
    fn further_attempts_take_no_turn() {
        let (headers, now) = (HeaderMap::new(), Duration::from_secs(100));
        let service = service(2, "");
        let bad = service.backends()[0].address;
        let begun_at_bad = (0..10).filter(|_| {
            let first = service.choose(&choice(&headers, &[], now)).unwrap().backend.address;
            if first == bad {
                assert_ne!(service.choose(&choice(&headers, &[bad], now)).unwrap().backend.address, bad);
            }
            first == bad
        });
        assert_eq!(begun_at_bad.count(), 5);
    }

    #[test]
    fn weights_hold_when_a_backend_is_passed_over() {
        let (headers, now) = (HeaderMap::new(), Duration::from_secs(100));
        for balance in ["round_robin", "random"] {
            let urls = "[{ url: 'http://127.0.0.1:80', weight: 8 }, { url: 'http://127.0.0.2:80', weight: 8 }, 'http://127.0.0.3:80']";
            let service = parsed(&format!("urls: {urls}\nbalance: {balance}"));
            let all = service.backends();
            all[0].set_healthy(false, now);
            let small = (0..900)
                .filter(|_| service.choose(&choice(&headers, &[], now)).unwrap().backend.address == all[2].address);
            let small = small.count();
            assert!((60..150).contains(&small), "{balance}: {small} of 900 for a ninth of the weight");
        }
    }

    #[test]
    fn a_key_finds_a_backend_beyond_a_heavy_one_that_is_down_and_always_the_same() {
        let now = Duration::from_secs(100);
        let urls = "[{ url: 'http://127.0.0.1:80', weight: 1000 }, { url: 'http://127.0.0.2:80', weight: 3 }, 'http://127.0.0.3:80']";
        let service = parsed(&format!("urls: {urls}\nbalance: {{ consistent_hash: path }}"));
        let all = service.backends();
        all[0].set_healthy(false, now);
        let headers = HeaderMap::new();
        let of = |key: usize| {
            let path = format!("/{key}");
            service.choose(&Choice { path: &path, ..choice(&headers, &[], now) }).unwrap().backend.address
        };
        let heavier = (0..400).filter(|key| of(*key) == all[1].address).count();
        assert!((240..360).contains(&heavier), "{heavier} of 400, by weight");
        assert!((0..50).all(|key| of(key) == of(key)));
    }

    #[test]
    fn a_new_backend_warms_up() {
        let (headers, now) = (HeaderMap::new(), Duration::from_secs(100));
        let service = service(2, "slow_start: 10s");
        let all = service.backends();
        all[1].set_healthy(false, now);
        all[1].set_healthy(true, now);
        let share = |at| {
            let chosen = (0..400).filter(|_| {
                let chosen = service.choose(&choice(&headers, &[], at)).unwrap();
                chosen.backend.address == all[1].address
            });
            chosen.count()
        };
        assert!(share(now) < 80, "a tenth of its half");
        assert!(share(now + Duration::from_secs(10)) > 150, "its half");
    }

    /// Many come and go at two places; nobody may sleep while one of them is free.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_sleeps_beside_a_free_place() {
        let service = service(1, "in_flight: { per_backend: 2, queue: 1000, wait: 20s }");
        let begun = std::time::Instant::now();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move {
                    let (headers, mut waited) = (HeaderMap::new(), Duration::ZERO);
                    for _ in 0..2000 {
                        let choice = choice(&headers, &[], Now::monotonic());
                        let chosen = match service.choose(&choice) {
                            Err(NoBackend::Full) => service.wait_for_room(choice, &mut waited).await,
                            chosen => chosen,
                        };
                        tokio::task::yield_now().await;
                        drop(chosen.unwrap());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(service.in_flight(), 0);
    }

    proptest! {
        /// Whoever is chosen may be used if anybody may, and is a fresh one if a fresh one may.
        #[test]
        fn never_worse_than_it_must_be(
            balance in 0..BALANCES.len(),
            states in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..7),
        ) {
            let (headers, now) = (HeaderMap::new(), Duration::from_secs(100));
            let service = service(states.len(), &format!("balance: {}\noutlier_ejection: {{ share: 100% }}", BALANCES[balance]));
            let all = service.backends();
            let mut tried = Vec::new();
            for (backend, (healthy, ejected, seen)) in all.iter().zip(&states) {
                if *ejected {
                    eject(&service, backend, now);
                }
                if *seen {
                    tried.push(backend.address);
                }
                backend.healthy.store(*healthy, Relaxed);
            }
            let usable = |backend: &Backend| backend.usable(now, 0);
            let fresh = |backend: &Backend| !tried.contains(&backend.address);
            match service.choose(&choice(&headers, &tried, now)) {
                Ok(chosen) => {
                    let chosen = &chosen.backend;
                    prop_assert!(chosen.healthy(), "an unhealthy one");
                    prop_assert!(usable(chosen) || !all.iter().any(|backend| usable(backend) && fresh(backend)));
                    let better = all.len() > 1 && all.iter().any(|backend| usable(backend) && fresh(backend));
                    prop_assert!(fresh(chosen) || !better, "one that has failed already");
                    prop_assert_eq!(chosen.in_flight(), 1);
                }
                Err(none) => {
                    prop_assert_eq!(none, NoBackend::Unwell);
                    prop_assert!(!all.iter().any(|backend| usable(backend)));
                }
            }
            prop_assert_eq!(service.in_flight(), 0, "the place is given back");
        }
    }
}
