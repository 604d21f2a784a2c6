//! Outlier ejection: a backend that fails several times in a row is passed over for a while, a longer one each time.
//! Never too many of them, or those that are left would break too.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// When a backend is ejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EjectionPolicy {
    /// Failures in a row; 0 is never.
    pub consecutive: u32,
    /// How long the first time, and how much longer each further time.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
    /// Never more of the backends than this; of two or more, one may always go.
    pub share: f64,
}

impl EjectionPolicy {
    /// True when one more of `backends` may go while `ejected` are away.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
    fn allows(&self, ejected: usize, backends: usize) -> bool {
        let most = ((backends as f64 * self.share) as usize).max(1).min(backends.saturating_sub(1));
        self.share > 0.0 && ejected < most
    }
}

/// One backend's record.
#[derive(Debug, Default)]
pub struct Health {
    row: AtomicU32,
    /// The end of the last ejection, in nanoseconds.
    until: AtomicU64,
    /// It has been ejected, and that it is back has not been told.
    away: AtomicBool,
    /// How often it has been ejected, less what good conduct has taken off.
    times: AtomicU32,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Health {
    /// A spotless record.
    pub fn new() -> Self {
        Self::default()
    }

    /// True while it is to be passed over.
    pub fn ejected(&self, now: Duration) -> bool {
        self.until.load(Relaxed) > nanos(now)
    }

    /// The end of the last ejection; 0 when there was none.
    pub fn until(&self) -> Duration {
        Duration::from_nanos(self.until.load(Relaxed))
    }

    /// True once after each ejection that is over.
    pub fn has_come_back(&self, now: Duration) -> bool {
        self.away.load(Relaxed) && !self.ejected(now) && self.away.swap(false, Relaxed)
    }

    /// Notes a result. Answers for how long the backend is ejected, if this is the call that ejects it. `ejected` of all
    /// `backends` are away now.
    pub fn record(
        &self,
        policy: &EjectionPolicy,
        now: Duration,
        ok: bool,
        ejected: usize,
        backends: usize,
    ) -> Option<Duration> {
        if ok {
            if self.row.load(Relaxed) != 0 {
                self.row.store(0, Relaxed);
            }
            return None;
        }
        let row = self.row.fetch_add(1, Relaxed) + 1;
        if policy.consecutive == 0 || row < policy.consecutive || !policy.allows(ejected, backends) {
            return None;
        }
        let until = self.until.load(Relaxed);
        if until > nanos(now) {
            return None;
        }
        let good = if until == 0 { 0 } else { (nanos(now) - until) / nanos(policy.base).max(1) };
        let before = self.times.load(Relaxed).saturating_sub(u32::try_from(good).unwrap_or(u32::MAX));
        let span = policy.base.saturating_mul(before + 1).min(policy.max);
        // Of several threads that get here, one ejects.
        self.until.compare_exchange(until, nanos(now.saturating_add(span)), Relaxed, Relaxed).ok()?;
        self.times.store(before + 1, Relaxed);
        self.away.store(true, Relaxed);
        self.row.store(0, Relaxed);
        Some(span)
    }

    /// Takes the backend back at once, because something else has shown that it is well.
    pub fn restore(&self) {
        self.row.store(0, Relaxed);
        self.until.store(0, Relaxed);
        self.away.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const POLICY: EjectionPolicy = EjectionPolicy { consecutive: 3, base: S, max: Duration::from_secs(5), share: 0.5 };

    fn fail(health: &Health, now: Duration, ejected: usize, of: usize) -> Option<Duration> {
        (0..3).find_map(|_| health.record(&POLICY, now, false, ejected, of))
    }

    #[test]
    fn a_row_of_failures_ejects_and_a_success_breaks_the_row() {
        let health = Health::new();
        for ok in [false, false, true, false, false] {
            assert_eq!(health.record(&POLICY, S, ok, 0, 2), None);
        }
        assert_eq!(health.record(&POLICY, S, false, 0, 2), Some(S));
        assert!(health.ejected(S) && !health.ejected(2 * S));
        health.restore();
        assert!(!health.ejected(S));
    }

    #[test]
    fn every_further_time_is_longer_and_good_conduct_counts() {
        let health = Health::new();
        assert_eq!(fail(&health, S, 0, 2), Some(S));
        assert_eq!(fail(&health, 2 * S, 0, 2), Some(2 * S));
        assert_eq!(fail(&health, 4 * S, 0, 2), Some(3 * S));
        assert_eq!(fail(&health, 7 * S, 0, 2), Some(4 * S));
        assert_eq!(fail(&health, 11 * S, 0, 2), Some(5 * S));
        assert_eq!(fail(&health, 16 * S, 0, 2), Some(5 * S), "the longest");
        assert_eq!(fail(&health, 24 * S, 0, 2), Some(4 * S), "three good bases have passed");
    }

    #[test]
    fn never_the_only_one_nor_too_many() {
        assert_eq!(fail(&Health::new(), S, 0, 1), None);
        assert_eq!(fail(&Health::new(), S, 1, 2), None);
        assert_eq!(fail(&Health::new(), S, 1, 4), Some(S));
        assert_eq!(fail(&Health::new(), S, 2, 4), None);
        let none = EjectionPolicy { share: 0.0, ..POLICY };
        let health = Health::new();
        assert_eq!((0..9).find_map(|_| health.record(&none, S, false, 0, 4)), None);
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_is_away(
            backends in 1usize..12,
            share in 0.0f64..=1.0,
            steps in proptest::collection::vec((0u64..300, 0usize..12, any::<bool>()), 1..400),
        ) {
            let policy = EjectionPolicy { share, ..POLICY };
            let all: Vec<Health> = (0..backends).map(|_| Health::new()).collect();
            let mut now = Duration::ZERO;
            for (wait, which, ok) in steps {
                now += Duration::from_millis(wait);
                let away = || all.iter().filter(|health| health.ejected(now)).count();
                all[which % backends].record(&policy, now, ok, away(), backends);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
                let most = ((share * backends as f64) as usize).max(1).min(backends - 1);
                prop_assert!(away() <= most, "{} of {backends}", away());
            }
        }
    }
}
