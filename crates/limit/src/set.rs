//! Several limits of one client that are taken together: all of them, or none. A request that one of them refuses costs nothing
//! in any other.
//!
//! # How it stays exact
//!
//! A set looks at every limit and then takes of each, under a lock that all requests of this key share ([`Locks`]): nobody else
//! changes the key's states between the look and the take, so what the look has said still holds, and there is nothing to undo. Each take is
//! exact by itself, whoever runs at the same time. Hence never more passes than every single limit says, and what
//! passes and what does not is as if requests came one after another.
//!
//! Only if a table forgets the key between the two (it is full), or lends its slot in the race that [`Table`] describes, may a take find another state than
//! the look did. A key that was forgotten passes. Should a take refuse after all, the request is refused, and what it has taken of the limits
//! before is lost: that errs against the client, by one request.
//!
//! The lock is held for some hundred nanoseconds, and never while anything is waited for. A limit that is alone needs none of this.

use std::{array, fmt, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};

use super::{CalendarQuota, KeyHasher, KeyParts, Limiter, Moment, Quota, SlidingWindow, Table, Take, Verdict};

/// A verdict, and which of several limits it is about: the one that has refused, else the one that leaves least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// The limit's place among those that were taken together.
    pub of: usize,
    /// What it stands on.
    pub origin: Origin,
}

/// What a decision stands on: how far it may be from that of one exact bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// On all that has passed.
    #[default]
    Counted,
    /// A store that several share was not asked: more may pass than one bucket would let.
    Alone,
    /// Others hold tokens that they have not spent: less may pass.
    Withheld,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, of: 0, origin: Origin::Counted }
    }
}

impl Decision {
    /// The same decision, made without the store.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { origin: Origin::Alone, ..self }
    }

    /// What verdicts of several limits come to: of those that refuse the one that does so longest, else the one that leaves least.
    pub fn of_all(verdicts: impl Iterator<Item = Verdict>) -> Option<Self> {
        let tighter = |one: Verdict, other: Verdict| match (one.retry, other.retry) {
            (None, None) => (one.remaining, other.reset) < (other.remaining, one.reset),
            (one, other) => one > other,
        };
        let all = verdicts.enumerate().map(|(of, verdict)| Self { of, ..Self::from(verdict) });
        all.reduce(|best, next| if tighter(next.verdict, best.verdict) { next } else { best })
    }
}

/// A table of any policy.
#[derive(Clone, Debug)]
pub enum AnyTable {
    /// Token buckets.
    Bucket(Arc<Table<Quota>>),
    /// Sliding windows.
    Window(Arc<Table<SlidingWindow>>),
    /// Periods of the calendar.
    Calendar(Arc<Table<CalendarQuota>>),
}

impl AnyTable {
    /// The most that may pass at once.
    pub fn most(&self) -> u32 {
        match self {
            Self::Bucket(table) => table.quota().burst(),
            Self::Window(table) => table.quota().count(),
            Self::Calendar(table) => table.quota().count(),
        }
    }

    /// What [`AnyTable::take`] would say, without taking anything.
    pub fn look(&self, key: u64, cost: u32, most: u32, now: Moment) -> Verdict {
        match self {
            Self::Bucket(table) => table.look(key, cost, most, now.since_start),
            Self::Window(table) => table.look(key, cost, most, now.since_start),
            Self::Calendar(table) => table.look(key, cost, most, now.unix),
        }
    }

    /// [`Table::take_of`], by the clock of the policy.
    pub fn take(&self, key: u64, cost: u32, most: u32, now: Moment) -> Verdict {
        match self {
            Self::Bucket(table) => table.take_of(key, cost, most, now.since_start),
            Self::Window(table) => table.take_of(key, cost, most, now.since_start),
            Self::Calendar(table) => table.take_of(key, cost, most, now.unix),
        }
    }
}

/// On a line of its own, so that taking one lock does not disturb its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Lock(Mutex<()>);

/// Locks for keys: all sets that take of the same tables must have the same ones.
pub struct Locks(Box<[Lock; 256]>);

impl Default for Locks {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Lock::default())))
    }
}

impl Locks {
    fn of(&self, key: u64) -> MutexGuard<'_, ()> {
        // Keys may follow one another; see `table.rs` for the number.
        let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        self.0[usize::try_from(mixed).unwrap_or(0) % self.0.len()].0.lock()
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locks").finish()
    }
}

/// Takes of all `tables`, or of none. `part` says of each table how many may be used, and when it is for it.
pub fn take_all(
    tables: &[AnyTable],
    locks: &Locks,
    key: u64,
    cost: u32,
    part: impl Fn(&AnyTable) -> (u32, Moment),
) -> Option<Decision> {
    let _guard = locks.of(key);
    let each = |take: &dyn Fn(&AnyTable, u32, Moment) -> Verdict| {
        Decision::of_all(tables.iter().map(|table| {
            let (most, now) = part(table);
            take(table, most, now)
        }))
    };
    let looked = each(&|table, most, now| table.look(key, cost, most, now))?;
    if !looked.verdict.allowed() {
        return Some(looked);
    }
    each(&|table, most, now| table.take(key, cost, most, now))
}

/// Counts by several limits in this process, each in bounded memory.
pub struct LocalSet {
    tables: Vec<AnyTable>,
    locks: Arc<Locks>,
    hasher: KeyHasher,
}

impl LocalSet {
    /// Counts in all of `tables`, which only sets with the same `locks` use.
    pub fn new(tables: Vec<AnyTable>, locks: Arc<Locks>, hasher: KeyHasher) -> Self {
        Self { tables, locks, hasher }
    }

