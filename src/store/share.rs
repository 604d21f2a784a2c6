//! What this gateway lets pass of a shared limit by itself: the limit, divided by the gateways.
//!
//! It counts all the time, also what the store has let pass: so when the store is gone, no client begins with a full bucket here
//! that it has just emptied there; and when the store is back, what is missing here is what it must be told.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::limit::{Quota, Table, Verdict};

struct Part {
    gateways: u32,
    table: Table,
}

/// The share of this gateway.
pub(super) struct Share {
    whole: Quota,
    capacity: usize,
    part: ArcSwap<Part>,
}

impl Share {
    pub(super) fn new(whole: Quota, capacity: usize) -> Self {
        let part = Part { gateways: 1, table: Table::new(whole, capacity) };
        Self { whole, capacity, part: ArcSwap::from_pointee(part) }
    }

    /// Takes `cost` tokens of this gateway's share, when there are so many gateways. Another number begins with full buckets:
    /// it changes while the store answers, and counts here as well.
    pub(super) fn take(&self, key: u64, cost: u32, gateways: u32, now: Duration) -> Verdict {
        if self.part.load().gateways != gateways {
            let quota = divided(&self.whole, gateways).unwrap_or(self.whole);
            self.part.store(Arc::new(Part { gateways, table: Table::new(quota, self.capacity) }));
        }
        self.part.load().table.take(key, cost, now)
    }

    /// How many tokens of it are used, and not back yet.
    pub(super) fn used(&self, key: u64, gateways: u32, now: Duration) -> u32 {
        let verdict = self.take(key, 0, gateways, now);
        verdict.limit.saturating_sub(verdict.remaining)
    }

    /// After so long without requests every bucket is full.
    pub(super) fn refill(&self) -> Duration {
        self.part.load().table.quota().refill()
    }
}

/// `whole` for one of so many gateways: one request at once is the least that there is.
fn divided(whole: &Quota, gateways: u32) -> Option<Quota> {
    let gateways = gateways.max(1);
    Quota::new(whole.count(), whole.per() * gateways, (whole.burst() / gateways).max(1)).ok()
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
        assert_eq!(passed(1, 3 * second, 4 * second), 20 + 9);
        assert_eq!(divided(&Quota::new(1, second, 1).unwrap(), 9).unwrap().per(), 9 * second);
    }
}
