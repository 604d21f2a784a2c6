//! What of the answers on a disk is where. The files themselves are `runtime::disk_files`': here is what is known of them, in
//! memory, bounded in bytes and in number; the next process is told (`handed_file`).
//!
//! What memory pushes out (`overflow`) is written, and gets its place. A purge that comes meanwhile is remembered, as for
//! answers on their way into memory; until a purge has been through both stores, nothing gets a place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderMap;
use parking_lot::Mutex;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::{
    hashed::Hashed,
    index::{Cursor, Index},
    key::Key,
    purge::Purge,
    purged::Purged,
    tags::Tags,
    taken_back::TakenBack,
    vary::Selection,
};
use crate::clock::Now;

/// The most files of one key: with more, the oldest goes.
const MOST: usize = 32;
/// What a file costs in memory beside its key, its selection and its tags, and what each of these costs beside its bytes.
const OVERHEAD: usize = 320;
const TAG: usize = 96;
/// So many keys are purged under one hold of the lock.
const BATCH: usize = 256;

/// A file with an answer.
#[derive(Debug)]
pub struct Spot {
    /// Its name among files.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// When the answer came, and how old it was then.
    pub stored: Now,
    /// See [`Self::stored`].
    pub initial_age: Duration,
    /// The requests that it is for.
    pub selection: Selection,
    /// What it can be purged by.
    pub tags: Tags,
}

/// What is known of the files.
#[derive(Debug)]
pub struct Disk {
    spots: Cache<u128, Arc<Spots>, Weight, Hashed, Collect>,
    changes: Mutex<Changes>,
    /// How many purges there have been.
    purges: AtomicU64,
}

#[derive(Debug, Default)]
struct Changes {
    index: Index,
    purged: Purged,
    /// Purges that are under way.
    purging: usize,
    /// Files that nobody finds any more.
    gone: Vec<u64>,
    /// Bytes of those that somebody may find.
    bytes: u64,
}

/// The files of one key, the newest first.
#[derive(Debug)]
struct Spots {
    key: Key,
    all: Vec<Arc<Spot>>,
}

impl Spot {
    /// About how many bytes of memory one takes with this key, selection and tags.
    pub fn weight(key: &Key, selection: &Selection, tags: &Tags) -> usize {
        let tags: usize = tags.iter().map(|tag| tag.len() + TAG).sum();
        OVERHEAD + key.bytes().len() + selection.weight() + tags
    }
}

impl Spots {
    fn bytes(&self) -> u64 {
        self.all.iter().map(|spot| spot.bytes).sum()
    }

    fn tags(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.all.iter().flat_map(|spot| spot.tags.iter())
    }
}

/// A purge that is going through the stores.
#[derive(Debug)]
pub struct Purging<'a> {
    disk: &'a Disk,
    purge: &'a Purge,
    /// How many answers it was about here.
    pub count: usize,
}

impl Drop for Purging<'_> {
    fn drop(&mut self) {
        let mut changes = self.disk.changes.lock();
        changes.purging -= 1;
        self.disk.purges.store(changes.purged.add(self.purge), Relaxed);
    }
}

impl Disk {
    /// Room for files of so many bytes, and for at most so many files.
    pub fn new(bytes: u64, files: u64) -> Self {
        let least = (bytes / files.max(1)).max(1);
        let usual = usize::try_from(files).unwrap_or(usize::MAX);
        let mut options = OptionsBuilder::new();
        options.shards(1).estimated_items_capacity(usual).weight_capacity(bytes);
        let spots = match options.build() {
            Ok(options) => Cache::with_options(options, Weight(least), Hashed, Collect),
            // It only fails when one of the two is not set.
            Err(_) => Cache::with(usual, bytes, Weight(least), Hashed, Collect),
        };
        Self { spots, changes: Mutex::default(), purges: AtomicU64::new(0) }
    }

    /// To be taken when memory pushes an answer out, and handed back with its file.
    pub fn ticket(&self) -> u64 {
        self.purges.load(Relaxed)
    }

    /// The file for a request with these fields.
    pub fn find(&self, key: &Key, request: &HeaderMap) -> Option<Arc<Spot>> {
        let spots = self.spots.get(&key.hash()).filter(|found| found.key == *key)?;
        spots.all.iter().find(|spot| spot.selection.is_of(request)).cloned()
    }

