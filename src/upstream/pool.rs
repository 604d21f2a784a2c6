//! From a service's URLs to backends: literal addresses at once, names and files again and again. A file that cannot be
//! read keeps its backends.

use std::{
    collections::HashSet,
    future::Future as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, time::Instant};

use super::{
    backend::{Backend, LATENCY_MEMORY},
    balance::Balancer,
    discovery::Discovery,
    known_names::Found,
    names::Names,
    peers::Peers,
    sticky::Key,
    url::BackendUrl,
};
use crate::{
    clock::Now,
    resilience::{Breaker, BreakerPolicy, Ewma},
    tls::client::Credentials,
    units::Problems,
    upstream::{
        ServiceMetrics,
        backend_list::{BackendList, Endpoints},
        settings::{resilience::BreakerConfig, service::ServiceConfig},
    },
    yaml::Node,
};

/// The backends of a service, and where they come from.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The service's name, for the log.
    pub(super) service: Arc<str>,
    metrics: ServiceMetrics,
    /// The URLs in the YAML, without those in the file of `discovery.file`.
    pub(super) fixed: Vec<BackendUrl>,
    /// Those, and the ones in the file.
    pub(super) targets: ArcSwap<Vec<BackendUrl>>,
    pub(super) discovery: Discovery,
    pub(super) names: Names,
    peers: Peers,
    /// What cookies call backends is made with it.
    tokens: Option<Arc<Key>>,
    /// Each backend has a breaker of its own.
    breaker: Option<BreakerPolicy>,
    /// The backends of the configuration before: those that are still there keep what is known of them.
    known: Arc<BackendList>,
    /// There are health checks; without them nothing would find a backend well again.
    checked: bool,
    /// Told when there may be other backends than before.
    pub(crate) changed: Notify,
    /// Its configuration serves: what it finds is shown.
    shown: AtomicBool,
    /// More is known than has been taken over.
    pub(super) stale: AtomicBool,
    pub(super) endpoints: Endpoints,
}

/// What a pool under construction is given.
pub(crate) struct PoolParts<'a> {
    /// Where the service's other parts look for its backends.
    pub(crate) endpoints: Endpoints,
    /// What cookies call backends is made with it.
    pub(crate) tokens: Option<Arc<Key>>,
    pub(crate) metrics: ServiceMetrics,
    /// Groups that may read keys.
    pub(crate) readers: &'a [u32],
    /// The service's own in the configuration before.
    pub(crate) before: Option<&'a Pool>,
}

