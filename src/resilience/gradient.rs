//! A limit on concurrency that follows the latency (after Netflix's "gradient"): while answers are as fast as ever the
//! limit grows; when they get slower than usual by more than a tolerance, it shrinks in proportion.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

/// How a limit may move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientPolicy {
    /// The lowest limit.
    pub minimum: u32,
    /// The highest limit.
    pub maximum: u32,
    /// The limit to begin with.
    pub initial: u32,
    /// How many times the usual latency is still as usual; 1.5 lets it grow by half.
    pub tolerance: f64,
}

/// How fast the usual latency follows what is seen: a few hundred samples.
const MEMORY: f64 = 0.005;
/// How much of a new limit is taken over at once.
const SMOOTHING: f64 = 0.2;
/// What a failed request takes off.
const BACK_OFF: f64 = 0.9;

/// A limit that follows the latency.
#[derive(Debug)]
pub struct Gradient {
    policy: GradientPolicy,
    limit: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: f64,
    /// Seconds; 0 before the first sample.
    usual: f64,
}

impl Gradient {
    /// A limit at its beginning.
    pub fn new(policy: GradientPolicy) -> Self {
        // Not `clamp`, which panics at bounds that the configuration's own check is about to refuse.
        let limit = policy.initial.min(policy.maximum).max(policy.minimum);
        let inner = Mutex::new(Inner { limit: f64::from(limit), usual: 0.0 });
        Self { policy, limit: AtomicU32::new(limit), inner }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Notes a request that ended while `in_flight` were under way. Answers the new limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the policy's bounds")]
    pub fn observe(&self, latency: Duration, in_flight: u32, failed: bool) -> u32 {
        let mut inner = self.inner.lock();
        let sample = latency.as_secs_f64().max(1e-6);
        let (low, high) = (f64::from(self.policy.minimum), f64::from(self.policy.maximum));
        let wanted = if failed {
            inner.limit * BACK_OFF
        } else {
            // Better than usual is believed sooner: a usual latency that grew in a bad hour must not stay.
            let memory = if sample < inner.usual { MEMORY * 4.0 } else { MEMORY };
            inner.usual = if inner.usual == 0.0 { sample } else { inner.usual + (sample - inner.usual) * memory };
            // A limit that is not used shows nothing about itself.
            if f64::from(in_flight) * 2.0 < inner.limit {
                return self.limit();
            }
            let gradient = (self.policy.tolerance * inner.usual / sample).clamp(0.5, 1.0);
            let wanted = inner.limit * gradient + inner.limit.sqrt() * f64::from(u8::from(gradient >= 1.0));
            inner.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING
        };
        inner.limit = wanted.clamp(low, high);
        let limit = (inner.limit.round() as u32).clamp(self.policy.minimum, self.policy.maximum);
        self.limit.store(limit, Relaxed);
        limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const POLICY: GradientPolicy = GradientPolicy { minimum: 5, maximum: 200, initial: 20, tolerance: 1.5 };

    #[test]
    fn grows_while_answers_are_as_fast_as_ever_and_shrinks_when_they_are_not() {
        let gradient = Gradient::new(POLICY);
        for _ in 0..200 {
            gradient.observe(10 * MS, gradient.limit(), false);
        }
        let grown = gradient.limit();
        assert!(grown > 40, "{grown}");
        for _ in 0..30 {
            gradient.observe(60 * MS, gradient.limit(), false);
        }
        assert!(gradient.limit() < grown / 2, "{} after {grown}", gradient.limit());
    }

    #[test]
    fn an_idle_service_says_nothing_and_failures_shrink_it() {
        let gradient = Gradient::new(POLICY);
        for _ in 0..100 {
            gradient.observe(10 * MS, 1, false);
        }
        assert_eq!(gradient.limit(), 20);
        assert_eq!(gradient.observe(10 * MS, 1, true), 18);
        for _ in 0..100 {
            gradient.observe(10 * MS, 1, true);
        }
        assert_eq!(gradient.limit(), 5);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(steps in proptest::collection::vec((1u64..1_000_000, 0u32..500, any::<bool>()), 1..300)) {
            let gradient = Gradient::new(POLICY);
            for (micros, in_flight, failed) in steps {
                let limit = gradient.observe(Duration::from_micros(micros), in_flight, failed);
                prop_assert!((5..=200).contains(&limit) && limit == gradient.limit());
            }
        }
    }
}
