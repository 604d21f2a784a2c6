//! A quota in whole numbers that a store can reckon with, whose own numbers are doubles (a Lua script in Redis): exact below 2^53.
//!
//! A bucket is its *deficit*, what it lacks of being full, in units that are chosen so that a token is a whole number of them
//! and every microsecond gives back a whole number, too. Three a second is 1,000,000 units a token and 3 units a microsecond:
//! nothing is rounded, so no rate drifts.

use std::time::Duration;

use super::{InvalidQuota, Quota, Verdict};

/// The largest deficit. Half of what a double holds exactly, so that one more request can be added before it is compared.
const LARGEST: u128 = 1 << 52;

/// A [`Quota`] as a shared store reckons with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedQuota {
    /// Units of one token.
    pub token: u64,
    /// Units that come back in a microsecond.
    pub rate: u64,
    /// Units of a whole bucket.
    pub full: u64,
    burst: u32,
}

impl SharedQuota {
    /// A bucket that never holds anything.
    pub const NOTHING: Self = Self { token: 1, rate: 1, full: 0, burst: 0 };

    /// The same quota. Where its numbers are too large for a store, they are rounded so that less passes, never more.
    ///
    /// # Errors
    /// An empty bucket would take too long to fill.
    pub fn new(quota: &Quota) -> Result<Self, InvalidQuota> {
        let (period, count) = (quota.per().as_nanos(), u128::from(quota.count()) * 1_000);
        let common = gcd(period, count);
        let (mut token, mut rate) = (period / common, count / common);
        while token * u128::from(quota.burst()) > LARGEST || rate > LARGEST {
            (token, rate) = (token.div_ceil(2), rate / 2);
        }
        let narrow = |wide: u128| u64::try_from(wide).map_err(|_| InvalidQuota::TooSlow);
        if rate == 0 {
            return Err(InvalidQuota::TooSlow);
        }
        let full = narrow(token * u128::from(quota.burst()))?;
        Ok(Self { token: narrow(token)?, rate: narrow(rate)?, full, burst: quota.burst() })
    }

    /// What a bucket lacks that lacked `deficit` so long `ago`.
    pub fn after(&self, deficit: u64, ago: Duration) -> u64 {
        let back = ago.as_micros().saturating_mul(u128::from(self.rate));
        u64::try_from(u128::from(deficit).saturating_sub(back)).unwrap_or(0)
    }

    /// Whole tokens in a bucket that lacks `deficit`.
    pub fn tokens(&self, deficit: u64) -> u32 {
        u32::try_from(self.full.saturating_sub(deficit) / self.token).unwrap_or(u32::MAX)
    }

    /// The time in which `deficit` comes back.
    pub fn wait(&self, deficit: u64) -> Duration {
        Duration::from_micros(deficit.div_ceil(self.rate))
    }

    /// What the client is told of a bucket that lacks `deficit` when `held` tokens beyond it are there for this client.
    pub fn verdict(&self, deficit: u64, held: u32, retry: Option<Duration>) -> Verdict {
        let remaining = if retry.is_some() { 0 } else { self.tokens(deficit).saturating_add(held).min(self.burst) };
        Verdict { limit: self.burst, remaining, reset: self.wait(deficit), retry }
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn shared(count: u32, per: Duration, burst: u32) -> SharedQuota {
        SharedQuota::new(&Quota::new(count, per, burst).unwrap()).unwrap()
    }

    #[test]
    fn ordinary_quotas_are_exact() {
        let second = Duration::from_secs(1);
        let three = shared(3, second, 5);
        assert_eq!((three.token, three.rate, three.full), (1_000_000, 3, 5_000_000));
        let many = shared(1_000_000, Duration::from_secs(86_400), 1_000_000);
        assert_eq!((many.token, many.rate, many.full), (86_400, 1, 86_400_000_000));
        // Faster than one in a microsecond.
        let fast = shared(3_000_000, second, 1);
        assert_eq!((fast.token, fast.rate), (1, 3));
        assert_eq!(three.wait(1_000_000), Duration::from_micros(333_334));
        assert_eq!(three.tokens(three.after(3_000_000, Duration::from_millis(400))), 3);
        assert_eq!(three.verdict(5_000_000, 9, None).remaining, 5);
    }

    proptest! {
        #[test]
        fn never_more_than_the_quota_says(count in 1u32.., seconds in 1u64..100_000_000, burst in 1u32..) {
            let Ok(quota) = Quota::new(count, Duration::from_secs(seconds), burst) else { return Ok(()) };
            let Ok(shared) = SharedQuota::new(&quota) else { return Ok(()) };
            prop_assert!(u128::from(shared.full) + u128::from(shared.token) <= 1 << 53);
            // rate / token <= count / period, all in microseconds.
            let (rate, token) = (u128::from(shared.rate), u128::from(shared.token));
            prop_assert!(rate * u128::from(seconds) * 1_000_000 <= u128::from(count) * token);
        }
    }
}