    /// Takes `cost` of every limit of `key`, or of none. A set of no limits lets everything pass.
    pub fn take_key(&self, key: u64, cost: u32, now: Moment) -> Decision {
        let open = Verdict { limit: u32::MAX, remaining: u32::MAX, reset: Duration::ZERO, retry: None };
        take_all(&self.tables, &self.locks, key, cost, |table| (table.most(), now)).unwrap_or_else(|| open.into())
    }
}

// As for one limit: no seeds, and nothing that has been counted.
impl fmt::Debug for LocalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for table in &self.tables {
            match table {
                AnyTable::Bucket(table) => list.entry(&(table.quota(), table.capacity())),
                AnyTable::Window(table) => list.entry(&(table.quota(), table.capacity())),
                AnyTable::Calendar(table) => list.entry(&(table.quota(), table.capacity())),
            };
        }
        list.entry(&self.hasher.ipv6_bits()).finish()
    }
}

impl Limiter for LocalSet {
    fn take(&self, parts: &dyn KeyParts, cost: u32, now: Moment) -> Take {
        let mut key = self.hasher.key("");
        parts.write(&mut key);
        Take::Now(self.take_key(key.finish(), cost, now))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::CalendarPeriod;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(count: u32, per: Duration, burst: u32) -> AnyTable {
        AnyTable::Bucket(Arc::new(Table::new(Quota::new(count, per, burst).unwrap(), 1_000)))
    }

    fn window(count: u32, per: Duration) -> AnyTable {
        AnyTable::Window(Arc::new(Table::new(SlidingWindow::new(count, per).unwrap(), 1_000)))
    }

    fn calendar(count: u32) -> AnyTable {
        let quota = CalendarQuota::new(count, CalendarPeriod::Minute).unwrap();
        AnyTable::Calendar(Arc::new(Table::new(quota, 1_000)))
    }

    fn set(tables: Vec<AnyTable>) -> LocalSet {
        LocalSet::new(tables, Arc::default(), KeyHasher::with_seed(1))
    }

    fn at(since_start: Duration) -> Moment {
        Moment { since_start, unix: since_start }
    }

    #[test]
    fn a_refused_request_costs_nothing_in_any_limit() {
        let set = set(vec![bucket(1, 3_600 * SECOND, 100), bucket(10, SECOND, 2), calendar(50)]);
        let now = at(90 * SECOND);
        assert_eq!((0..30).filter(|_| set.take_key(1, 1, now).verdict.allowed()).count(), 2);
        let refused = set.take_key(1, 1, now);
        assert_eq!((refused.of, refused.verdict.limit, refused.verdict.retry.unwrap().as_millis()), (1, 2, 100));
        assert_eq!(set.tables[0].look(1, 0, 100, now).remaining, 98);
        assert_eq!(set.tables[2].look(1, 0, 50, now).remaining, 48);
        // More than one of them ever lets pass.
        assert!(set.take_key(1, 51, now).verdict.never());
        assert_eq!(set.tables[0].look(1, 0, 100, now).remaining, 98);
    }

    #[test]
    fn the_one_that_leaves_least_is_named() {
        let set = set(vec![bucket(1, 3_600 * SECOND, 4), bucket(1_000, SECOND, 3)]);
        let of = |now| {
            let decision = set.take_key(1, 1, at(now));
            (decision.of, decision.verdict.remaining, decision.verdict.allowed())
        };
        assert_eq!(of(SECOND), (1, 2, true));
        assert_eq!((of(2 * SECOND), of(3 * SECOND)), ((0, 2, true), (0, 1, true)));
        assert_eq!((of(4 * SECOND), of(5 * SECOND)), ((0, 0, true), (0, 0, false)));
    }

    #[test]
    fn threads_together_pass_exactly_what_the_tightest_allows_and_no_limit_pays_for_refusals() {
        for _ in 0..20 {
            let set = set(vec![bucket(1, 3_600 * SECOND, 700), window(500, 3_600 * SECOND), calendar(600)]);
            let (barrier, passed) = (Barrier::new(8), AtomicUsize::new(0));
            let now = at(5 * SECOND);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        barrier.wait();
                        let mine = (0..500).filter(|_| set.take_key(7, 1, now).verdict.allowed()).count();
                        passed.fetch_add(mine, Relaxed);
                    });
                }
            });
            assert_eq!(passed.into_inner(), 500);
            assert_eq!(set.tables[0].look(7, 0, 700, now).remaining, 200);
            assert_eq!(set.tables[2].look(7, 0, 600, now).remaining, 100);
        }
    }

    proptest! {
        #[test]
        fn all_or_none_as_if_each_were_asked_alone(
            (rate, burst, count, quota) in (1u32..50, 1u32..10, 1u32..20, 1u32..40),
            steps in prop::collection::vec((0u64..3, 0u32..4, 0u64..200), 1..200),
        ) {
            let make = || vec![bucket(rate, SECOND, burst), window(count, SECOND), calendar(quota)];
            let (set, model) = (set(make()), make());
            let mut now = 59 * SECOND;
            for (key, cost, millis) in steps {
                now += Duration::from_millis(millis);
                let pass = model.iter().all(|table| table.look(key, cost, table.most(), at(now)).allowed());
                if pass {
                    for table in &model {
                        prop_assert!(table.take(key, cost, table.most(), at(now)).allowed());
                    }
                }
                prop_assert_eq!(set.take_key(key, cost, at(now)).verdict.allowed(), pass);
                for (table, model) in set.tables.iter().zip(&model) {
                    prop_assert_eq!(table.look(key, 0, 1, at(now)), model.look(key, 0, 1, at(now)));
                }
            }
        }
    }
}