    /// All keys with files, in no order.
    pub fn keys(&self) -> Vec<Key> {
        self.spots.iter().map(|(_, spots)| spots.key.clone()).collect()
    }

    /// The files under a key, the newest first.
    pub fn files(&self, key: &Key) -> Vec<Arc<Spot>> {
        let spots = self.spots.peek(&key.hash()).filter(|found| found.key == *key);
        spots.map(|spots| spots.all.clone()).unwrap_or_default()
    }

    /// True when there is a file for exactly these requests: it holds what memory holds, which is forgotten here otherwise.
    pub fn has(&self, key: &Key, selection: &Selection) -> bool {
        let spots = self.spots.peek(&key.hash()).filter(|found| found.key == *key);
        spots.is_some_and(|spots| spots.all.iter().any(|spot| spot.selection == *selection))
    }

    /// True when there is a file for these requests with an answer that came after this time.
    pub fn has_newer(&self, key: &Key, selection: &Selection, than: Now) -> bool {
        let spots = self.spots.peek(&key.hash()).filter(|found| found.key == *key);
        let is_newer =
            |spot: &Arc<Spot>| selection.replaces(&spot.selection) && spot.stored.since_start > than.since_start;
        spots.is_some_and(|spots| spots.all.iter().any(is_newer))
    }

    /// Gives a file its place; false when it has none: it was purged meanwhile, there is something newer, or no room. Files whose place
    /// it takes are gone.
    pub fn add(&self, key: &Key, spot: Spot, ticket: u64) -> bool {
        let number = spot.number;
        let mut changes = self.changes.lock();
        let purged = &changes.purged;
        let is_purged =
            purged.was(ticket, key.url(), &spot.tags) || purged.was_variant(ticket, key.hash(), &spot.selection);
        let old = self.spots.peek(&key.hash()).filter(|old| old.key == *key);
        let known = || old.iter().flat_map(|old| &old.all);
        let replaces = |known: &&Arc<Spot>| spot.selection.replaces(&known.selection);
        let came_before = |known: &Arc<Spot>| known.stored.since_start <= spot.stored.since_start;
        if changes.purging > 0 || is_purged || known().any(|known| replaces(&known) && !came_before(known)) {
            changes.gone.push(number);
            return false;
        }
        let mut all: Vec<_> = known().filter(|known| !replaces(known)).take(MOST - 1).cloned().collect();
        let place = all.iter().position(came_before).unwrap_or(all.len());
        all.insert(place, Arc::new(spot));
        self.put(&mut changes, Spots { key: key.clone(), all });
        self.find_file(key, number)
    }

    fn find_file(&self, key: &Key, number: u64) -> bool {
        self.spots.peek(&key.hash()).is_some_and(|spots| spots.all.iter().any(|spot| spot.number == number))
    }

    /// Something newer is known of this key than what is in a file, or on its way into one.
    pub fn forget(&self, key: &Key, selection: &Selection) {
        let mut changes = self.changes.lock();
        self.purges.store(changes.purged.add_variant(key.hash(), selection), Relaxed);
        let old = self.spots.peek(&key.hash()).filter(|old| old.key == *key);
        self.keep(&mut changes, old.as_deref(), |spot| !selection.replaces(&spot.selection));
    }

    /// Takes away what a backend has taken back.
    pub fn take_back(&self, key: &Key, what: &TakenBack<'_>) {
        let mut changes = self.changes.lock();
        self.purges.store(changes.purged.add_key(key.hash()), Relaxed);
        let old = self.spots.peek(&key.hash()).filter(|old| old.key == *key);
        self.keep(&mut changes, old.as_deref(), |spot| !what.is_about_file(spot.stored, &spot.selection));
    }

    /// Takes away what is purged. Until the purge ends no file gets a place, nor does any afterwards that was on its way.
    ///
    /// Files `elsewhere`, for which memory has the same answer, do not count.
    pub fn purge<'a>(&'a self, purge: &'a Purge, elsewhere: &dyn Fn(&Key, &Selection) -> bool) -> Purging<'a> {
        {
            let mut changes = self.changes.lock();
            changes.purging += 1;
            self.purges.store(changes.purged.add(purge), Relaxed);
        }
        let (mut count, mut cursor) = (0, Cursor::Start);
        while !matches!(cursor, Cursor::End) {
            let mut changes = self.changes.lock();
            for hash in changes.index.find(purge, &mut cursor, BATCH) {
                let Some(found) = self.spots.peek(&hash) else { continue };
                let is_about = |spot: &Arc<Spot>| purge.is_about(found.key.url(), &spot.tags);
                let counts = |spot: &&Arc<Spot>| is_about(spot) && !elsewhere(&found.key, &spot.selection);
                count += found.all.iter().filter(counts).count();
                self.keep(&mut changes, Some(&found), |spot| !is_about(spot));
            }
        }
        Purging { disk: self, purge, count }
    }

