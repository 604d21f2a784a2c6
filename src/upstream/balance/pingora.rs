//! The backends of a service as Pingora's load balancer sees them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora_load_balancing::{Backend as LbBackend, Backends, discovery::ServiceDiscovery};

use crate::upstream::{
    backend::{Backend, Endpoints},
    balance::Accept,
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

/// The backend that Pingora means.
pub(super) fn find<'a>(all: &'a [Arc<Backend>], wanted: &LbBackend) -> Option<&'a Arc<Backend>> {
    all.iter().find(|backend| wanted.addr.as_inet() == Some(&backend.address))
}

/// `accept` in Pingora's terms.
pub(super) fn accepted(all: &[Arc<Backend>], accept: &Accept<'_>, candidate: &LbBackend) -> bool {
    find(all, candidate).is_some_and(|backend| accept(backend))
}
