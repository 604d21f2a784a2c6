//! A service: its backends, which of them are well, and which one is next.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    backend::Backend,
    balance,
    health::{HealthChecks, Probe},
    pool::{Pool, PoolParts},
    pool_watch,
    resilience::Resilience,
    selector::Selector,
    settings::{
        resilience::RetryConfig,
        service::{HealthCheckConfig, ServiceConfig, Timeouts},
        validate,
    },
    signer::{Signer, Unsigned},
    sticky::Sticky,
};
use crate::{
    clock::Now,
    message::reason::Reason,
    units::Problems,
    upstream::{
        ServiceMetrics, UpstreamMetrics,
        backend_list::{BackendList, Endpoints},
        choice::{Choice, Chosen, SelectError},
    },
    yaml::Node,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

/// A service that is ready for traffic.
pub struct Service {
    /// Its name in the YAML.
    pub name: Arc<str>,
    /// Its counters, for whoever makes attempts.
    pub metrics: ServiceMetrics,
    /// Its backends, and where they come from.
    pub(crate) pool: Pool,
    /// What it learns from attempts, and does about it.
    pub(crate) resilience: Arc<Resilience>,
    selector: Selector,
    signer: Option<Signer>,
    checks: Option<HealthChecks>,
    /// The settings that it was built of.
    config: ServiceConfig,
    ca_file: Option<String>,
}

// What is made of the settings is shown, not the settings: a key without effect would look as if it had one.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("timeouts", self.timeouts())
            .field("retry", self.retry())
            .field("required", &self.required())
            .field("balance", &self.config.balance)
            .field("check", &self.config.health_check)
            .field("pool", &self.pool)
            .field("resilience", &self.resilience)
            .field("selector", &self.selector)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

/// What a service under construction finds around it.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whom to trust when the service does not say.
    pub ca_file: Option<&'a str>,
    /// Groups that may read files with secrets: those of the user that the process becomes.
    pub readers: &'a [u32],
    /// The families that its counters belong to.
    pub metrics: &'a UpstreamMetrics,
    /// The service of the same name in the configuration that serves.
    pub before: Option<&'a Arc<Service>>,
}

impl Service {
    /// Builds a service; what is wrong with it goes to `problems`. Opens no socket, resolves no name, shows nothing.
    /// One that would be no different from the one before is that one.
    pub fn build(
        name: &str,
        config: &ServiceConfig,
        node: &Node,
        around: Surroundings<'_>,
        problems: &mut Problems,
    ) -> Arc<Self> {
        validate::validate(config, node, problems);
        let before = around.before;
        let (endpoints, ca_file) = (Endpoints::default(), around.ca_file.map(str::to_owned));
        let metrics = around.metrics.service(name);
        let probe = |check: &HealthCheckConfig| {
            Probe::new(check.clone(), name, endpoints.clone(), metrics.clone(), ca_file.clone())
        };
        let checks = config.health_check.as_ref().map(|check| HealthChecks::new(probe(check)));
        let balancer = config.balance.build(balance::pingora::backends(endpoints.clone()));
        let known = before.and_then(|before| before.selector.sticky.as_ref());
        let build = |sticky| Sticky::build(sticky, around.readers, node.at("sticky"), problems);
        let sticky = config.sticky.as_ref().and_then(build);
        let sticky = sticky.map(|sticky| known.filter(|known| known.same(&sticky)).cloned().unwrap_or(sticky));
        let sign = config.sign.as_ref();
        let signer = sign.and_then(|sign| Signer::build(sign, around.readers, node.at("sign"), problems));
        let learned = before.map(|before| &*before.resilience);
        let resilience = Resilience::new(name, config, endpoints.clone(), balancer.wants_latency(), &metrics, learned);
        let parts = PoolParts {
            endpoints: endpoints.clone(),
            tokens: sticky.as_ref().map(Sticky::key),
            metrics: metrics.clone(),
            readers: around.readers,
            before: before.map(|before| &before.pool),
        };
        let pool = Pool::build(name, config, node, parts, problems);
        if let Some(before) = before
            && before.config == *config
            && before.ca_file == ca_file
            && before.pool.same_files(&pool)
            && Signer::are_same(before.signer.as_ref(), signer.as_ref())
            && known.map(Sticky::key_bytes) == sticky.as_ref().map(Sticky::key_bytes)
        {
            return before.clone();
        }
        let resilience = Arc::new(resilience);
        let selector = Selector {
            sticky,
            slow_start: config.slow_start.map_or(Duration::ZERO, |span| span.0),
            all_unhealthy: config.when_all_unhealthy,
            balancer,
            endpoints,
            resilience: resilience.clone(),
        };
        pool.adopt_known(&*selector.balancer);
        let config = config.clone();
        Arc::new(Self { name: name.into(), metrics, pool, resilience, selector, signer, checks, config, ca_file })
    }

    /// Shows its state in the metrics, once the configuration that it belongs to serves.
    pub fn show(&self) {
        self.metrics.show();
        self.resilience.show();
        self.pool.show();
    }

    /// Time limits towards its backends.
    pub fn timeouts(&self) -> &Timeouts {
        &self.config.timeouts
    }

    /// Which failures are tried again, and how often, unless the route says otherwise.
    pub fn retry(&self) -> &RetryConfig {
        &self.config.retry
    }

