//! Limit tables by name, as long as the process lives: a configuration that leaves a limit as it was keeps its cells.
//!
//! A configuration is built against a [`TablesDraft`], which changes nothing that is alive: it may yet be rejected. What
//! it has asked for becomes the whole when it is committed; tables that nobody asked for are then gone.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::{KeyHasher, Locks, Policy, Table};

/// A table of any policy.
trait Counts: Send + Sync {
    fn evictions(&self) -> u64;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<P: Policy> Counts for Table<P> {
    fn evictions(&self) -> u64 {
        self.evictions()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A table with the capacity that was asked for: the table itself rounds it up.
#[derive(Clone)]
struct Sized {
    capacity: usize,
    table: Arc<dyn Counts>,
}

impl Sized {
    /// The table, if it is what is wanted.
    fn same<P: Policy>(&self, quota: P, capacity: usize) -> Option<Arc<Table<P>>> {
        let table = self.table.clone().into_any().downcast::<Table<P>>().ok()?;
        (*table.quota() == quota && self.capacity == capacity).then_some(table)
    }
}

type ByName = BTreeMap<String, Sized>;

/// The tables of the configuration that serves.
#[derive(Default)]
pub struct Tables {
    by_name: Mutex<ByName>,
    /// Evictions of tables that are gone: the count that is shown must not fall.
    past_evictions: AtomicU64,
    hasher: KeyHasher,
    locks: Arc<Locks>,
}

impl Tables {
    /// What a configuration under construction takes its tables from.
    pub fn draft(self: &Arc<Self>) -> TablesDraft {
        TablesDraft { live: self.clone(), asked: Mutex::default() }
    }

    /// Makes the tables that were asked for the whole of them.
    pub fn commit(&self, draft: &TablesDraft) {
        let next = draft.asked.lock().clone();
        let mut current = self.by_name.lock();
        let kept = |old: &Arc<dyn Counts>| next.values().any(|new| Arc::ptr_eq(old, &new.table));
        let gone = current.values().filter(|old| !kept(&old.table)).map(|old| old.table.evictions()).sum();
        self.past_evictions.fetch_add(gone, Relaxed);
        *current = next;
    }

    /// Buckets in use that were thrown out, over all tables that there have been.
    pub fn evictions(&self) -> u64 {
        let current: u64 = self.by_name.lock().values().map(|sized| sized.table.evictions()).sum();
        current + self.past_evictions.load(Relaxed)
    }

    /// How many tables there are.
    pub fn count(&self) -> usize {
        self.by_name.lock().len()
    }
}

/// The tables of a configuration that does not serve yet.
pub struct TablesDraft {
    live: Arc<Tables>,
    asked: Mutex<ByName>,
}

impl TablesDraft {
    /// The table of this name: the one that is alive when quota and capacity are the same, else a new one.
    pub fn get<P: Policy>(&self, name: &str, quota: P, capacity: usize) -> Arc<Table<P>> {
        let live = self.live.by_name.lock().get(name).and_then(|sized| sized.same(quota, capacity));
        let table = live.unwrap_or_else(|| Arc::new(Table::new(quota, capacity)));
        self.asked.lock().insert(name.to_owned(), Sized { capacity, table: table.clone() });
        table
    }

    /// Whether there is no limit that counts in this process.
    pub fn is_empty(&self) -> bool {
        self.asked.lock().is_empty()
    }

    /// The locks of every set of tables: a configuration and the one after it take of the same tables for a while.
    pub fn locks(&self) -> Arc<Locks> {
        self.live.locks.clone()
    }

    /// The hasher of every key: seeded once per process, so that keys stay the same over a reload.
    pub fn hasher(&self) -> &KeyHasher {
        &self.live.hasher
    }
}

// What has been counted is no setting: a configuration must look the same before and after traffic.
impl fmt::Debug for TablesDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.asked.lock().keys()).finish()
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.lock().keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::{
        super::{Quota, SlidingWindow},
        *,
    };

    fn quota(count: u32) -> Quota {
        Quota::new(count, Duration::from_secs(1), count).unwrap()
    }

    #[test]
    fn a_draft_changes_nothing_until_it_is_committed() {
        let tables = Arc::<Tables>::default();
        let first = tables.draft();
        let kept = first.get("a", quota(1), 10);
        first.get("b", quota(1), 10);
        assert_eq!(tables.count(), 0);
        tables.commit(&first);
        assert_eq!(tables.count(), 2);
        let rejected = tables.draft();
        assert!(!Arc::ptr_eq(&kept, &rejected.get("a", quota(2), 10)), "another quota");
        rejected.get("c", quota(1), 10);
        drop(rejected);
        assert_eq!(tables.count(), 2);
        let second = tables.draft();
        assert!(Arc::ptr_eq(&kept, &second.get("a", quota(1), 10)), "as it was");
        tables.commit(&second);
        assert_eq!(tables.count(), 1, "'b' is gone");
        let window = SlidingWindow::new(1, Duration::from_secs(1)).unwrap();
        assert!(second.get("a", window, 10).is_empty(), "of another kind, it is another table");
    }

    #[test]
    fn evictions_of_tables_that_are_gone_still_count() {
        let tables = Arc::<Tables>::default();
        let draft = tables.draft();
        let table = draft.get("a", quota(1), 1);
        tables.commit(&draft);
        for key in 0..100_000u64 {
            table.take(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1, Duration::ZERO);
        }
        let before = tables.evictions();
        assert!(before > 0);
        tables.commit(&tables.draft());
        assert_eq!((tables.evictions(), tables.count()), (before, 0));
    }
}
