//! The cache of a process, and what a route has of it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

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
    /// Bytes of answers that are on their way into the store.
    arriving: Arc<AtomicU64>,
}

/// What an answer takes that is on its way: all of them together take at most as much as the store.
#[derive(Debug)]
pub struct Room {
    arriving: Arc<AtomicU64>,
    own: u64,
    budget: u64,
}

impl Room {
    /// Takes so many bytes more; false when there is no room for them.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.own += bytes;
        self.arriving.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.budget
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.arriving.fetch_sub(self.own, Relaxed);
    }
}

impl Default for Cache {
    fn default() -> Self {
        let memory = ArcSwap::from_pointee(Memory::new(USUAL_BUDGET, LARGEST));
        Self { keys: Keys::default(), memory, arriving: Arc::default() }
    }
}

impl Cache {
    /// The store.
    pub fn memory(&self) -> Guard<Arc<Memory>> {
        self.memory.load()
    }

    /// Room for an answer that is on its way.
    pub fn room(&self) -> Room {
        Room { arriving: self.arriving.clone(), own: 0, budget: self.memory.load().budget() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_on_their_way_share_their_room() {
        let cache = Cache::default();
        cache.set_budget(1 << 20);
        let (mut one, mut other) = (cache.room(), cache.room());
        assert!(one.grow(1 << 19) && other.grow(1 << 19));
        assert!(!one.grow(1), "there is none left");
        drop(other);
        assert!(one.grow(1 << 18), "one has gone");
    }
}