    /// Readiness needs a healthy backend of this service.
    pub fn required(&self) -> bool {
        self.config.required
    }

    /// Its backends as they are known now.
    pub fn backends(&self) -> Arc<BackendList> {
        self.pool.endpoints.load_full()
    }

    /// The names of backends whose last look-up failed, why, and for how long that has been so.
    pub fn failing_names(&self) -> Vec<(String, String, Duration)> {
        self.pool.failing_names()
    }

    /// Requests under way at all its backends.
    pub fn in_flight(&self) -> usize {
        self.pool.endpoints.load().iter().map(|backend| backend.in_flight()).sum()
    }

    /// True when at least one backend may be used.
    pub fn available(&self) -> bool {
        self.pool.endpoints.load().iter().any(|backend| backend.healthy())
    }

    /// The next backend for a request, with a place at it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose(&self, choice: &Choice<'_>) -> Result<Chosen, SelectError> {
        self.selector.choose(choice)
    }

    /// The next backend for a request that has found all of them full; `waited` grows by how long that took.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn wait_for_room(&self, choice: Choice<'_>, waited: &mut Duration) -> Result<Chosen, SelectError> {
        self.selector.wait_for_room(choice, waited).await
    }

    /// The cookie for a client that `backend` has answered, when there is to be one.
    pub fn set_cookie(&self, backend: &Backend, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
        self.selector.sticky.as_ref()?.set_cookie(backend, headers, secure)
    }

    /// Signs a head that goes to `backend`, if the service's are signed; nothing may change it afterwards.
    ///
    /// # Errors
    /// It cannot be signed.
    pub(crate) fn sign(&self, head: &mut RequestHeader, backend: &Backend) -> Result<(), Unsigned> {
        self.signer.as_ref().map_or(Ok(()), |signer| signer.sign(head, backend.is_secure()))
    }

    /// True when its requests are signed.
    pub fn is_signed(&self) -> bool {
        self.signer.is_some()
    }

    /// True when its requests are signed, and the signature says nothing of this field.
    pub fn leaves_unsigned(&self, name: &HeaderName) -> bool {
        self.signer.as_ref().is_some_and(|signer| !signer.covers(name.as_str()))
    }

    /// An attempt to connect to a backend has ended, without a `reason` if it came about: a change is logged.
    pub fn note_connecting(&self, backend: &Backend, reason: Option<Reason>, error: &dyn fmt::Display) {
        let millis = u64::try_from(Now::monotonic().as_millis()).unwrap_or(u64::MAX);
        if !backend.trouble.changes(reason, millis) {
            return;
        }
        let (service, name) = (&self.name, &backend.name);
        match reason {
            Some(reason) => log::warn!("service {service}: backend {name}: {}: {error}", reason.label()),
            None => log::info!("service {service}: backend {name} can be connected to again"),
        }
    }

    /// True when its names have been looked up and its backends been checked for the first time; with `success`, when all
    /// names have been found, too.
    pub fn is_settled(&self, success: bool) -> bool {
        self.pool.is_settled(success)
    }

    /// True when at least one backend is known, well or not.
    pub fn has_backends(&self) -> bool {
        !self.pool.endpoints.load().is_empty()
    }

    /// Runs checks and name look-ups until it is dropped.
    pub async fn run_background(&self) {
        let checks = async {
            if let Some(checks) = &self.checks {
                checks.run(&self.pool.changed).await;
            }
        };
        tokio::join!(pool_watch::watch(&self.pool, &*self.selector.balancer), checks);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::{clock::Now, upstream::choice::ProbeTickets};

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
        let around = Surroundings {
            ca_file: None,
            readers: &[],
            metrics: &UpstreamMetrics::new(&prometheus::Registry::new()),
            before: None,
        };
        let service = Service::build("s", &config.unwrap(), &node, around, &mut found);
        assert!(problems.is_empty() && wrong.is_empty() && found.is_empty(), "{wrong:?} {found:?}");
        service
    }

    fn choice<'a>(headers: &'a HeaderMap, tried: &'a [SocketAddr], now: Duration) -> Choice<'a> {
        Choice { client: [192, 0, 2, 1].into(), headers, path: "/", tried, leaves: None, now }
    }

    fn eject(service: &Service, backend: &Backend, now: Duration) {
        for _ in 0..5 {
            let failure = AttemptOutcome::Failed(FailureKind::Reset);
            service.resilience.record_outcome(backend, ProbeTickets::default(), now, Some(Duration::ZERO), failure);
        }
    }

    use crate::{
        units::Problems,
        upstream::{failure_kind::FailureKind, resilience::AttemptOutcome, settings::service::ServiceConfig},
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
                service.resilience.record_outcome(
                    &chosen.backend,
                    chosen.tickets,
                    at,
                    Some(latency),
                    AttemptOutcome::Answered(200),
                );
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
                            Err(SelectError::Overloaded(_)) => service.wait_for_room(choice, &mut waited).await,
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
                backend.checks.set_healthy(*healthy);
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
                    prop_assert_eq!(none, SelectError::NoneHealthy);
                    prop_assert!(!all.iter().any(|backend| usable(backend)));
                }
            }
            prop_assert_eq!(service.in_flight(), 0, "the place is given back");
        }
    }
}
