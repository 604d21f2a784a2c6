//! The cache of a process, and what a route has of it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::{
    coded::CodedBodies,
    disk::Disk,
    entry::Entry,
    held::Held,
    key::{Key, Keys},
    memory::{Memory, Ticket},
    overflow::{Overflow, Sink},
    policy::Policy,
    purge::{Manner, Purge},
    refusal::Refusal,
    taken_back::TakenBack,
    vary::Selection,
};
use crate::clock::Now;

/// Room for answers, unless the configuration says otherwise: 64 MiB.
pub const USUAL_BUDGET: u64 = 64 << 20;

/// This part of the room is for coded bodies: what is coded becomes a fourth to a tenth of what it was.
const CODED: u64 = 8;

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
    coded: ArcSwap<CodedBodies>,
    /// Where their bytes are counted: apart from those of answers, which are kept whoever reads coded ones.
    coded_held: Held,
    disk: ArcSwapOption<Disk>,
    overflow: Arc<Overflow>,
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
        let overflow: Arc<Overflow> = Arc::default();
        let memory = ArcSwap::from_pointee(Memory::before(overflow.clone(), USUAL_BUDGET, LARGEST));
        let (arriving, held, disk) = (Arc::default(), Held::default(), ArcSwapOption::empty());
        let coded_held = Held::default();
        let coded = ArcSwap::from_pointee(CodedBodies::new(0, coded_held.clone()));
        Self { keys: Keys::default(), memory, arriving, held, coded, coded_held, disk, overflow }
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
        beyond(&self.held, &self.memory.load()).saturating_add(self.coded.load().held_beyond())
    }

    /// Bodies in the codings that clients take.
    pub fn coded(&self) -> Guard<Arc<CodedBodies>> {
        self.coded.load()
    }

    /// What is known of answers on disk, if they are kept there.
    pub fn disk(&self) -> Guard<Option<Arc<Disk>>> {
        self.disk.load()
    }

    /// From now on, what memory pushes out goes to this sink, and is known there when it is on disk.
    pub fn set_disk(&self, disk: Option<(Arc<Disk>, Box<Sink>)>) {
        let (disk, sink) = disk.unzip();
        self.disk.store(disk);
        self.overflow.set(sink);
    }

    /// Keeps an answer, in the place of what is older.
    ///
    /// # Errors
    /// As for [`Memory::insert`].
    pub fn insert(&self, key: &Key, entry: Entry, ticket: Ticket) -> Result<Arc<Entry>, Refusal> {
        let selection = self.newest(key, &entry)?.clone();
        self.change(|disk| disk.forget(key, &selection), |memory| memory.insert(key, entry, ticket))
    }

    /// Keeps what the process before has kept, unless there is something newer. Its file, if there is one, comes afterwards.
    ///
    /// # Errors
    /// As for [`Memory::insert`].
    pub fn take_over(&self, key: &Key, entry: Entry, ticket: Ticket) -> Result<Arc<Entry>, Refusal> {
        self.newest(key, &entry)?;
        self.memory().insert(key, entry, ticket)
    }

    /// Keeps what a 304 or a HEAD has made of an entry.
    ///
    /// # Errors
    /// As for [`Memory::refresh`].
    pub fn refresh(&self, key: &Key, old: &Arc<Entry>, new: Entry, ticket: Ticket) -> Result<Arc<Entry>, Refusal> {
        let selection = self.newest(key, &new)?.clone();
        self.change(|disk| disk.forget(key, &selection), |memory| memory.refresh(key, old, new, ticket))
    }

    /// The requests that an entry is for, if no file has a newer one for them: memory may have pushed that out meanwhile.
    fn newest<'e>(&self, key: &Key, entry: &'e Entry) -> Result<&'e Selection, Refusal> {
        let is_newest = self.disk().as_ref().is_none_or(|disk| !disk.has_newer(key, &entry.selection, entry.stored));
        is_newest.then_some(&entry.selection).ok_or(Refusal::Purged)
    }

    /// Takes out what a backend has taken back.
    pub fn take_back(&self, key: &Key, what: &TakenBack<'_>) {
        let known = self.memory().get(key);
        let forget = |disk: &Disk| {
            let about = known.iter().flat_map(|known| known.entries()).filter(|entry| what.is_about(entry));
            about.for_each(|entry| disk.forget(key, &entry.selection));
            disk.take_back(key, what);
        };
        self.change(forget, |memory| memory.take_back(key, what));
    }

    /// Changes what is in memory, and lets the disk forget: before, so that nothing is read there that memory does not know of yet, and
    /// once more afterwards, for memory may have pushed it out just then.
    fn change<R>(&self, forget: impl Fn(&Disk), change: impl FnOnce(&Memory) -> R) -> R {
        let disk = self.disk();
        let forget = || disk.as_ref().into_iter().for_each(|disk| forget(disk));
        forget();
        let changed = change(&self.memory());
        forget();
        changed
    }

    /// Purges everywhere in this process; says how many answers.
    pub fn purge(&self, purge: &Purge, manner: Manner, now: Now) -> usize {
        let disk = self.disk.load_full();
        // Until memory has been looked through, nothing that it pushes out finds a place there.
        let memory = self.memory();
        let both = |key: &Key, selection: &Selection| {
            memory.get(key).is_some_and(|known| known.entries().iter().any(|entry| entry.selection == *selection))
        };
        let purging = disk.as_ref().map(|disk| disk.purge(purge, &both));
        purging.as_ref().map_or(0, |purging| purging.count) + memory.purge(purge, manner, now)
    }

    /// Gives it so many bytes, of which some are for coded bodies if it `codes`; with another number than before, it begins empty.
    pub fn set_budget(&self, bytes: u64, codes: bool) {
        let coded = if codes { bytes / CODED } else { 0 };
        if self.coded.load().budget() != coded {
            self.coded.store(Arc::new(CodedBodies::new(coded, self.coded_held.clone())));
        }
        let (before, bytes) = (self.memory.load(), bytes - coded);
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
    use super::{super::body::Body, *};

    #[test]
    fn answers_on_their_way_share_their_room() {
        let cache = Cache::default();
        cache.set_budget(1 << 20, false);
        let (mut one, mut other) = (cache.room(), cache.room());
        assert!(one.grow(1 << 19) && other.grow(1 << 19));
        assert!(!one.grow(1), "there is none left");
        drop(other);
        assert!(one.grow(1 << 18), "one has gone");
        let slow = Body::copied(&[vec![0; 800 << 10]], cache.held());
        assert!(!cache.room().grow(1) && cache.held_beyond() >= 800 << 10, "a client has it, and nothing is kept");
        drop(slow);
        assert!(cache.room().grow(1));
    }
}