    fn keep(&self, changes: &mut Changes, old: Option<&Spots>, keep: impl Fn(&Arc<Spot>) -> bool) {
        let Some(old) = old else { return };
        let all: Vec<_> = old.all.iter().filter(|spot| keep(spot)).cloned().collect();
        if all.len() == old.all.len() {
            return;
        }
        if !all.is_empty() {
            return self.put(changes, Spots { key: old.key.clone(), all });
        }
        changes.index.remove(&old.key, old.tags());
        changes.gone.extend(old.all.iter().map(|spot| spot.number));
        changes.bytes -= old.bytes();
        self.spots.remove(&old.key.hash());
    }

    fn put(&self, changes: &mut Changes, new: Spots) {
        let (hash, new, mut out) = (new.key.hash(), Arc::new(new), Vec::new());
        self.spots.insert_with_lifecycle(hash, new.clone(), &mut out);
        changes.bytes += new.bytes();
        let stays = self.spots.peek(&hash).filter(|found| Arc::ptr_eq(found, &new));
        for old in &out {
            changes.index.remove(&old.key, old.tags());
            changes.bytes -= old.bytes();
            let kept = |number| stays.as_ref().is_some_and(|new| new.all.iter().any(|spot| spot.number == number));
            changes.gone.extend(old.all.iter().map(|spot| spot.number).filter(|number| !kept(*number)));
        }
        if let Some(new) = stays {
            changes.index.add(&new.key, new.tags());
        }
    }

    /// Files that nobody finds any more since it was asked last.
    pub fn gone(&self) -> Vec<u64> {
        std::mem::take(&mut self.changes.lock().gone)
    }

    /// Bytes of files, and keys that they are under.
    pub fn stats(&self) -> (u64, usize) {
        (self.changes.lock().bytes, self.spots.len())
    }
}

/// The bytes of the files of a key; each counts at least as much as this.
#[derive(Debug, Clone)]
struct Weight(u64);

impl Weighter<u128, Arc<Spots>> for Weight {
    fn weight(&self, _: &u128, spots: &Arc<Spots>) -> u64 {
        spots.all.iter().map(|spot| spot.bytes.max(self.0)).sum()
    }
}

