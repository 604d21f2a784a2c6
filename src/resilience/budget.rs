//! A retry budget: retries and hedges together may be a share of the requests of the last while, and no more. Without
//! it, every client's retry adds load exactly when there is least capacity for it.

use std::time::Duration;

use parking_lot::Mutex;

use super::window::Window;

/// What a budget allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetPolicy {
    /// Retries per request.
    pub share: f64,
    /// So many are free within each window, or a quiet service could never retry.
    pub minimum: u32,
    /// The time looked back upon.
    pub window: Duration,
}

/// A retry budget.
#[derive(Debug)]
pub struct Budget {
    policy: BudgetPolicy,
    requests: Window,
    /// Under a lock, so that the look and the count are one.
    retries: Mutex<Window>,
}

impl Budget {
    /// A full budget.
    pub fn new(policy: BudgetPolicy) -> Self {
        let window = || Window::new(policy.window);
        Self { policy, requests: window(), retries: Mutex::new(window()) }
    }

    /// The rule.
    pub fn policy(&self) -> &BudgetPolicy {
        &self.policy
    }

    /// Counts a request.
    pub fn request(&self, now: Duration) {
        self.requests.add(now);
    }

    /// Takes one retry out of the budget; false when it is used up.
    pub fn try_retry(&self, now: Duration) -> bool {
        let retries = self.retries.lock();
        let allowed = self.allowed(self.requests.sum(now));
        let granted = retries.sum(now) < allowed;
        if granted {
            retries.add(now);
        }
        granted
    }

    /// Requests and retries of the last window.
    pub fn counts(&self, now: Duration) -> (u64, u64) {
        (self.requests.sum(now), self.retries.lock().sum(now))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
    fn allowed(&self, requests: u64) -> u64 {
        ((requests as f64 * self.policy.share) as u64).max(self.policy.minimum.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BudgetPolicy = BudgetPolicy { share: 0.2, minimum: 3, window: Duration::from_secs(10) };

    #[test]
    fn a_share_of_requests_and_a_few_for_free() {
        let budget = Budget::new(POLICY);
        let now = Duration::from_secs(100);
        let granted = |n: usize| (0..n).filter(|_| budget.try_retry(now)).count();
        assert_eq!(granted(10), 3, "the free ones");
        (0..100).for_each(|_| budget.request(now));
        assert_eq!(granted(100), 17, "20 in all");
        assert_eq!(budget.counts(now), (100, 20));
        assert!(budget.try_retry(now + Duration::from_secs(10)), "a new window has its own free ones");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_share(steps in proptest::collection::vec((0u64..400, any::<bool>()), 1..400)) {
            let budget = Budget::new(POLICY);
            let mut now = Duration::ZERO;
            for (wait, retry) in steps {
                now += Duration::from_millis(wait);
                if !retry {
                    budget.request(now);
                } else if budget.try_retry(now) {
                    let (requests, retries) = budget.counts(now);
                    prop_assert!(retries <= (requests / 5).max(3), "{retries} retries of {requests} requests");
                }
            }
        }
    }
}
