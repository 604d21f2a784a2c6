//! How slow a backend is: a moving average of its latency that believes bad news at once and good news slowly
//! ("peak EWMA").

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A latency estimate. Races between threads lose a sample now and then, which an average does not mind.
#[derive(Debug)]
pub struct Ewma {
    decay: Duration,
    /// Nanoseconds; 0 before the first sample.
    value: AtomicU64,
    /// When it was updated last, in nanoseconds.
    at: AtomicU64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Ewma {
    /// An estimate in which a sample has lost most of its weight after `decay`.
    pub fn new(decay: Duration) -> Self {
        Self { decay, value: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    /// Adds a sample.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a mean")]
    pub fn observe(&self, now: Duration, sample: Duration) {
        let (before, sample) = (self.value.load(Relaxed), nanos(sample).max(1));
        let at = self.at.swap(nanos(now), Relaxed);
        let after = if sample >= before {
            sample
        } else {
            let age = nanos(now).saturating_sub(at) as f64 / nanos(self.decay).max(1) as f64;
            let kept = (-age).exp();
            ((before as f64 * kept + sample as f64 * (1.0 - kept)) as u64).clamp(sample, before)
        };
        self.value.store(after, Relaxed);
    }

    /// The estimate, as far as it is of use at `now`: one that is older than `decay` says nothing any more. A backend that is
    /// avoided for it gets no requests, and so no samples: it would be avoided for ever.
    pub fn value_at(&self, now: Duration) -> Option<Duration> {
        let age = nanos(now).saturating_sub(self.at.load(Relaxed));
        self.value().filter(|_| age <= nanos(self.decay))
    }

    /// The estimate, however old; `None` before the first sample.
    pub fn value(&self) -> Option<Duration> {
        Some(self.value.load(Relaxed)).filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }
}

/// What one more request at a backend costs: how long it takes times how many stand before it, per weight.
#[expect(clippy::cast_precision_loss, reason = "a comparison")]
pub fn cost(latency: Duration, in_flight: usize, weight: usize) -> f64 {
    latency.as_secs_f64() * (in_flight + 1) as f64 / weight.max(1) as f64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn bad_news_at_once_good_news_slowly() {
        let ewma = Ewma::new(1000 * MS);
        assert_eq!(ewma.value(), None);
        ewma.observe(MS, 10 * MS);
        ewma.observe(2 * MS, 100 * MS);
        assert_eq!(ewma.value(), Some(100 * MS));
        ewma.observe(3 * MS, 10 * MS);
        assert!(ewma.value().unwrap() > 99 * MS, "one millisecond later little is forgotten");
        ewma.observe(3003 * MS, 10 * MS);
        assert!(ewma.value().unwrap() < 15 * MS, "three seconds later nearly everything");
        assert!(ewma.value_at(4003 * MS).is_some());
        assert_eq!(ewma.value_at(4004 * MS), None, "what nobody has looked at since is not known");
    }

    #[test]
    fn a_busy_fast_backend_costs_as_much_as_an_idle_slow_one() {
        assert!(cost(10 * MS, 0, 1) < cost(10 * MS, 1, 1));
        assert!((cost(10 * MS, 4, 1) - cost(50 * MS, 0, 1)).abs() < 1e-9);
        assert!(cost(10 * MS, 0, 2) < cost(10 * MS, 0, 1));
    }

    proptest! {
        #[test]
        fn lies_between_its_samples(samples in proptest::collection::vec((0u64..5000, 1u64..10_000_000), 1..100)) {
            let ewma = Ewma::new(Duration::from_secs(1));
            let mut now = Duration::ZERO;
            for (wait, sample) in &samples {
                now += Duration::from_millis(*wait);
                ewma.observe(now, Duration::from_nanos(*sample));
            }
            let value = nanos(ewma.value().unwrap());
            let (low, high) = (samples.iter().map(|s| s.1).min().unwrap(), samples.iter().map(|s| s.1).max().unwrap());
            prop_assert!((low..=high).contains(&value));
            prop_assert!(value >= samples.last().unwrap().1, "never below the last sample");
        }
    }
}
