//! From a service's URLs to backends: literal addresses at once, names and files again and again. A name that cannot
//! be resolved keeps the addresses it had, and a file that cannot be read its backends.

use std::{
    collections::HashSet,
    future::Future as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::{
    backend::{Backend, LATENCY_MEMORY},
    balance::Balancer,
    discovery::Discovery,
    peers::Peers,
    sticky::Key,
    url::BackendUrl,
    watch::{LOOK, Watched},
};
use crate::{
    clock::Now,
    resilience::{Breaker, BreakerPolicy, Ewma},
    tls::client::Credentials,
    units::Problems,
    upstream::{
        ServiceMetrics,
        backend::Endpoints,
        settings::{resilience::BreakerConfig, service::ServiceConfig},
    },
    yaml::Node,
};

/// The shortest time between two looks at a name, whatever its time to live.
const SOON: Duration = Duration::from_secs(1);

/// The backends of a service, and where they come from.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The service's name, for the log.
    service: Arc<str>,
    metrics: ServiceMetrics,
    /// The URLs in the YAML.
    fixed: Vec<BackendUrl>,
    /// Those, and the ones in the file.
    targets: ArcSwap<Vec<BackendUrl>>,
    discovery: Discovery,
    peers: Peers,
    /// What cookies call backends is made with it.
    tokens: Option<Arc<Key>>,
    /// Each backend has a breaker of its own.
    breaker: Option<BreakerPolicy>,
    /// The backends of the configuration before: those that are still there keep what is known of them.
    known: Arc<Vec<Arc<Backend>>>,
    /// There are health checks; without them nothing would find a backend well again.
    checked: bool,
    /// Checks that must succeed before an unhealthy backend is healthy.
    checks_missing: usize,
    /// Its configuration serves: what it finds is shown.
    shown: AtomicBool,
    pub(super) endpoints: Endpoints,
}

