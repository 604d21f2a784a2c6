//! The backends of a service, in the order in which they were found, and where each address is among them: a search through many
//! would look at each, for each request.

use std::{collections::HashMap, fmt, net::SocketAddr, ops::Deref, sync::Arc};

use ahash::RandomState;
use arc_swap::ArcSwap;

use super::backend::Backend;

/// The backends of a service as they are known now.
pub(crate) type Endpoints = Arc<ArcSwap<BackendList>>;

/// The backends of a service.
#[derive(Default)]
pub struct BackendList {
    all: Box<[Arc<Backend>]>,
    places: HashMap<SocketAddr, usize, RandomState>,
}

impl BackendList {
    /// These, of which no two have the same address.
    pub(crate) fn new(all: Vec<Arc<Backend>>) -> Self {
        let places = all.iter().enumerate().map(|(place, backend)| (backend.address, place)).collect();
        Self { all: all.into(), places }
    }

    /// The one with this address.
    pub(crate) fn at(&self, address: &SocketAddr) -> Option<&Arc<Backend>> {
        self.all.get(*self.places.get(address)?)
    }
}

impl fmt::Debug for BackendList {
    /// In their order alone: the places follow from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

impl Deref for BackendList {
    type Target = [Arc<Backend>];

    fn deref(&self) -> &[Arc<Backend>] {
        &self.all
    }
}