/// Gathers what is pushed out.
#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<u128, Arc<Spots>> for Collect {
    type RequestState = Vec<Arc<Spots>>;

    fn on_evict(&self, gone: &mut Self::RequestState, _: u128, spots: Arc<Spots>) {
        gone.push(spots);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::{
        super::{
            key::{KeyParts, Keys},
            test_entry::Made,
        },
        *,
    };

    struct Files {
        keys: Keys,
        disk: Disk,
    }

    impl Files {
        fn new(bytes: u64, files: u64) -> Self {
            Self { keys: Keys::default(), disk: Disk::new(bytes, files) }
        }

        fn key(&self, path: &str) -> Key {
            let made = Made::under("{}");
            let none = HeaderMap::new();
            let (policy, identity, told) = (&made.policy, &[][..], &[][..]);
            let (route, secure, host, query) = (0, false, "h", None);
            self.keys.key(&KeyParts {
                route,
                policy,
                secure,
                host,
                path,
                spelled: None,
                query,
                identity,
                request: &none,
                told,
            })
        }

        fn add(&self, path: &str, number: u64, language: Option<&str>, ticket: u64) -> bool {
            let mut made = Made::saying("max-age=9").with("cache-tag", "t");
            if let Some(language) = language {
                made = made.with("vary", "x-l").asked_with("x-l", language);
            }
            let entry = made.entry();
            let (selection, tags) = (entry.selection.clone(), entry.tags.clone());
            let (stored, initial_age) = (Made::later(number), Duration::ZERO);
            let spot = Spot { number, bytes: 100, stored, initial_age, selection, tags };
            self.disk.add(&self.key(path), spot, ticket)
        }

        fn find(&self, path: &str, language: &'static str) -> Option<u64> {
            let request = [("x-l".parse().unwrap(), HeaderValue::from_static(language))].into_iter().collect();
            self.disk.find(&self.key(path), &request).map(|spot| spot.number)
        }
    }

    #[test]
    fn a_newer_file_takes_the_place_of_those_for_the_same_requests() {
        let files = Files::new(10_000, 100);
        let ticket = files.disk.ticket();
        assert!(files.add("/a", 1, Some("de"), ticket) && files.add("/a", 2, Some("en"), ticket));
        assert_eq!((files.find("/a", "de"), files.find("/a", "en"), files.find("/a", "fr")), (Some(1), Some(2), None));
        assert!(files.add("/a", 3, Some("de"), ticket));
        assert_eq!((files.find("/a", "de"), files.disk.gone()), (Some(3), vec![1]));
        assert!(files.add("/a", 4, None, ticket), "one for all requests");
        assert_eq!((files.find("/a", "fr"), files.disk.stats()), (Some(4), (100, 1)));
        let mut gone = files.disk.gone();
        gone.sort_unstable();
        assert_eq!(gone, [2, 3]);
        files.disk.forget(&files.key("/a"), &Selection::default());
        assert!(!files.add("/a", 5, None, ticket), "it was on its way");
        assert_eq!((files.find("/a", "de"), files.disk.gone(), files.disk.stats()), (None, vec![4, 5], (0, 0)));
    }

    #[test]
    fn what_is_newer_keeps_its_place() {
        let files = Files::new(10_000, 100);
        let ticket = files.disk.ticket();
        assert!(files.add("/a", 5, Some("de"), ticket) && files.add("/a", 4, Some("en"), ticket));
        assert!(!files.add("/a", 3, Some("de"), ticket) && !files.add("/a", 3, None, ticket));
        assert_eq!((files.find("/a", "de"), files.find("/a", "en"), files.disk.gone()), (Some(5), Some(4), vec![3, 3]));
        let request = [("x-l".parse().unwrap(), HeaderValue::from_static("de"))].into_iter().collect();
        let key = files.key("/a");
        files
            .disk
            .take_back(&key, &TakenBack { request: &request, selection: &Selection::default(), at: Made::later(4) });
        assert_eq!(files.find("/a", "de"), Some(5), "it has come since");
        files
            .disk
            .take_back(&key, &TakenBack { request: &request, selection: &Selection::default(), at: Made::later(5) });
        assert_eq!((files.find("/a", "de"), files.find("/a", "en")), (None, Some(4)));
        assert!(!files.add("/a", 6, Some("de"), ticket), "it was on its way");
        assert!(files.add("/a", 7, Some("de"), files.disk.ticket()));
    }

    #[test]
    fn nothing_gets_a_place_while_it_is_purged_nor_afterwards_if_it_was_on_its_way() {
        let files = Files::new(10_000, 100);
        for (round, purge, count) in [
            (0, Purge::Url("http://h/a".to_owned()), 1),
            (10, Purge::Prefix("/".to_owned()), 2),
            (20, Purge::Tag(b"t".to_vec()), 2),
            (30, Purge::All, 2),
        ] {
            let ticket = files.disk.ticket();
            assert!(files.add("/a", round + 1, None, ticket) && files.add("/b", round + 2, None, ticket));
            let purging = files.disk.purge(&purge, &|_, _| false);
            assert_eq!((purging.count, files.find("/a", "")), (count, None));
            let during = files.disk.ticket();
            assert!(!files.add("/a", round + 3, None, during));
            drop(purging);
            assert!(!files.add("/a", round + 4, None, during), "memory had it while that was looked through");
            assert!(files.add("/a", round + 5, None, files.disk.ticket()));
        }
        assert!(files.disk.changes.lock().index.len() == (1, 1), "what is left is /a");
    }

    #[test]
    fn there_is_a_bound_and_what_goes_is_told() {
        for (bytes, count) in [(2000, 1_000_000), (1_000_000, 20)] {
            let files = Files::new(bytes, count);
            for number in 0..200 {
                files.add(&format!("/{number}"), number, None, files.disk.ticket());
            }
            let (kept, keys) = files.disk.stats();
            assert!(keys <= 20 && kept == keys as u64 * 100 && keys > 10, "{keys}");
            assert_eq!(files.disk.gone().len() + keys, 200);
            assert_eq!(files.disk.changes.lock().index.len(), (keys, keys));
        }
    }
}
