//! The cache of a process, and what a route has of it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, Guard};

use super::{held::Held, key::Keys, memory::Memory, policy::Policy};

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
    held: Held,
}

/// What an answer takes that is on its way: all of them together, and those that are kept no longer and that clients are still
/// given, take at most as much as the store.
#[derive(Debug)]
pub struct Room {
    arriving: Arc<AtomicU64>,
    own: u64,
    memory: Arc<Memory>,
    held: Held,
}

impl Room {
    /// Takes so many bytes more; false when there is no room for them.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.own += bytes;
        self.arriving.fetch_add(bytes, Relaxed);
        self.has(0)
    }

    /// True when there is room for so many bytes more.
    pub fn has(&self, bytes: u64) -> bool {
        let arriving = self.arriving.load(Relaxed).saturating_add(bytes);
        let most = self.memory.budget();
        // What the store has is asked for when it makes a difference: it is a look at each of its parts.
        arriving.saturating_add(self.held.bytes()) <= most
            || arriving.saturating_add(beyond(&self.held, &self.memory)) <= most
    }
}

/// Bytes of bodies that are not in the store, and that somebody has still.
fn beyond(held: &Held, memory: &Memory) -> u64 {
    held.bytes().saturating_sub(memory.stats().bytes)
}

impl Drop for Room {
    fn drop(&mut self) {
        self.arriving.fetch_sub(self.own, Relaxed);
    }
}

impl Default for Cache {
    fn default() -> Self {
        let memory = ArcSwap::from_pointee(Memory::new(USUAL_BUDGET, LARGEST));
        Self { keys: Keys::default(), memory, arriving: Arc::default(), held: Held::default() }
    }
}

impl Cache {
    /// The store.
    pub fn memory(&self) -> Guard<Arc<Memory>> {
        self.memory.load()
    }

    /// Room for an answer that is on its way.
    pub fn room(&self) -> Room {
        Room { arriving: self.arriving.clone(), own: 0, memory: self.memory.load_full(), held: self.held.clone() }
    }

    /// Where bodies are counted.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Bytes of bodies that are kept no longer, and that clients are still given.
    pub fn held_beyond(&self) -> u64 {
        beyond(&self.held, &self.memory.load())
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
        let slow = cache.held().piece(vec![0; 800 << 10]);
        assert!(!cache.room().grow(1) && cache.held_beyond() > 800 << 10, "a client has it, and nothing is kept");
        drop(slow);
        assert!(cache.room().grow(1));
    }
}
