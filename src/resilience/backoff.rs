//! Waiting before another attempt: exponential, with full jitter, so that clients which failed together do not come back
//! together.

use std::time::Duration;

/// The bounds of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The bound before the first retry; it doubles with every further one.
    pub initial: Duration,
    /// The highest bound.
    pub max: Duration,
}

impl Backoff {
    /// The time to wait before `retry` (1 is the first): uniform from 0 to its bound, by the `random` number.
    pub fn wait(&self, retry: u32, random: u64) -> Duration {
        let factor = 1u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = self.initial.saturating_mul(factor).min(self.max);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if nanos == u64::MAX { random } else { random % (nanos + 1) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_double_up_to_the_highest() {
        let backoff = Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(50) };
        // The random number that gives the bound itself.
        let most = |retry| (0..=60).map(|ms| backoff.wait(retry, ms * 1_000_000)).max();
        assert_eq!(most(1), Some(Duration::from_millis(10)));
        assert_eq!(most(2), Some(Duration::from_millis(20)));
        assert_eq!(most(3), Some(Duration::from_millis(40)));
        assert_eq!(most(4), Some(Duration::from_millis(50)));
        assert_eq!(Backoff { initial: Duration::ZERO, ..backoff }.wait(9, 12345), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_beyond_the_bound(initial: u32, max: u64, retry: u32, random: u64) {
            let backoff = Backoff { initial: Duration::from_micros(initial.into()), max: Duration::from_nanos(max) };
            let wait = backoff.wait(retry, random);
            let doubled = u128::from(initial) * 1000 * 2u128.pow(retry.saturating_sub(1).min(64));
            prop_assert!(wait.as_nanos() <= doubled && wait.as_nanos() <= u128::from(max));
        }
    }
}
