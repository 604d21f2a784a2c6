//! From a service's URLs to addresses: literal addresses at once, names by the system's resolver, again every 30 s.
//!
//! Of a name that has both, the IPv4 addresses are used. A name that cannot be resolved keeps the addresses it had.

use std::{
    collections::HashSet,
    future::Future as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{Backend, Service, backend::LATENCY_MEMORY, sticky};
use crate::{
    filter::Now,
    resilience::{Ewma, Health},
};

/// Time between two looks at names.
const AGAIN: Duration = Duration::from_secs(30);

impl Service {
    /// Addresses of the URLs whose host is one.
    fn literal_addresses(&self) -> Vec<(usize, SocketAddr)> {
        let known = self.targets.iter().enumerate();
        known.filter_map(|(i, url)| Some((i, SocketAddr::new(url.address()?, url.port)))).collect()
    }

    /// Resolves the names among the URLs, and takes over what was found.
    pub async fn resolve(&self) {
        let mut found = self.literal_addresses();
        for (i, url) in self.targets.iter().enumerate().filter(|(_, url)| url.address().is_none()) {
            match tokio::net::lookup_host((url.host.as_str(), url.port)).await {
                Ok(addresses) => {
                    let all: Vec<SocketAddr> = addresses.collect();
                    let four = all.iter().any(SocketAddr::is_ipv4);
                    found.extend(
                        all.into_iter().filter(|address| address.is_ipv4() == four).map(|address| (i, address)),
                    );
                }
                Err(e) => {
                    log::warn!("service {}: cannot resolve '{}': {e}", self.name, url.host);
                    let kept = self.endpoints.load();
                    found.extend(kept.iter().filter(|backend| backend.target == i).map(|backend| (i, backend.address)));
                }
            }
        }
        self.adopt(found);
        if let Err(e) = self.balancer.update().await {
            log::error!("service {}: {e}", self.name);
        }
    }

    /// Makes these addresses the backends. Those that stay keep their health and their counts.
    fn adopt(&self, mut found: Vec<(usize, SocketAddr)>) {
        let mut seen = HashSet::new();
        found.retain(|(_, address)| seen.insert(*address));
        let before = self.endpoints.load_full();
        let fresh = |target, address| {
            let backend = self.backend(target, address);
            if !before.is_empty() {
                backend.has_returned(Now::monotonic());
            }
            if backend.breaker.is_some() {
                self.metrics.breaker_state(&backend.name, 0);
            }
            backend
        };
        let after: Vec<Arc<Backend>> = found
            .iter()
            .map(|&(target, address)| {
                let same = |old: &&Arc<Backend>| old.address == address && old.target == target;
                before.iter().find(same).cloned().unwrap_or_else(|| fresh(target, address))
            })
            .collect();
        for gone in before.iter().filter(|old| !after.iter().any(|new| new.name == old.name)) {
            self.metrics.backend_gone(&gone.name);
        }
        for backend in &after {
            self.metrics.backend_up(&backend.name, backend.healthy());
        }
        self.endpoints.store(Arc::new(after));
    }

    /// Takes over the addresses that need no resolver, without waiting for anything.
    pub(super) fn adopt_literals(&self) {
        self.adopt(self.literal_addresses());
        let update = std::pin::pin!(self.balancer.update());
        // Our discovery is ready at once, so the update is: one poll completes it (Pingora's own `try_from_iter` relies
        // on the same).
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(e)) = update.poll(&mut context) {
            log::error!("service {}: {e}", self.name);
        }
    }

    fn backend(&self, target: usize, address: SocketAddr) -> Arc<Backend> {
        let url = &self.targets[target];
        let name = if url.address().is_some() { url.authority() } else { format!("{} ({address})", url.authority()) };
        Arc::new(Backend {
            token: sticky::token(&name),
            name,
            address,
            target,
            weight: url.weight,
            peer: self.peer(address, url),
            healthy: AtomicBool::new(true),
            in_flight: Arc::new(AtomicUsize::new(0)),
            conduct: Health::new(),
            breaker: self.guard.backend_breaker(),
            latency: Ewma::new(LATENCY_MEMORY),
            returned: AtomicU64::new(0),
        })
    }

    /// Looks at names again and again; returns at once when there are none.
    pub(super) async fn watch_names(&self) {
        while self.targets.iter().any(|url| url.address().is_none()) {
            tokio::time::sleep(AGAIN).await;
            self.resolve().await;
        }
    }
}
