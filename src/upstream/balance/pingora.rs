//! The backends of a service as Pingora's load balancer sees them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora_load_balancing::{
    Backend as LbBackend, Backends, LoadBalancer,
    discovery::ServiceDiscovery,
    selection::{BackendIter, BackendSelection},
};

use crate::upstream::{
    backend::Backend,
    backend_list::{BackendList, Endpoints},
};

/// Hands Pingora the backends that `pool.rs` found.
struct Known(Endpoints);

#[async_trait]
impl ServiceDiscovery for Known {
    async fn discover(&self) -> pingora::Result<(BTreeSet<LbBackend>, HashMap<u64, bool>)> {
        Ok((self.0.load().iter().map(|backend| for_pingora(backend)).collect(), HashMap::new()))
    }
}

fn for_pingora(backend: &Backend) -> LbBackend {
    LbBackend { addr: L4Address::Inet(backend.address), weight: backend.weight, ext: http::Extensions::new() }
}

/// The backends that are known now and later, for Pingora.
pub(crate) fn backends(endpoints: Endpoints) -> Backends {
    Backends::new(Box::new(Known(endpoints)))
}

/// One of Pingora's selections that know weights, of which a request takes one step. Pingora's own balancer asks beside that which
/// of its backends are healthy, and remembers which it has seen: a hash of each and an allocation, and health is ours to know.
pub(super) struct Turns<S> {
    backends: Backends,
    selection: ArcSwap<S>,
}

impl<S: BackendSelection> Turns<S>
where
    S::Iter: BackendIter,
{
    pub(super) fn new(backends: Backends) -> Self {
        let selection = ArcSwap::from_pointee(S::build(&BTreeSet::new()));
        Self { backends, selection }
    }

    /// The backend whose turn it is, if `accept` takes it.
    pub(super) fn next(&self, all: &BackendList, accept: &dyn Fn(&Backend) -> bool) -> Option<Arc<Backend>> {
        let mut turn = self.selection.load().iter(b"");
        let backend = all.at(turn.next()?.addr.as_inet()?)?;
        accept(backend).then(|| backend.clone())
    }
}

#[async_trait]
impl<S> Bookkeeping for Turns<S>
where
    S: BackendSelection + Send + Sync + 'static,
{
    async fn update(&self) -> pingora::Result<()> {
        self.backends.update(|backends| self.selection.store(Arc::new(S::build(&backends)))).await
    }
}

/// The backend that Pingora's selection comes to for `key` within so many `steps`, among those that `accept` takes: it knows
/// nothing of ejection, breakers or what a request has tried.
pub(super) fn select<S>(
    balancer: &LoadBalancer<S>,
    key: &[u8],
    steps: usize,
    all: &BackendList,
    accept: &dyn Fn(&Backend) -> bool,
) -> Option<Arc<Backend>>
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let find = |wanted: &LbBackend| all.at(wanted.addr.as_inet()?);
    let takes = |candidate: &LbBackend, _: bool| find(candidate).is_some_and(|backend| accept(backend));
    balancer.select_with(key, steps, takes).and_then(|chosen| find(&chosen).cloned())
}

/// Pingora's bookkeeping of a service's backends, whatever chooses among them.
#[async_trait]
pub(crate) trait Bookkeeping: Send + Sync {
    /// Takes over the backends as they are known now.
    async fn update(&self) -> pingora::Result<()>;
}

#[async_trait]
impl<S> Bookkeeping for LoadBalancer<S>
where
    S: BackendSelection + Send + Sync + 'static,
    S::Iter: BackendIter,
{
    async fn update(&self) -> pingora::Result<()> {
        LoadBalancer::update(self).await
    }
}
