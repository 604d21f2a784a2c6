//! The cache of a process, and what a route has of it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::{key::Keys, memory::Memory, policy::Policy};

/// Room for answers, unless the configuration says otherwise: 64 MiB.
pub const USUAL_BUDGET: u64 = 64 << 20;

/// The largest answer that room is divided by.
const LARGEST: u64 = 8 << 20;

/// The cache of a process: it outlives every configuration.
#[derive(Debug)]
pub struct Cache {
    /// Makes keys.
    pub keys: Keys,
    memory: ArcSwap<Memory>,
}

impl Default for Cache {
    fn default() -> Self {
        let memory = ArcSwap::from_pointee(Memory::new(USUAL_BUDGET, LARGEST));
        Self { keys: Keys::default(), memory }
    }
}

impl Cache {
    /// The store.
    pub fn memory(&self) -> Guard<Arc<Memory>> {
        self.memory.load()
    }

    /// Gives it so many bytes; with another number than before, it begins empty.
    pub fn set_budget(&self, bytes: u64) {
        let before = self.memory.load();
        if before.stats().budget != bytes {
            self.memory.store(Arc::new(Memory::in_place_of(&before, bytes, LARGEST)));
        }
    }
}

/// `cache:` of a route, checked.
#[derive(Debug)]
pub struct CachePlan {
    /// Its rules.
    pub policy: Policy,
    /// Differs between routes whose answers may differ: part of every key.
    pub route: u64,
}
