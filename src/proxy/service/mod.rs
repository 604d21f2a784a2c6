//! A service: its backends, which of them are well, and which one is next.

mod balance;
mod config;
mod health;
mod resolve;
mod tls;
mod url;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderMap;
use pingora::{prelude::HttpPeer, protocols::ALPN};

use self::{balance::Balancer, tls::Credentials};
pub use self::{
    config::{AllUnhealthy, Balance, HashBy, HealthCheckConfig, ServiceConfig, Timeouts, UpstreamTls},
    url::{BackendScheme, BackendUrl},
};
use crate::{
    telemetry::{Metrics, ServiceMetrics},
    units::{Problems, tree::Node},
};

/// One address that answers for a service.
#[derive(Debug)]
pub struct Backend {
    /// `host:port` as in the YAML, for logs and metrics; with the address when a name has several.
    pub name: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// The place in `urls`.
    target: usize,
    weight: usize,
    /// A prepared peer: cloned per attempt, so that nothing is parsed or resolved then.
    peer: HttpPeer,
    healthy: AtomicBool,
    in_flight: Arc<AtomicUsize>,
}

impl Backend {
    /// True when health checks say so, or when there are none.
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Requests under way at this backend.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A peer to connect to; `remaining` caps the waiting when the whole request has a time limit. For an `upgrade`
    /// nothing limits reads but the silence of both sides.
    pub fn peer(&self, remaining: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        if upgrade {
            // Only HTTP/1 can be upgraded, and a time limit on reads would stay on for the tunnel.
            peer.options.alpn = ALPN::H1;
            peer.options.read_timeout = None;
            peer.options.write_timeout = None;
        }
        if let Some(limit) = remaining {
            let cap = |timeout: &mut Option<Duration>| *timeout = Some(timeout.map_or(limit, |own| own.min(limit)));
            cap(&mut peer.options.total_connection_timeout);
            cap(&mut peer.options.connection_timeout);
            cap(&mut peer.options.read_timeout);
            cap(&mut peer.options.write_timeout);
        }
        peer
    }
}

/// A place at a backend, given back on drop.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

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
}

/// A service that is ready for traffic.
#[derive(Debug)]
pub struct Service {
    /// Its name in the YAML.
    pub name: Arc<str>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// Further backends to try when one cannot be reached.
    pub connect_retries: u32,
    /// Readiness needs a healthy backend of this service.
    pub required: bool,
    /// Counters.
    pub metrics: ServiceMetrics,
    all_unhealthy: AllUnhealthy,
    targets: Vec<BackendUrl>,
    tls: UpstreamTls,
    credentials: Credentials,
    endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
    balancer: Balancer,
    check: Option<HealthCheckConfig>,
}

impl Service {
    /// Builds a service; what is wrong with it goes to `problems`. Opens no socket and resolves no name.
    pub fn build(
        name: &str,
        config: &ServiceConfig,
        node: &Node,
        metrics: &Metrics,
        problems: &mut Problems,
    ) -> Arc<Self> {
        validate(config, node, problems);
        let endpoints = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let metrics = metrics.service(name);
        let balancer = Balancer::new(&config.balance, endpoints.clone(), config.health_check.as_ref(), name, &metrics);
        let service = Arc::new(Self {
            name: name.into(),
            timeouts: config.timeouts,
            connect_retries: config.connect_retries,
            required: config.required,
            metrics,
            all_unhealthy: config.when_all_unhealthy,
            targets: config.urls.iter().map(|url| url.value.clone()).collect(),
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

    /// Requests under way at all its backends.
    pub fn in_flight(&self) -> usize {
        self.endpoints.load().iter().map(|backend| backend.in_flight()).sum()
    }

    /// True when at least one backend may be used.
    pub fn available(&self) -> bool {
        self.endpoints.load().iter().any(|backend| backend.healthy())
    }

    /// The next backend for a request, with a place at it; `None` when there is none left to try.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<(Arc<Backend>, Place)> {
        let endpoints = self.endpoints.load();
        let backend = match endpoints.as_slice() {
            // One backend needs no algorithm.
            [only] => (only.healthy() && !choice.tried.contains(&only.address)).then(|| only.clone()),
            all => self.balancer.choose(all, choice),
        };
        let backend = backend.or_else(|| {
            let any = self.all_unhealthy == AllUnhealthy::Any && !endpoints.iter().any(|backend| backend.healthy());
            let fresh = |backend: &&Arc<Backend>| !choice.tried.contains(&backend.address);
            any.then(|| endpoints.iter().find(fresh).cloned()).flatten()
        })?;
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(backend.in_flight.clone());
        Some((backend, place))
    }

    /// True when a backend is left that this request has not tried and that may be used.
    pub fn has_another(&self, tried: &[SocketAddr]) -> bool {
        let any = self.all_unhealthy == AllUnhealthy::Any;
        let usable = |backend: &Arc<Backend>| (any || backend.healthy()) && !tried.contains(&backend.address);
        self.endpoints.load().iter().any(usable)
    }
}

fn validate(config: &ServiceConfig, node: &Node, problems: &mut Problems) {
    if config.urls.is_empty()
        && node
            .get("urls")
            .is_some_and(|urls| matches!(urls.value(), crate::units::tree::Value::Seq(items) if items.is_empty()))
    {
        problems.push(node.at("urls").place().problem("a service needs at least one backend"));
    }
    for (i, url) in config.urls.iter().enumerate() {
        let same = |other: &&crate::units::tree::At<BackendUrl>| other.host == url.host && other.port == url.port;
        if let Some(first) = config.urls[..i].iter().find(same) {
            let message = format!(
                "'{}' is listed twice (first as {}): give one a weight instead",
                url.authority(),
                first.place.path
            );
            problems.push(url.place.problem(message));
        }
    }
    let Some(check) = &config.health_check else { return };
    let node = node.at("health_check");
    let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
    if let Some(path) = check.path.as_ref().filter(|path| !path.starts_with('/') || path.parse::<http::Uri>().is_err())
    {
        wrong("path", format!("'{path}' is not a path: it begins with a slash"));
    }
    for (key, value) in [("healthy_after", check.healthy_after), ("unhealthy_after", check.unhealthy_after)] {
        if value == 0 {
            wrong(key, "0 checks prove nothing: at least 1".to_owned());
        }
    }
    for (key, span) in [("every", check.every), ("timeout", check.timeout)] {
        if span.0 < Duration::from_millis(10) {
            wrong(key, format!("{span} is too short: at least 10ms"));
        }
    }
    if check.expect.is_empty() || check.expect.iter().any(|status| !(100..=599).contains(status)) {
        wrong("expect", "expected statuses from 100 to 599, at least one".to_owned());
    }
}
