//! What this gateway lets pass of a shared limit by itself: the limit, divided by the gateways.
//!
//! It counts all the time, also what the store has let pass: so when the store is gone, no client begins with a full bucket here
//! that it has just emptied there; and when the store is back, what is missing here is what it must be told.
//!
//! There is one table, for any number of gateways: of several, each may use that part of a bucket, and the table's time runs so
//! much slower, so that the part of the rate comes back. Another number thus changes what may pass from then on, and forgets
//! nothing of what has.
//!
//! The store may let more pass at one gateway than its share, up to the whole bucket: a table beside it counts that, for what the
//! store is told when it is back. In the share's own it would keep a client out for long that comes to one gateway only.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::limit::{Quota, Table, Verdict};

/// How many gateways there are, and since when.
#[derive(Clone, Copy)]
struct Part {
    gateways: u32,
    since: Duration,
    /// The table's time then.
    began: Duration,
}

impl Part {
    /// The table's time.
    fn time(&self, now: Duration) -> Duration {
        self.began + now.saturating_sub(self.since) / self.gateways
    }
}

/// The time by which a share of a rate comes back: it runs so much slower as there are gateways.
pub(super) struct ShareClock {
    part: ArcSwap<Part>,
    change: Mutex<()>,
}

/// The share of this gateway.
pub(super) struct Share {
    table: Table,
    /// All that has passed here, by the same time.
    passed: Table,
    clock: ShareClock,
}

impl Default for ShareClock {
    fn default() -> Self {
        let part = Part { gateways: 1, since: Duration::ZERO, began: Duration::ZERO };
        Self { part: ArcSwap::from_pointee(part), change: Mutex::new(()) }
    }
}

impl ShareClock {
    /// The time for so many gateways.
    pub(super) fn time(&self, gateways: u32, now: Duration) -> Duration {
        let part = **self.part.load();
        if part.gateways == gateways { part.time(now) } else { self.change(gateways, now).time(now) }
    }

    /// Goes on from now with another number.
    #[cold]
    fn change(&self, gateways: u32, now: Duration) -> Part {
        let _guard = self.change.lock();
        let part = **self.part.load();
        if part.gateways == gateways {
            return part;
        }
        let next = Part { gateways, since: now.max(part.since), began: part.time(now) };
        self.part.store(Arc::new(next));
        next
    }
}

impl Share {
    pub(super) fn new(whole: Quota, capacity: usize) -> Self {
        Self { table: Table::new(whole, capacity), passed: Table::new(whole, capacity), clock: ShareClock::default() }
    }

    /// Takes `cost` tokens of this gateway's share, when there are so many gateways. One request at once is the least that a
    /// share is.
    pub(super) fn take(&self, key: u64, cost: u32, gateways: u32, now: Duration) -> Verdict {
        let (gateways, burst) = (gateways.max(1), self.table.quota().burst());
        let (most, time) = ((burst / gateways).max(1), self.clock.time(gateways, now));
        let verdict = self.table.take_of(key, cost, most, time);
        if verdict.allowed() {
            self.passed.take(key, cost, time);
        }
        let real = |time: Duration| time.saturating_mul(gateways);
        Verdict {
            limit: most,
            remaining: verdict.remaining.saturating_sub(burst - most),
            reset: real(verdict.reset),
            retry: verdict.retry.map(real),
        }
    }

    /// Counts what the store has let pass: so much less is left of the share.
    pub(super) fn charge(&self, key: u64, cost: u32, gateways: u32, now: Duration) {
        if !self.take(key, cost, gateways, now).allowed() {
            self.passed.take(key, cost, self.clock.time(gateways.max(1), now));
        }
    }

    /// How many tokens have passed here, and are not back yet: more than the share, if the store has let them.
    pub(super) fn used(&self, key: u64, gateways: u32, now: Duration) -> u32 {
        let verdict = self.passed.take(key, 0, self.clock.time(gateways.max(1), now));
        verdict.limit.saturating_sub(verdict.remaining)
    }

    /// After so long without requests every bucket is full, when there are so many gateways.
    pub(super) fn refill(&self, gateways: u32) -> Duration {
        self.table.quota().refill().saturating_mul(gateways.max(1))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_share_is_the_limit_divided() {
        let second = Duration::from_secs(1);
        let share = Share::new(Quota::new(10, second, 20).unwrap(), 100);
        let passed = |gateways, from: Duration, to: Duration| {
            let times = (0..).map(|i| from + Duration::from_millis(i)).take_while(|now| *now < to);
            times.filter(|now| share.take(1, 1, gateways, *now).allowed()).count()
        };
        assert_eq!(passed(4, second, 2 * second), 5 + 2);
        assert_eq!(share.used(1, 4, 2 * second), 5);
        assert_eq!(passed(1, 5 * second, 6 * second), 20 + 9);
        let small = Share::new(Quota::new(1, second, 1).unwrap(), 100);
        assert!(small.take(1, 1, 9, second).allowed());
        assert_eq!(small.take(1, 1, 9, second).retry, Some(9 * second));
    }

    #[test]
    fn what_the_store_has_let_pass_beyond_the_share_is_known_and_keeps_nobody_out() {
        let second = Duration::from_secs(1);
        let share = Share::new(Quota::new(10, second, 20).unwrap(), 100);
        for _ in 0..20 {
            share.charge(1, 1, 2, second);
        }
        assert_eq!(share.used(1, 2, second), 20);
        assert!(!share.take(1, 1, 2, second).allowed());
        assert!(share.take(1, 1, 2, second + second / 5).allowed(), "a half of the rate comes back from then on");
        assert_eq!(share.used(1, 2, 3 * second), 11);
    }

    #[test]
    fn another_number_of_gateways_forgets_nothing() {
        let (hour, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
        let share = Share::new(Quota::new(1, hour, 20).unwrap(), 100);
        let passed = |gateways, now| (0..25).filter(|_| share.take(1, 1, gateways, now).allowed()).count();
        assert_eq!(passed(1, second), 20);
        assert_eq!((passed(2, second), share.used(1, 2, second)), (0, 20), "more than its share has passed");
        assert_eq!((passed(1, 2 * second), share.used(1, 1, 2 * second)), (0, 20));
        assert_eq!(share.used(1, 2, 2 * second), 20);
        // Half of the rate comes back here.
        assert_eq!(share.used(1, 2, 2 * second + 4 * hour), 18);
        let refused = share.take(1, 1, 2, 2 * second + 4 * hour);
        assert_eq!((refused.limit, refused.remaining), (10, 0));
        let wait = refused.retry.unwrap().as_secs();
        assert!((17 * 3_600..=18 * 3_600).contains(&wait), "{wait}");
        assert_eq!(share.take(2, 11, 2, second).retry, Some(Verdict::NEVER));
    }
}
