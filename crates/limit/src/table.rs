//! One quota for many keys, in memory that nobody's keys can grow.
//!
//! A map that grows with its keys lets whoever invents keys choose our memory; a lock around it makes every request of every
//! thread wait for the hottest key. So this is a fixed grid: a key may live in one bucket of eight slots, a slot is the key and
//! its GCRA state, and a request on a known key is one compare-and-swap. A new key takes a free slot of its bucket, else one
//! whose bucket is full again (which is as good as free), else the one nearest to that: the client that is forgotten gets a few
//! tokens too many, and it is counted in [`Table::evictions`].
//!
//! # How the threads agree
//!
//! A slot's key changes only under the lock of its bucket (64 locks are shared by all buckets), and whoever holds it has looked
//! again first, so that a key is never in two slots. Taking over a slot goes: key to empty, state to "full now", key to the new
//! one; each with release ordering. A reader loads the key (acquire, so that the state is not older), the state (acquire) and the
//! key again: had the state it saw belonged to a newer key, the second look would show this. Then it swaps the state only if that
//! is unchanged. All threads on one key meet in that swap, so exactly as many pass as the quota says.
//!
//! One race is accepted: a reader sleeps between the second look and the swap, its slot goes to another key, and this one
//! reaches the very same tick as state. Then the other client pays for this one request, once. No request passes for free by it.
//!
//! # What it does not do
//!
//! It does not share counts between processes, it does not survive a restart, and it does not shrink.

