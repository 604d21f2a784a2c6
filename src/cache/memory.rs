//! The store in memory: bounded in bytes, and what is bounded is all that an answer takes: key, fields, body, and its places
//! in map and index.
//!
//! A hit takes a shared lock of one shard for a look-up and copies nothing. All changes go one at a time through one lock,
//! which is held for microseconds: they cost a request to a backend anyway.

mod size;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::HeaderMap;
use parking_lot::Mutex;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use self::size::Size;
use super::{
    entry::Entry,
    hashed::Hashed,
    index::{Cursor, Index},
    key::Key,
    overflow::Overflow,
    purge::{Manner, Purge},
    purged::Purged,
    refusal::Refusal,
    tags,
    taken_back::TakenBack,
    variants::Variants,
};
use crate::clock::Now;

/// So many keys are purged under one hold of the lock.
const BATCH: usize = 256;

/// When an answer was asked for, as far as purges are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(u64);

/// What is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that are taken, all counted.
    pub bytes: u64,
    /// The most bytes.
    pub budget: u64,
    /// Keys under which something is stored.
    pub entries: usize,
    /// Keys that were pushed out since the start, because there was no room for all.
    pub evictions: u64,
}

/// The store.
pub struct Memory {
    cache: Cache<u128, Arc<Variants>, Weight, Hashed, Collect>,
    changes: Mutex<Changes>,
    /// How many purges there have been.
    purges: AtomicU64,
    evictions: AtomicU64,
    budget: u64,
    /// The most that may be stored under one key.
    most: u64,
    /// Where that goes which is pushed out.
    overflow: Arc<Overflow>,
}

#[derive(Debug, Default)]
struct Changes {
    index: Index,
    purged: Purged,
}

impl Changes {
    fn has_purged(&self, key: &Key, tags: &[Arc<[u8]>], ticket: Ticket) -> bool {
        self.purged.was(ticket.0, key.url(), tags) || self.purged.was_key(ticket.0, key.hash())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({:?})", self.stats())
    }
}

impl Memory {
    /// A store of at most `budget` bytes, for answers of which the largest has `largest` bytes.
    pub fn new(budget: u64, largest: u64) -> Self {
        Self::before(Arc::default(), budget, largest)
    }

    /// The same, before a disk that takes what has no room.
    pub(super) fn before(overflow: Arc<Overflow>, budget: u64, largest: u64) -> Self {
        let Size { room, shards, usual } = Size::of(budget, largest);
        let mut options = OptionsBuilder::new();
        options.shards(shards).estimated_items_capacity(usual).weight_capacity(room);
        let cache = match options.build() {
            Ok(options) => Cache::with_options(options, Weight, Hashed, Collect),
            // It only fails when one of the two is not set.
            Err(_) => Cache::with(usual, room, Weight, Hashed, Collect),
        };
        let most = cache.shard_capacity() / 2;
        let (purges, evictions) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { cache, changes: Mutex::default(), purges, evictions, budget, most, overflow }
    }

    /// An empty store in the place of `before`: no answer is kept that was asked for while that one was in use, because
    /// what has been purged there since is not known here.
    pub fn in_place_of(before: &Self, budget: u64, largest: u64) -> Self {
        let new = Self::before(before.overflow.clone(), budget, largest);
        // Whoever purges there still, having found it just before, does not come so far.
        let begins = before.purges.load(Relaxed).saturating_add(1 << 32);
        new.changes.lock().purged.begin_at(begins);
        new.purges.store(begins, Relaxed);
        new.evictions.store(before.evictions.load(Relaxed), Relaxed);
        new
    }

    /// What is stored under a key; `Variants::select` tells which of it is for the request.
    pub fn get(&self, key: &Key) -> Option<Arc<Variants>> {
        self.cache.get(&key.hash()).filter(|found| found.key == *key)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.cache.iter().map(|(_, variants)| variants.key.clone()).collect()
    }

