//! A service: its backends, which of them are well, and which one is next.

pub(crate) mod backend;
pub(crate) mod balance;
pub(crate) mod concurrency;
pub(crate) mod discovery;
pub(crate) mod exchange;
pub(crate) mod failure_kind;
pub(crate) mod health;
pub(crate) mod peers;
pub(crate) mod resilience;
pub(crate) mod resolve;
pub(crate) mod response;
pub(crate) mod selector;
pub(crate) mod settings;
pub(crate) mod sticky;
pub(crate) mod tunnel;
pub(crate) mod url;
pub(crate) mod watch;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use self::{balance::Balancer, discovery::Discovery, health::Probe, resilience::Guard};
use crate::{
    resilience::BreakerState,
    telemetry::{Metrics, ServiceMetrics},
    tls::client::{Credentials, UpstreamTls},
    units::Problems,
    yaml::Node,
};

pub(crate) use self::{
    backend::{Backend, Place},
    concurrency::{Gate, Pass},
    failure_kind::Trouble,
    resilience::{Leave, Outcome},
    selector::{Choice, Chosen, NoBackend},
    settings::{
        resilience::RetryConfig,
        service::{AllUnhealthy, HealthCheckConfig, HedgeAfter, HedgeConfig, ServiceConfig, StickyConfig, Timeouts},
    },
    tunnel::Tunnels,
    url::BackendUrl,
};

/// A service that is ready for traffic.
#[derive(Debug)]
pub struct Service {
    /// Its name in the YAML.
    pub name: Arc<str>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: RetryConfig,
    /// Readiness needs a healthy backend of this service.
    pub required: bool,
    /// Counters.
    pub metrics: ServiceMetrics,
    hedge: Option<HedgeConfig>,
    sticky: Option<StickyConfig>,
    sticky_key: Option<sticky::Key>,
    slow_start: Duration,
    all_unhealthy: AllUnhealthy,
    /// The URLs in the YAML.
    fixed: Vec<BackendUrl>,
    /// Those, and the ones in the file.
    targets: ArcSwap<Vec<BackendUrl>>,
    discovery: Discovery,
    tls: UpstreamTls,
    credentials: Credentials,
    endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
    balancer: Balancer,
    guard: Guard,
    check: Option<HealthCheckConfig>,
}

impl Service {
    /// Builds a service; what is wrong with it goes to `problems`. Opens no socket and resolves no name. `ca_file` says whom
    /// to trust when the service does not.
    pub fn build(
        name: &str,
        config: &ServiceConfig,
        node: &Node,
        ca_file: Option<&str>,
        metrics: &Metrics,
        problems: &mut Problems,
    ) -> Arc<Self> {
        settings::validate::validate(config, node, problems);
        let endpoints = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let metrics = metrics.service(name);
        let probe = |check: &HealthCheckConfig| {
            Probe::new(check.clone(), name, endpoints.clone(), metrics.clone(), ca_file.map(str::to_owned))
        };
        let probe = config.health_check.as_ref().map(probe);
        let balancer = Balancer::new(&config.balance, endpoints.clone(), probe);
        let fixed: Vec<BackendUrl> = config.urls.iter().map(|url| url.value.clone()).collect();
        let discovery = Discovery::new(config.discovery.clone());
        let listed = discovery.read_file().map_err(|messages| {
            for message in messages {
                problems.push(node.at("discovery.file").place().problem(message));
            }
        });
        let listed = listed.ok();
        // Later, a file without backends changes nothing; now there is nothing that it could leave as it is.
        if let Some(file) =
            config.discovery.file.as_ref().filter(|_| fixed.is_empty() && listed.as_deref() == Some(&[]))
        {
            problems.push(node.at("discovery.file").place().problem(format!("'{file}' lists no backend")));
        }
        let listed = listed.unwrap_or_default();
        let service = Arc::new(Self {
            name: name.into(),
            timeouts: config.timeouts,
            retry: config.retry.clone(),
            required: config.required,
            guard: Guard::new(config, &metrics),
            metrics,
            hedge: config.hedge,
            sticky: config.sticky.clone(),
            sticky_key: config.sticky.as_ref().and_then(|sticky| sticky::Key::of(sticky, node.at("sticky"), problems)),
            slow_start: config.slow_start.map_or(Duration::ZERO, |span| span.0),
            all_unhealthy: config.when_all_unhealthy,
            targets: ArcSwap::from_pointee(fixed.iter().cloned().chain(listed).collect()),
            fixed,
            discovery,
            credentials: Credentials::load(&config.tls, node.at("tls"), problems),
            tls: config.tls.clone(),
            endpoints,
            balancer,
            check: config.health_check.clone(),
        });
        service.adopt_literals();
        service
    }

    /// Its backends as they are known now.
    pub fn backends(&self) -> Arc<Vec<Arc<Backend>>> {
        self.endpoints.load_full()
    }

    /// How many backends its URLs stand for: nobody knows that of a name before it is resolved.
    pub fn expected_backends(&self) -> usize {
        const OF_A_NAME: usize = 8;
        self.targets.load().iter().map(|url| if url.address().is_some() { 1 } else { OF_A_NAME }).sum()
    }

    /// Requests under way at all its backends.
    pub fn in_flight(&self) -> usize {
        self.endpoints.load().iter().map(|backend| backend.in_flight()).sum()
    }

    /// True when at least one backend may be used.
    pub fn available(&self) -> bool {
        self.endpoints.load().iter().any(|backend| backend.healthy())
    }

    /// The state of its circuit breaker, when it has one.
    pub fn breaker(&self) -> Option<BreakerState> {
        self.guard.breaker.as_ref().map(crate::resilience::Breaker::state)
    }

    /// The limit on what is under way, when there is one.
    pub fn gate(&self) -> Option<&Arc<Gate>> {
        self.guard.gate.as_ref()
    }

    /// Counts a request for the retry budget.
    pub fn count_request(&self, now: Duration) {
        self.guard.budget.request(now);
    }

    /// True when late answers make it ask twice.
    pub fn hedges(&self) -> bool {
        self.hedge.is_some()
    }

    /// How long to wait for an answer before another backend is asked too; `None` when none is, or when too little is
    /// known yet to say.
    pub fn hedge_after(&self, now: Duration) -> Option<Duration> {
        match self.hedge?.after {
            HedgeAfter::Time(time) => Some(time.0),
            HedgeAfter::Percentile(percent) => self.guard.latencies.as_ref()?.value(now, f64::from(percent) / 100.0),
        }
    }

    /// Takes a retry, or a hedge, out of the budget; false when it is used up.
    pub fn may_retry(&self, now: Duration) -> bool {
        let granted = self.guard.budget.try_retry(now);
        if !granted {
            self.metrics.budget_exhausted.inc();
        }
        granted
    }
}