use std::{
    array,
    sync::{
        OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{Moment, Policy, Quota, Verdict};

/// Slots in a bucket: two cache lines, of which a hit mostly touches one.
const WAYS: usize = 8;
/// Slots in a cache line; a key is looked for, and settles, in its own line of the bucket first.
const LINE: usize = 4;
/// Buckets in a page (16 KiB). Pages appear when first written to, so that a table sized for the worst day costs what is used.
const PAGE: usize = 128;
/// Fewest buckets, one page: fewer would put unrelated hot keys on one cache line, to save nothing.
const FEWEST: usize = PAGE;
/// Most buckets (8 GiB); a larger wish is a mistake in a unit.
const MOST: usize = 1 << 26;
/// Locks for new keys: enough that a few dozen threads seldom meet.
const STRIPES: usize = 64;
/// The key of a slot that holds none.
const EMPTY: u64 = 0;

#[derive(Default)]
struct Slot {
    key: AtomicU64,
    tat: AtomicU64,
}

#[derive(Default)]
#[repr(align(128))]
struct Bucket([Slot; WAYS]);

/// On a line of its own, so that taking one lock does not disturb its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(Mutex<()>);

/// Written by every new key, hence kept off the line of the fields that every request reads.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    slots: AtomicU64,
    evictions: AtomicU64,
}

/// A limiter for many keys with one [`Quota`] (or another [`Policy`]), in bounded memory; all methods take `&self` from any thread.
///
/// Keys should be hashes that clients cannot choose, as [`KeyHasher`](super::KeyHasher) makes them.
pub struct Table<P = Quota> {
    quota: P,
    /// Bits of a mixed key that choose the bucket.
    bits: u32,
    pages: Box<[OnceLock<Box<[Bucket; PAGE]>>]>,
    stripes: Box<[Stripe; STRIPES]>,
    counts: Counts,
}

impl<P: Policy> Table<P> {
    /// A table that holds at least `capacity` keys at once, at 16 bytes for each of its slots.
    ///
    /// Only clients whose bucket is not full need a slot. There are two to four slots per key of `capacity`, because the eight of
    /// one bucket can run out before all are taken: with `capacity` clients active at once, up to one in a hundred loses its slot.
    pub fn new(quota: P, capacity: usize) -> Self {
        let buckets = (capacity.clamp(1, MOST * WAYS / 2) * 2 / WAYS).next_power_of_two().clamp(FEWEST, MOST);
        Self {
            quota,
            bits: buckets.trailing_zeros(),
            pages: (0..buckets / PAGE).map(|_| OnceLock::new()).collect(),
            stripes: Box::new(array::from_fn(|_| Stripe::default())),
            counts: Counts::default(),
        }
    }

    /// Takes `cost` tokens from the bucket of `key`, if it holds them. `now` is the time since any fixed start.
    ///
    /// A cost of zero only looks. A cost above the burst is refused with [`Verdict::NEVER`].
    pub fn take(&self, key: u64, cost: u32, now: Duration) -> Verdict {
        self.take_of(key, cost, self.quota.most(), now)
    }

    /// As [`Table::take`], but passes only while no more than `most` tokens of the bucket are used then: a part of it, which
    /// may be another one with every call. The verdict still tells of the whole bucket.
    pub fn take_of(&self, key: u64, cost: u32, most: u32, now: Duration) -> Verdict {
        let now = self.quota.instant(now);
        let place = SlotIndex::of(key, self.bits);
        let page = &self.pages[place.bucket / PAGE];
        let known = page.get().and_then(|page| self.charge(&page[place.bucket % PAGE], place, (cost, most), now));
        let step = known.unwrap_or_else(|| {
            if cost == 0 || cost > most.min(self.quota.most()) {
                // It changes nothing, so it needs no slot: an unknown key is a full bucket.
                return self.quota.step(0, now, cost, most);
            }
            self.admit(&page.get_or_init(new_page)[place.bucket % PAGE], place, (cost, most), now)
        });
        self.quota.verdict(step)
    }

    /// What [`Table::take_of`] would say, without taking anything.
    pub fn look(&self, key: u64, cost: u32, most: u32, now: Duration) -> Verdict {
        self.quota.verdict(self.quota.step(self.state(key), self.quota.instant(now), cost, most))
    }

    /// The state of a key, as its policy writes it; 0 of one that is not known.
    pub fn state(&self, key: u64) -> u64 {
        let place = SlotIndex::of(key, self.bits);
        let bucket = self.pages[place.bucket / PAGE].get().map(|page| &page[place.bucket % PAGE]);
        loop {
            let Some(slot) = bucket.and_then(|bucket| find(bucket, place)) else { return 0 };
            let state = slot.tat.load(Acquire);
            if slot.key.load(Relaxed) == place.key {
                return state;
            }
        }
    }

    /// [`Table::take_of`] by the clock of the policy.
    pub fn take_at(&self, key: u64, cost: u32, now: Moment) -> Verdict {
        self.take(key, cost, P::clock(now))
    }

    /// The quota of every key.
    pub fn quota(&self) -> &P {
        &self.quota
    }

    /// How many clients were forgotten while they still had tokens to win back, because their bucket of slots was crowded.
    ///
    /// When this grows, `capacity` is too small for the traffic or somebody invents keys.
    pub fn evictions(&self) -> u64 {
        self.counts.evictions.load(Relaxed)
    }

    /// How many slots were ever used: never less than the clients that are active now, as slots are reused but not given back.
    #[expect(clippy::cast_possible_truncation, reason = "at most `capacity`, a usize")]
    pub fn len(&self) -> usize {
        self.counts.slots.load(Relaxed) as usize
    }

    /// Whether no key was ever charged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of slots; no more keys than this are ever remembered.
    pub fn capacity(&self) -> usize {
        WAYS << self.bits
    }

    /// The hit path, without a lock. `None`: the key is not in the bucket.
    #[inline]
    fn charge(&self, bucket: &Bucket, place: SlotIndex, (cost, most): (u32, u32), now: u64) -> Option<P::Step> {
        'again: loop {
            let slot = find(bucket, place)?;
            let mut tat = slot.tat.load(Acquire);
            loop {
                // See the header: the state above is this key's only if the key is still here. The load cannot move up past the acquire.
                if slot.key.load(Relaxed) != place.key {
                    continue 'again;
                }
                let step = self.quota.step(tat, now, cost, most);
                let Some(next) = P::next(step) else { return Some(step) };
                match slot.tat.compare_exchange_weak(tat, next, AcqRel, Acquire) {
                    Ok(_) => return Some(step),
                    Err(seen) => tat = seen,
                }
            }
        }
    }

    /// The first request of a key, or of one that was forgotten.
    #[cold]
    #[inline(never)]
    fn admit(&self, bucket: &Bucket, place: SlotIndex, cost: (u32, u32), now: u64) -> P::Step {
        let _guard = self.stripes[place.bucket % STRIPES].0.lock();
        loop {
            // Another thread may have been faster; and after our own take-over this is what charges the slot, as for anybody.
            if let Some(step) = self.charge(bucket, place, cost, now) {
                return step;
            }
            let slot = self.victim(bucket, place, now);
            slot.key.store(EMPTY, Release);
            slot.tat.store(self.quota.unused(now), Release);
            slot.key.store(place.key, Release);
        }
    }

    /// The slot for a new key: an unused one, else one whose client has a full bucket, else the one closest to that.
    fn victim<'a>(&self, bucket: &'a Bucket, place: SlotIndex, now: u64) -> &'a Slot {
        let (mut best, mut least) = (&bucket.0[place.home], u64::MAX);
        for way in 0..WAYS {
            let slot = &bucket.0[(place.home + way) % WAYS];
            if slot.key.load(Relaxed) == EMPTY {
                self.counts.slots.fetch_add(1, Relaxed);
                return slot;
            }
            let tat = slot.tat.load(Relaxed);
            if tat < least {
                (best, least) = (slot, tat);
            }
        }
        if least > self.quota.unused(now) {
            self.counts.evictions.fetch_add(1, Relaxed);
        }
        best
    }
}

