//! Counting over the last while: a ring of slots, each good for a tenth of the window. What falls out is forgotten a
//! tenth at a time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Slots of a ring.
const SLOTS: usize = 10;

/// A count over the last window.
#[derive(Debug)]
pub(super) struct Window {
    width: Duration,
    /// The number of the slot's time in the high half, the count in the low half.
    slots: [AtomicU64; SLOTS],
}

impl Window {
    pub(super) fn new(window: Duration) -> Self {
        let width = (window / 10).max(Duration::from_millis(1));
        Self { width, slots: Default::default() }
    }

    /// The number of the slot that `now` falls into; never 0, which an unused slot holds.
    fn epoch(&self, now: Duration) -> u64 {
        let number = now.as_nanos() / self.width.as_nanos();
        (u64::try_from(number).unwrap_or(u64::MAX) & 0x7fff_ffff) + 1
    }

    /// Counts one.
    pub(super) fn add(&self, now: Duration) {
        let epoch = self.epoch(now);
        let slot = &self.slots[usize::try_from(epoch).unwrap_or(0) % SLOTS];
        let mut held = slot.load(Relaxed);
        loop {
            if held >> 32 == epoch {
                // Another thread may be ahead by one turn of the ring; a count then lands a window late, once.
                slot.fetch_add(1, Relaxed);
                return;
            }
            match slot.compare_exchange_weak(held, epoch << 32 | 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now_held) => held = now_held,
            }
        }
    }

    /// The count over the window that ends now.
    pub(super) fn sum(&self, now: Duration) -> u64 {
        let last = self.epoch(now);
        let first = last.saturating_sub(SLOTS as u64 - 1);
        let live = |held: &u64| (first..=last).contains(&(held >> 32));
        self.slots.iter().map(|slot| slot.load(Relaxed)).filter(live).map(|held| held & 0xffff_ffff).sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let window = Window::new(Duration::from_secs(10));
        window.add(Duration::from_secs(1));
        window.add(Duration::from_secs(5));
        assert_eq!(window.sum(Duration::from_secs(6)), 2);
        assert_eq!(window.sum(Duration::from_secs(10)), 2);
        assert_eq!(window.sum(Duration::from_secs(11)), 1);
        assert_eq!(window.sum(Duration::from_secs(15)), 0);
    }

    proptest! {
        /// Between what came within nine tenths of the window and what came within all of it.
        #[test]
        fn the_sum_is_that_of_the_window(mut times in proptest::collection::vec(0u64..60_000, 0..200), end in 0u64..5_000) {
            times.sort_unstable();
            let window = Window::new(Duration::from_secs(10));
            for at in &times {
                window.add(Duration::from_millis(*at));
            }
            let now = times.last().unwrap_or(&0) + end;
            let since = |age: u64| times.iter().filter(|at| **at + age > now).count() as u64;
            let sum = window.sum(Duration::from_millis(now));
            prop_assert!(since(9_000) <= sum && sum <= since(10_000), "{} <= {sum} <= {}", since(9_000), since(10_000));
        }
    }
}