/// What a pool under construction is given.
pub(crate) struct PoolParts<'a> {
    /// Where the service's other parts look for its backends.
    pub(crate) endpoints: Endpoints,
    /// What cookies call backends is made with it.
    pub(crate) tokens: Option<Arc<Key>>,
    pub(crate) metrics: ServiceMetrics,
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
        let PoolParts { endpoints, tokens, metrics, before } = parts;
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
        let credentials = Credentials::load(&config.tls, node.at("tls"), problems);
        Self {
            service: service.into(),
            metrics,
            targets: ArcSwap::from_pointee(fixed.iter().cloned().chain(listed).collect()),
            fixed,
            discovery,
            peers: Peers { tls: config.tls.clone(), credentials, timeouts: config.timeouts },
            tokens,
            breaker: config.circuit_breaker.as_ref().filter(|breaker| breaker.per_backend).map(BreakerConfig::policy),
            known: before.map_or_else(Arc::default, |before| before.endpoints.load_full()),
            checked: config.health_check.is_some(),
            checks_missing: config.health_check.as_ref().map_or(0, |check| check.healthy_after),
            shown: AtomicBool::new(false),
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

    /// Addresses of the URLs whose host is one.
    fn literal_addresses(&self) -> Vec<(BackendUrl, SocketAddr)> {
        let known = self.targets.load();
        known.iter().filter_map(|url| Some((url.clone(), SocketAddr::new(url.address()?, url.port)))).collect()
    }

    /// Resolves the names among the URLs, and takes over what was found. Answers when that ends to be true.
    pub(crate) async fn resolve(&self, balancer: &dyn Balancer) -> Instant {
        let mut until = Instant::now() + self.discovery.config.every.0;
        let mut found = self.literal_addresses();
        let targets = self.targets.load_full();
        for url in targets.iter().filter(|url| url.address().is_none()) {
            match self.discovery.lookup(url).await {
                Ok(lookup) => {
                    until = until.min(lookup.until.unwrap_or(until));
                    found.extend(lookup.found);
                }
                Err(e) => {
                    log::warn!("service {}: cannot resolve '{}': {e}", self.service, url.host);
                    let kept = self.endpoints.load();
                    let of = kept.iter().filter(|backend| backend.source == *url);
                    found.extend(of.map(|backend| (backend.url.clone(), backend.address)));
                }
            }
        }
        self.adopt(found, &targets);
        if self.shown.load(Relaxed) {
            self.show();
        }
        if let Err(e) = balancer.update().await {
            log::error!("service {}: {e}", self.service);
        }
        until
    }

    /// Makes these addresses the backends. Those that stay keep their health, their breaker and their counts.
    fn adopt(&self, mut found: Vec<(BackendUrl, SocketAddr)>, targets: &[BackendUrl]) {
        let mut seen = HashSet::new();
        found.retain(|(_, address)| seen.insert(*address));
        let before = self.endpoints.load_full();
        let fresh = |url: BackendUrl, address| {
            let backend = self.backend(url, address, targets);
            let known = self.known.iter().any(|known| known.address == address);
            let first = before.is_empty() && self.known.is_empty();
            if !known && !first {
                backend.has_returned(Now::monotonic());
            }
            backend
        };
        let keep = |(url, address): (BackendUrl, SocketAddr)| {
            let same = |old: &&Arc<Backend>| old.address == address && old.url == url;
            before.iter().find(same).cloned().unwrap_or_else(|| fresh(url, address))
        };
        let after: Vec<Arc<Backend>> = found.into_iter().map(keep).collect();
        self.endpoints.store(Arc::new(after));
    }

    /// Shows its backends, and no others.
    pub(crate) fn show(&self) {
        self.shown.store(true, Relaxed);
        let backends = self.endpoints.load();
        self.metrics.keep_backends(&|name| name.is_empty() || backends.iter().any(|backend| backend.name == name));
        for backend in &**backends {
            self.metrics.backend_up(&backend.name, backend.healthy());
            if let Some(breaker) = &backend.breaker {
                self.metrics.breaker_state(&backend.name, breaker.state().gauge());
            }
        }
    }

    /// Takes over the addresses that need no resolver, without waiting for anything.
    pub(crate) fn adopt_literals(&self, balancer: &dyn Balancer) {
        let targets = self.targets.load();
        let mut found = self.literal_addresses();
        // What names stood for a moment ago is better than nothing until they have been looked up.
        let named =
            self.known.iter().filter(|known| known.source.address().is_none() && targets.contains(&known.source));
        found.extend(named.map(|known| (known.url.clone(), known.address)));
        self.adopt(found, &targets);
        let update = std::pin::pin!(balancer.update());
        // Our discovery is ready at once, so the update is: one poll completes it (Pingora's own `try_from_iter` relies
        // on the same).
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(e)) = update.poll(&mut context) {
            log::error!("service {}: {e}", self.service);
        }
    }

    fn backend(&self, url: BackendUrl, address: SocketAddr, targets: &[BackendUrl]) -> Arc<Backend> {
        let name = if url.address().is_some() { url.authority() } else { format!("{} ({address})", url.authority()) };
        // The URL that led here: itself, or the name of the service whose records did.
        let source = targets.iter().find(|target| **target == url);
        let source = source.or_else(|| targets.iter().find(|target| target.address().is_none()));
        let known = self.known.iter().find(|known| known.address == address && known.url == url);
        let unhealthy = self.checked && known.is_some_and(|known| !known.healthy());
        let breaker = self.breaker.map(|policy| {
            let known = known.and_then(|known| known.breaker.clone()).filter(|known| *known.policy() == policy);
            known.unwrap_or_else(|| Breaker::new(policy).into())
        });
        Arc::new(Backend {
            token: self.tokens.as_ref().map(|key| key.token(&name)),
            name,
            address,
            source: source.unwrap_or(&url).clone(),
            weight: url.weight,
            peer: self.peers.peer(address, &url),
            url,
            healthy: AtomicBool::new(!unhealthy),
            missing_checks: AtomicUsize::new(if unhealthy { self.checks_missing } else { 0 }),
            in_flight: known.map_or_else(Arc::default, |known| known.in_flight.clone()),
            conduct: known.map_or_else(Arc::default, |known| known.conduct.clone()),
            breaker,
            latency: known.map_or_else(|| Ewma::new(LATENCY_MEMORY).into(), |known| known.latency.clone()),
            returned: AtomicU64::new(known.map_or(0, |known| known.returned.load(Relaxed))),
        })
    }

    /// Looks at names and files again and again; returns at once when there are none.
    pub(crate) async fn watch(&self, balancer: &dyn Balancer) {
        let mut file = self.discovery.config.file.as_ref().map(Watched::new);
        let mut due = Instant::now() + self.discovery.config.every.0;
        while file.is_some() || self.targets.load().iter().any(|url| url.address().is_none()) {
            let next = if file.is_some() { due.min(Instant::now() + LOOK) } else { due };
            tokio::time::sleep_until(next).await;
            let text = file.as_mut().and_then(|file| file.changed(Instant::now()));
            let changed = text.is_some_and(|text| self.reread(text));
            if changed || Instant::now() >= due {
                due = self.resolve(balancer).await.max(Instant::now() + SOON);
            }
        }
    }

    /// Takes over the backends that the file lists; false when nothing changes.
    fn reread(&self, text: Result<String, String>) -> bool {
        let keeps = |message: &str| log::error!("service {}: {message}; the backends stay as they were", self.service);
        match text.map_err(|message| vec![message]).and_then(|text| self.discovery.parse(&text)) {
            Ok(urls) => {
                let all: Vec<BackendUrl> = self.fixed.iter().cloned().chain(urls.iter().cloned()).collect();
                if all == **self.targets.load() {
                    return false;
                }
                // Rather one who is about to write it than one who wants to be answered 503.
                if urls.is_empty() {
                    let file = self.discovery.config.file.as_deref().unwrap_or_default();
                    keeps(&format!("'{file}' lists no backend"));
                    return false;
                }
                log::info!("service {}: {} backends in the file", self.service, urls.len());
                self.targets.store(Arc::new(all));
                true
            }
            Err(messages) => {
                for message in &messages {
                    keeps(message);
                }
                false
            }
        }
    }
}