impl<P: Policy> std::fmt::Debug for Table<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("quota", &self.quota)
            .field("capacity", &self.capacity())
            .field("len", &self.len())
            .field("evictions", &self.evictions())
            .finish_non_exhaustive()
    }
}

/// Where a key may live.
#[derive(Clone, Copy)]
struct SlotIndex {
    bucket: usize,
    /// The first slot of its own cache line within the bucket.
    home: usize,
    /// The key as its slot holds it, never `EMPTY`.
    key: u64,
}

impl SlotIndex {
    #[expect(clippy::cast_possible_truncation, reason = "at most 26 bits are left after the shift")]
    #[inline]
    fn of(key: u64, bits: u32) -> Self {
        // Multiplying by an odd number is a bijection that spreads consecutive keys; its high bits are its best. (2^64 / golden ratio)
        let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let rest = u64::MAX >> bits;
        Self {
            bucket: (mixed >> (64 - bits)) as usize,
            home: if mixed & (1 << (63 - bits)) == 0 { 0 } else { LINE },
            // The bits that chose the bucket are the same for all keys in it, so they are free to tell any key, even 0, from `EMPTY`.
            key: mixed | !rest,
        }
    }
}

#[inline]
fn find(bucket: &Bucket, place: SlotIndex) -> Option<&Slot> {
    in_line(bucket, place, place.home).or_else(|| in_line(bucket, place, place.home ^ LINE))
}

/// All four slots are compared before anything is decided: which of them it is cannot be predicted, and a wrong guess of the
/// processor costs more than the comparisons.
#[inline]
fn in_line(bucket: &Bucket, place: SlotIndex, line: usize) -> Option<&Slot> {
    let slots: &[Slot; LINE] = bucket.0[line..].first_chunk()?;
    // Acquire: who sees a new key must not then see the state of the one before it.
    let is = |slot: &Slot| u32::from(slot.key.load(Acquire) == place.key);
    let found = is(&slots[0]) | is(&slots[1]) << 1 | is(&slots[2]) << 2 | is(&slots[3]) << 3;
    (found != 0).then(|| &slots[found.trailing_zeros() as usize % LINE])
}