    /// The most bytes of all answers together.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The largest answer that can be stored, in bytes.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// To be taken before a backend is asked, and handed back with the answer.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.purges.load(Relaxed))
    }

    /// True when an answer with these fields was purged or taken back since the ticket was taken.
    pub fn has_purged(&self, key: &Key, response: &HeaderMap, ticket: Ticket) -> bool {
        self.purges.load(Relaxed) != ticket.0 && self.changes.lock().has_purged(key, &tags::of(response), ticket)
    }

    /// The same of an entry.
    pub fn has_purged_entry(&self, key: &Key, entry: &Entry, ticket: Ticket) -> bool {
        self.purges.load(Relaxed) != ticket.0 && self.changes.lock().has_purged(key, &entry.tags, ticket)
    }

    /// Stores an answer, in place of those that were for the same requests; gives back what is stored. That is not this
    /// one when another one, which was asked for later or came faster, is newer.
    ///
    /// # Errors
    /// It is larger than half of a shard, or was purged since the ticket was taken.
    pub fn insert(&self, key: &Key, entry: Entry, ticket: Ticket) -> Result<Arc<Entry>, Refusal> {
        self.store(key, Arc::new(entry), ticket, None)
    }

    /// Stores what a 304 or a HEAD has made of an entry, if that is there still or has made room.
    ///
    /// # Errors
    /// As for [`Self::insert`]; `Purged` also when the entry was replaced.
    pub fn refresh(&self, key: &Key, old: &Arc<Entry>, new: Entry, ticket: Ticket) -> Result<Arc<Entry>, Refusal> {
        self.store(key, Arc::new(new), ticket, Some(old))
    }

    fn store(
        &self,
        key: &Key,
        entry: Arc<Entry>,
        ticket: Ticket,
        of: Option<&Arc<Entry>>,
    ) -> Result<Arc<Entry>, Refusal> {
        // What goes is dropped when the lock is free again.
        let mut gone = Vec::new();
        let mut changes = self.changes.lock();
        if changes.has_purged(key, &entry.tags, ticket) {
            return Err(Refusal::Purged);
        }
        let old = self.cache.peek(&key.hash()).filter(|old| old.key == *key);
        let known = || old.iter().flat_map(|old| old.entries());
        let replaced = |of: &Arc<Entry>| {
            let same = known().find(|known| known.selection.replaces(&of.selection));
            same.is_some_and(|same| !Arc::ptr_eq(same, of))
        };
        if of.is_some_and(replaced) {
            return Err(Refusal::Purged);
        }
        let newer = known().find(|known| known.selection.replaces(&entry.selection) && known.is_newer_than(&entry));
        if let Some(newer) = newer {
            // One for certain requests leaves nothing to one for all that came before.
            let is_for_the_same = newer.selection.is_any() || newer.selection == entry.selection;
            return if is_for_the_same { Ok(Arc::clone(newer)) } else { Err(Refusal::Purged) };
        }
        let entries = match &old {
            Some(old) => old.with(Arc::clone(&entry), self.most),
            None => vec![Arc::clone(&entry)],
        };
        let left_out = old.as_deref().and_then(|old| old.without(&entries, &entry.selection));
        let new = Variants::new(key.clone(), entries).filter(|new| new.weight() <= self.most);
        let Some(new) = new else {
            // The one that it should have replaced is not what the backend has now.
            self.keep(&mut changes, old.as_deref(), &mut gone, |kept| kept.selection != entry.selection);
            return Err(Refusal::TooLarge);
        };
        self.put(&mut changes, new, &mut gone);
        if let Some(left_out) = left_out {
            self.overflow.take(&Arc::new(left_out));
        }
        drop(changes);
        Ok(entry)
    }

    /// Takes out what a backend has taken back; nothing of this key is kept that is on its way.
    pub fn take_back(&self, key: &Key, what: &TakenBack<'_>) {
        let mut gone = Vec::new();
        let mut changes = self.changes.lock();
        self.purges.store(changes.purged.add_key(key.hash()), Relaxed);
        let old = self.cache.peek(&key.hash()).filter(|old| old.key == *key);
        self.keep(&mut changes, old.as_deref(), &mut gone, |kept| !what.is_about(kept));
        drop(changes);
    }

    /// Purges, and says how many answers; from now on no request is given one of them as it was, and no answer that is on
    /// its way is kept. It takes a microsecond for each, and a look at every folder for a path without a host.
    pub fn purge(&self, purge: &Purge, manner: Manner, now: Now) -> usize {
        self.purges.store(self.changes.lock().purged.add(purge), Relaxed);
        let (mut count, mut cursor) = (0, Cursor::Start);
        while !matches!(cursor, Cursor::End) {
            let mut gone = Vec::new();
            let mut changes = self.changes.lock();
            for hash in changes.index.find(purge, &mut cursor, BATCH) {
                let Some(found) = self.cache.peek(&hash) else { continue };
                let is_about = |entry: &Arc<Entry>| purge.is_about(found.key.url(), &entry.tags);
                let about = found.entries().iter().filter(|entry| is_about(entry));
                count += about.clone().count();
                match manner {
                    Manner::Soft => about.for_each(|entry| entry.mark_stale(now)),
                    Manner::Hard => self.keep(&mut changes, Some(&found), &mut gone, |entry| !is_about(entry)),
                }
            }
            drop(changes);
        }
        count
    }

    /// Keeps only some of what is stored under a key.
    fn keep(
        &self,
        changes: &mut Changes,
        old: Option<&Variants>,
        gone: &mut Vec<Arc<Variants>>,
        keep: impl Fn(&Arc<Entry>) -> bool,
    ) {
        let Some(old) = old else { return };
        let kept: Vec<_> = old.entries().iter().filter(|entry| keep(entry)).cloned().collect();
        if kept.len() == old.entries().len() {
            return;
        }
        if let Some(rest) = Variants::new(old.key.clone(), kept) {
            self.put(changes, rest, gone);
        } else {
            changes.index.remove(&old.key, old.tags());
            gone.extend(self.cache.remove(&old.key.hash()).map(|(_, old)| old));
        }
    }

    /// Puts something in, and takes out of the index what went for it.
    fn put(&self, changes: &mut Changes, new: Variants, gone: &mut Vec<Arc<Variants>>) {
        let (hash, new, before) = (new.key.hash(), Arc::new(new), gone.len());
        self.cache.insert_with_lifecycle(hash, Arc::clone(&new), gone);
        for old in &gone[before..] {
            // What is replaced is worth nothing any more.
            if old.key.hash() != hash || Arc::ptr_eq(old, &new) {
                self.overflow.take(old);
            }
            changes.index.remove(&old.key, old.tags());
            self.evictions.fetch_add(u64::from(old.key.hash() != hash), Relaxed);
        }
        // Whatever was replaced has been taken out with its tags; what has been refused is not there.
        if self.cache.contains_key(&hash) {
            changes.index.add(&new.key, new.tags());
        }
    }

    /// What is in it.
    pub fn stats(&self) -> Stats {
        Stats {
            bytes: self.cache.weight(),
            budget: self.budget,
            entries: self.cache.len(),
            evictions: self.evictions.load(Relaxed),
        }
    }

    /// The URLs under which most is stored, with the bytes, the largest first. It looks at every key.
    pub fn largest(&self, most: usize) -> Vec<(String, u64)> {
        let mut largest: Vec<(String, u64)> = Vec::new();
        for (_, variants) in self.cache.iter() {
            let at = largest.partition_point(|(_, weight)| *weight >= variants.weight());
            if at < most {
                largest.insert(at, (variants.key.url().to_owned(), variants.weight()));
                largest.truncate(most);
            }
        }
        largest
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<u128, Arc<Variants>> for Weight {
    fn weight(&self, _: &u128, variants: &Arc<Variants>) -> u64 {
        variants.weight()
    }
}

/// Gathers what is pushed out.
#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<u128, Arc<Variants>> for Collect {
    type RequestState = Vec<Arc<Variants>>;

    fn on_evict(&self, gone: &mut Self::RequestState, _: u128, variants: Arc<Variants>) {
        gone.push(variants);
    }
}

#[cfg(test)]
mod tests;
