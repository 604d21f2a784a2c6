//! A quantile of recent latencies, such as "the 95th percentile of the last half minute": a histogram with buckets that
//! grow by a tenth, so that what it says is at most a tenth too high.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

/// The upper bound of the first bucket, in seconds.
const FIRST: f64 = 100e-6;
/// How much wider each bucket is.
const RATIO: f64 = 1.1;
/// Enough to reach 60 seconds.
const BUCKETS: usize = 141;
/// With fewer samples there is no answer.
const ENOUGH: u64 = 20;

/// Recent latencies: those of the running window and of the one before.
#[derive(Debug)]
pub struct Quantile {
    window: Duration,
    halves: [Histogram; 2],
    /// The number of the running window; its histogram is this, modulo two.
    epoch: AtomicU64,
    turning: Mutex<()>,
}

#[derive(Debug)]
struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    fn new() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the buckets")]
fn bucket(sample: Duration) -> usize {
    let steps = (sample.as_secs_f64() / FIRST).max(1.0).log(RATIO).ceil();
    (steps as usize).min(BUCKETS - 1)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a bucket's number is small")]
fn bound(bucket: usize) -> Duration {
    Duration::from_secs_f64(FIRST * RATIO.powi(bucket as i32))
}

impl Quantile {
    /// A histogram over one to two times `window`.
    pub fn new(window: Duration) -> Self {
        let halves = [Histogram::new(), Histogram::new()];
        Self { window: window.max(Duration::from_millis(1)), halves, epoch: AtomicU64::new(0), turning: Mutex::new(()) }
    }

    /// Adds a sample.
    pub fn observe(&self, now: Duration, sample: Duration) {
        let epoch = self.turn(now);
        self.half(epoch).0[bucket(sample)].fetch_add(1, Relaxed);
    }

    /// The latency that a share `q` of recent samples did not exceed; `None` while there are too few.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
    pub fn value(&self, now: Duration, q: f64) -> Option<Duration> {
        self.turn(now);
        let count = |i: usize| self.halves.iter().map(|half| half.0[i].load(Relaxed)).sum::<u64>();
        let all: u64 = (0..BUCKETS).map(count).sum();
        let rank = ((all as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        let found = (0..BUCKETS).find(|i| {
            seen += count(*i);
            seen >= rank
        });
        found.filter(|_| all >= ENOUGH).map(bound)
    }

    fn half(&self, epoch: u64) -> &Histogram {
        &self.halves[usize::from(!epoch.is_multiple_of(2))]
    }

    /// Begins a new window when it is time: the older half is emptied.
    fn turn(&self, now: Duration) -> u64 {
        let wanted = u64::try_from(now.as_nanos() / self.window.as_nanos()).unwrap_or(u64::MAX);
        let held = self.epoch.load(Relaxed);
        if wanted <= held {
            return held;
        }
        let _turning = self.turning.lock();
        let held = self.epoch.load(Relaxed);
        if wanted <= held {
            return held;
        }
        let stale = if wanted - held > 1 { 2 } else { 1 };
        (0..stale).for_each(|back| self.half(wanted - back).0.iter().for_each(|count| count.store(0, Relaxed)));
        self.epoch.store(wanted, Relaxed);
        wanted
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn needs_samples_and_forgets_old_ones() {
        let quantile = Quantile::new(1000 * MS);
        (0..19).for_each(|_| quantile.observe(MS, 10 * MS));
        assert_eq!(quantile.value(MS, 0.95), None);
        quantile.observe(MS, 10 * MS);
        let value = quantile.value(1500 * MS, 0.95).unwrap();
        assert!((10 * MS..=11 * MS).contains(&value), "{value:?}");
        assert_eq!(quantile.value(2000 * MS, 0.95), None, "two windows later all is forgotten");
    }

    proptest! {
        #[test]
        fn is_at_most_a_tenth_too_high(mut samples in proptest::collection::vec(100u64..50_000_000, 20..300), q in 0.01f64..1.0) {
            let quantile = Quantile::new(Duration::from_secs(10));
            for micros in &samples {
                quantile.observe(MS, Duration::from_micros(*micros));
            }
            samples.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
            let rank = (samples.len() as f64 * q).ceil() as usize;
            let truth = Duration::from_micros(samples[rank.max(1) - 1]).as_secs_f64();
            let value = quantile.value(MS, q).unwrap().as_secs_f64();
            prop_assert!(value >= truth * 0.999 && value <= truth * RATIO * 1.001, "{value} for {truth}");
        }
    }
}
