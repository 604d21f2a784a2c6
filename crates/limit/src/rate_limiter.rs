//! A limiter that reads the clock itself: for programs that only want to know whether a caller may go on.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{KeyHasher, Quota, Table, Verdict};

/// One limit for many callers, each with a bucket of its own, told apart by text: an address, a name, a credential.
///
/// A decision takes constant time and no lock, except for a caller's first one. Each caller whose bucket is not full takes 16
/// bytes; the table has two to four such places for each of `capacity`. There is no error: exactly `burst` requests pass at
/// once, and then `rate` a second, to the nanosecond. Only when more callers than `capacity` are active may one be forgotten
/// early, which lets it begin anew.
///
/// ```
/// use std::time::Duration;
/// use tollgate_limit::{Quota, RateLimiter};
///
/// let limiter = RateLimiter::new(Quota::new(10, Duration::from_secs(1), 2)?, 10_000);
/// assert!(limiter.allow("alice") && limiter.allow("alice"));
/// assert!(!limiter.allow("alice") && limiter.allow("bob"));
/// # Ok::<(), tollgate_limit::InvalidQuota>(())
/// ```
pub struct RateLimiter {
    table: Table,
    hasher: KeyHasher,
    start: Instant,
}

/// There is no turn before the deadline: the caller would have waited in vain, and has not been charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLate {
    /// After this time there would be one; [`Verdict::NEVER`] when the cost is above the burst.
    pub retry: Duration,
}

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.retry == Verdict::NEVER {
            return f.write_str("the cost is larger than the limit's burst");
        }
        write!(f, "the limit lets the next request pass in {:?} only, after the deadline", self.retry)
    }
}

impl std::error::Error for TooLate {}

impl RateLimiter {
    /// A limit of `quota` for each caller, for about `capacity` of them at once.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        Self { table: Table::new(quota, capacity), hasher: KeyHasher::new(), start: Instant::now() }
    }

    /// True when a request of this caller may pass; then it has been charged.
    pub fn allow(&self, caller: &str) -> bool {
        self.check(caller, 1).allowed()
    }

    /// Charges `cost` requests if that many may pass, and tells how many are left, or how long to wait.
    pub fn check(&self, caller: &str, cost: u32) -> Verdict {
        self.table.take(self.hasher.key("").with(caller).finish(), cost, self.start.elapsed())
    }

    /// The quota of each caller.
    pub fn quota(&self) -> &Quota {
        self.table.quota()
    }

    /// Waits until a request of this caller may pass, and charges it. Whoever waits has no place in a queue: of several who
    /// wait for one bucket, each asks again when there may be something in it.
    ///
    /// # Errors
    /// There is no turn before `deadline`; it is said at once, and nothing is charged.
    #[cfg(feature = "tokio")]
    pub async fn wait(&self, caller: &str, deadline: Instant) -> Result<Verdict, TooLate> {
        loop {
            let verdict = self.check(caller, 1);
            let Some(retry) = verdict.retry else { return Ok(verdict) };
            let turn = Instant::now().checked_add(retry).filter(|turn| *turn <= deadline);
            let turn = turn.ok_or(TooLate { retry })?;
            tokio::time::sleep_until(turn.into()).await;
        }
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("quota", self.quota())
            .field("callers", &self.table.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn limiter(count: u32, burst: u32) -> RateLimiter {
        RateLimiter::new(Quota::new(count, Duration::from_secs(1), burst).unwrap(), 100)
    }

    #[test]
    fn each_caller_has_a_bucket() {
        let limiter = limiter(1, 3);
        assert_eq!((0..5).filter(|_| limiter.allow("alice")).count(), 3);
        assert!(limiter.allow("bob"));
        assert_eq!(limiter.check("bob", 2).remaining, 0);
        assert!(limiter.check("carol", 4).never());
    }

    #[cfg(feature = "tokio")]
    #[tokio::test]
    async fn waits_for_a_turn_that_comes_in_time() {
        let limiter = limiter(50, 1);
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(5);
        for _ in 0..6 {
            limiter.wait("alice", deadline).await.unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(100), "five turns of 20 ms: {:?}", begun.elapsed());
        let before = Instant::now();
        let late = limiter.wait("alice", before + Duration::from_millis(1)).await.unwrap_err();
        assert!(late.retry > Duration::from_millis(1) && before.elapsed() < Duration::from_millis(15), "{late}");
    }
}