impl Pool {
    /// The backends by the settings; what is wrong with them goes to `problems`.
    pub(crate) fn build(
        service: &str,
        config: &ServiceConfig,
        node: &Node,
        parts: PoolParts<'_>,
        problems: &mut Problems,
    ) -> Self {
        let PoolParts { endpoints, tokens, metrics, readers, before } = parts;
        let fixed: Vec<BackendUrl> = config.urls.iter().map(|url| url.value.clone()).collect();
        let discovery = Discovery::new(config.discovery.clone());
        let listed = discovery.read_file(&fixed).map_err(|messages| {
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
        let credentials = Credentials::load(&config.tls, readers, node.at("tls"), problems);
        let targets: Vec<BackendUrl> = fixed.iter().cloned().chain(listed).collect();
        let names = Names::new(config.discovery.dns, config.discovery.every.0);
        names.follow(&targets, before.map(|before| &before.names));
        Self {
            service: service.into(),
            metrics,
            targets: ArcSwap::from_pointee(targets),
            fixed,
            discovery,
            names,
            peers: Peers { tls: config.tls.clone(), credentials, timeouts: config.timeouts },
            tokens,
            breaker: config.circuit_breaker.as_ref().filter(|breaker| breaker.per_backend).map(BreakerConfig::policy),
            known: before.map_or_else(Arc::default, |before| before.endpoints.load_full()),
            checked: config.health_check.is_some(),
            changed: Notify::new(),
            shown: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            endpoints,
        }
    }

    /// True when it was built of the same files: certificates and keys may change where no setting does.
    pub(crate) fn same_files(&self, other: &Self) -> bool {
        self.peers.credentials.stamp == other.peers.credentials.stamp
    }

    /// How many backends its URLs stand for: nobody knows that of a name before it is resolved.
    pub(crate) fn expected(&self) -> usize {
        const OF_A_NAME: usize = 8;
        self.targets.load().iter().map(|url| if url.address().is_some() { 1 } else { OF_A_NAME }).sum()
    }

    /// What its URLs stand for, as far as that is known.
    fn found(&self) -> Vec<Found> {
        let of = |url: &BackendUrl| match url.address() {
            Some(ip) => {
                vec![Found { source: url.clone(), url: url.clone(), address: SocketAddr::new(ip, url.port) }]
            }
            None => self.names.of(url),
        };
        self.targets.load().iter().flat_map(of).collect()
    }

    /// True when all names have been looked up, and all backends been checked, that there is to be looked up and checked;
    /// with `success`, when all names have been found, too.
    pub(crate) fn is_settled(&self, success: bool) -> bool {
        let checked = || self.endpoints.load().iter().all(|backend| backend.checks.any());
        self.names.all_looked_up(success) && !self.stale.load(Relaxed) && (!self.checked || checked())
    }

    /// Takes over what its URLs stand for now.
    pub(super) async fn take_over(&self, balancer: &dyn Balancer) {
        self.adopt(self.found());
        self.changed.notify_one();
        if self.shown.load(Relaxed) {
            self.show();
        }
        if let Some(books) = balancer.books()
            && let Err(e) = books.update().await
        {
            log::error!("service {}: {e}", self.service);
        }
    }

    /// Makes these the backends. Those that stay keep their health, their breaker and their counts.
    fn adopt(&self, mut found: Vec<Found>) {
        let mut seen = HashSet::new();
        found.retain(|found| seen.insert(found.address));
        let before = self.endpoints.load_full();
        let first = before.is_empty() && self.known.is_empty();
        let keep = |found: Found| {
            let here = before.at(&found.address);
            if let Some(same) = here.filter(|old| old.url == found.url && old.source == found.source) {
                return same.clone();
            }
            let known = here.into_iter().chain(self.known.at(&found.address));
            let known = known.into_iter().find(|known| known.url.is_same_place(&found.url));
            let backend = self.backend(found, known);
            if known.is_none() && !first {
                backend.has_returned(Now::monotonic());
            }
            Arc::new(backend)
        };
        let after = BackendList::new(found.into_iter().map(keep).collect());
        self.endpoints.store(Arc::new(after));
    }

    /// Shows its backends, and no others.
    pub(crate) fn show(&self) {
        self.shown.store(true, Relaxed);
        let backends = self.endpoints.load();
        let unresolved = self.unresolved();
        let listed = backends.iter().map(|backend| &*backend.name).chain(unresolved.iter().map(String::as_str));
        let listed: HashSet<&str> = listed.collect();
        self.metrics.keep_backends(&|name| name.is_empty() || listed.contains(name));
        // A name that stands for nobody is a backend that cannot be used.
        for name in &unresolved {
            self.metrics.backend_up(name, false);
        }
        for backend in backends.iter() {
            self.metrics.backend_up(&backend.name, backend.healthy());
            if let Some(breaker) = &backend.breaker {
                self.metrics.breaker_state(&backend.name, breaker.state().gauge());
            }
        }
    }

    /// The URLs whose names stand for no address.
    fn unresolved(&self) -> Vec<String> {
        let is_unknown = |url: &&BackendUrl| url.address().is_none() && self.names.of(url).is_empty();
        self.targets.load().iter().filter(is_unknown).map(BackendUrl::authority).collect()
    }

    /// The names that could not be resolved when they were looked up last, why, and for how long that has been so.
    pub(crate) fn failing_names(&self) -> Vec<(String, String, Duration)> {
        self.names.failing(Instant::now())
    }

    /// Takes over what is known without asking anybody.
    pub(crate) fn adopt_known(&self, balancer: &dyn Balancer) {
        self.adopt(self.found());
        let Some(books) = balancer.books() else { return };
        let update = std::pin::pin!(books.update());
        // Our discovery is ready at once, so the update is: one poll completes it (Pingora's own `try_from_iter` relies
        // on the same).
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(e)) = update.poll(&mut context) {
            log::error!("service {}: {e}", self.service);
        }
    }

    /// A backend that was not there before, save as `known`: with another weight, or in the configuration before.
    fn backend(&self, found: Found, known: Option<&Arc<Backend>>) -> Backend {
        let Found { source, url, address } = found;
        let name = if url.address().is_some() { url.authority() } else { format!("{} ({address})", url.authority()) };
        let breaker = self.breaker.map(|policy| {
            let known = known.and_then(|known| known.breaker.clone()).filter(|known| *known.policy() == policy);
            known.unwrap_or_else(|| Breaker::new(policy).into())
        });
        // Without checks nothing would find it well again.
        let checks = known.filter(|_| self.checked).map(|known| known.checks.clone()).unwrap_or_default();
        Backend {
            token: self.tokens.as_ref().map(|key| key.token(&name)),
            name,
            address,
            source,
            weight: url.weight,
            peer: self.peers.peer(address, &url),
            url,
            checks,
            http2_alone: AtomicBool::new(known.is_some_and(|known| known.http2_alone.load(Relaxed))),
            trouble: known.map_or_else(Arc::default, |known| known.trouble.clone()),
            in_flight: known.map_or_else(Arc::default, |known| known.in_flight.clone()),
            conduct: known.map_or_else(Arc::default, |known| known.conduct.clone()),
            ejection: known.map_or_else(Arc::default, |known| known.ejection.clone()),
            breaker,
            latency: known.map_or_else(|| Ewma::new(LATENCY_MEMORY).into(), |known| known.latency.clone()),
            returned: AtomicU64::new(known.map_or(0, |known| known.returned.load(Relaxed))),
        }
    }
}