#[cold]
fn new_page() -> Box<[Bucket; PAGE]> {
    Box::new(array::from_fn(|_| Bucket::default()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::{
        collections::HashMap,
        sync::{Barrier, atomic::AtomicUsize},
        thread,
    };

    use proptest::prelude::*;

    use super::{
        super::{Tat, decide},
        *,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn table(count: u32, burst: u32, capacity: usize) -> Table {
        Table::new(Quota::new(count, SECOND, burst).unwrap(), capacity)
    }

    /// Eight threads start together and each asks for `each`, at the same instant; how many requests pass.
    fn hammer(table: &Table, key: impl Fn(usize) -> u64 + Sync, each: usize, now: Duration) -> usize {
        let (barrier, passed) = (Barrier::new(8), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let mine = (0..each).filter(|&turn| table.take(key(turn), 1, now).allowed()).count();
                    passed.fetch_add(mine, Relaxed);
                });
            }
        });
        passed.into_inner()
    }

    #[test]
    fn exactly_the_burst_passes_on_eight_threads_and_then_exactly_the_rate() {
        let table = table(100, 1_000, 10);
        assert_eq!(hammer(&table, |_| 42, 5_000, Duration::ZERO), 1_000);
        for second in 1..=5 {
            // A nanosecond late, as a tick may end just after the instant that it stands for.
            assert_eq!(
                hammer(&table, |_| 42, 2_000, second * SECOND + Duration::from_nanos(2)),
                100,
                "second {second}"
            );
        }
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_new_key_is_made_once_however_many_threads_bring_it() {
        let table = table(1, 3, 100_000);
        let keys = 2_000;
        assert_eq!(hammer(&table, |turn| (turn % keys) as u64, keys * 4, Duration::ZERO), 3 * keys);
        assert_eq!((table.len(), table.evictions()), (keys, 0));
    }

    #[test]
    fn every_key_counts_by_itself_even_zero() {
        let table = table(1, 1, 1_000);
        let keys = [0, 1, 2, u64::MAX, 1 << 63, 0x9E37_79B9_7F4A_7C15, 0u64.wrapping_sub(0x9E37_79B9_7F4A_7C15)];
        for key in keys {
            assert!(table.take(key, 1, Duration::ZERO).allowed(), "{key}");
            assert!(!table.take(key, 1, Duration::ZERO).allowed(), "{key}");
        }
        assert_eq!(table.len(), keys.len());
    }

    #[test]
    fn a_million_invented_keys_cost_no_memory_and_spare_the_busy_client() {
        let table = table(10, 100, 10_000);
        table.take(7, 100, Duration::ZERO);
        let mut key = 1u64;
        for _ in 0..1_000_000 {
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            table.take(key, 1, Duration::ZERO);
        }
        assert!(table.len() <= table.capacity());
        assert_eq!(table.capacity(), 32_768);
        assert!(table.evictions() > 900_000);
        assert!(
            !table.take(7, 1, Duration::ZERO).allowed(),
            "the client furthest from full must be the last to be forgotten"
        );
    }

    #[test]
    fn what_is_full_again_is_reused_without_counting_as_evicted() {
        let table = table(10, 10, 100);
        for round in 0..100u32 {
            for key in 0..400 {
                table.take(u64::from(round) * 1_000 + key, 1, SECOND * round);
            }
        }
        assert!(table.evictions() < 400, "{}", table.evictions());
    }

    #[test]
    fn a_table_at_its_capacity_forgets_at_most_one_in_a_hundred() {
        // Over several seeds: in a small table one seed alone may have a few more by chance.
        const SEEDS: u64 = 16;
        for capacity in [1_000, 4_096, 100_000] {
            let evictions: u64 = (0..SEEDS)
                .map(|seed| {
                    let table = table(1, 1, capacity);
                    let hasher = super::super::KeyHasher::with_seed(seed);
                    for key in 0..capacity {
                        table.take(hasher.key("").number(key as u64).finish(), 1, Duration::ZERO);
                    }
                    table.evictions()
                })
                .sum();
            let keys = SEEDS * capacity as u64;
            assert!(evictions <= keys / 100, "{evictions} of {keys}");
        }
    }

    #[test]
    fn looking_or_asking_too_much_takes_no_slot() {
        let table = table(1, 5, 10);
        assert_eq!(table.take(1, 0, SECOND).remaining, 5);
        assert!(table.take(1, 6, SECOND).never());
        assert!(table.is_empty() && table.pages.iter().all(|page| page.get().is_none()));
        table.take(1, 2, SECOND);
        assert_eq!(table.take(1, 0, SECOND).remaining, 3);
        assert!(table.take(1, 6, SECOND).never());
    }

    #[test]
    fn takeovers_by_other_threads_never_lend_tokens() {
        // Every key lands in the same few buckets, so slots change hands all the time; the hot key is furthest from full and stays.
        let table = table(1, 1_000, 1);
        let passed = AtomicUsize::new(0);
        assert!(table.take(u64::MAX, 900, Duration::ZERO).allowed());
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let (table, passed) = (&table, &passed);
                scope.spawn(move || {
                    for turn in 0..50_000 {
                        table.take(thread * 50_000 + turn, 1, Duration::ZERO);
                        passed.fetch_add(usize::from(table.take(u64::MAX, 1, Duration::ZERO).allowed()), Relaxed);
                    }
                });
            }
        });
        // A few less only if the accepted race of the header was hit.
        assert!((99..=100).contains(&passed.into_inner()));
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_single_buckets(
            count in 1u32..1_000, burst in 1u32..20,
            steps in prop::collection::vec((0u64..20, 0u32..4, 0u64..50), 1..300),
        ) {
            let table = table(count, burst, 1_000);
            let (mut model, mut now) = (HashMap::<u64, Tat>::new(), Duration::ZERO);
            for (key, cost, millis) in steps {
                now += Duration::from_millis(millis);
                let tat = model.entry(key).or_default();
                let (expected, next) = decide(table.quota(), *tat, now, cost);
                *tat = next.unwrap_or(*tat);
                prop_assert_eq!(table.take(key, cost, now), expected);
            }
        }
    }
}
