//! The token bucket as one number per client (GCRA, the generic cell rate algorithm).
//!
//! A bucket of `burst` tokens that refills at `count / per` is fully described by the instant at which it will be full again, the
//! *theoretical arrival time*. A request pushes that instant into the future; it is refused when the instant would lie further
//! away than a whole bucket takes to fill. One `u64` of state can be changed by one compare-and-swap, which is why the table can
//! do without locks.
//!
//! The usual trap is precision: three per second is a token every 333,333,333.3 ns, and rounding that lets the rate drift. Here
//! a token is a whole number of *ticks* and the length of a tick (roughly a nanosecond) is chosen so that this is exact; what is
//! rounded is each reading of the clock, by less than a tick, and such errors do not add up.
//!
//! It does not do fixed windows ("1,000 per calendar day"), and it holds no state itself.

use std::{fmt, time::Duration};

use super::policy::Arithmetic;

/// Binary places of the factors between nanoseconds and ticks: an error of 1 ns in 36 years.
const SCALE: u32 = 60;
/// Longest "time since start" in nanoseconds (36 years); later instants count as this one, so that no sum can wrap.
const HORIZON: u64 = 1 << 60;
/// Most ticks in a whole bucket (over a century), for the same reason.
const LONGEST: u64 = 1 << 62;
/// Most tokens a second; above it a token would be shorter than any clock can tell.
const FASTEST: u128 = 1 << 32;

/// How much is allowed: `count` per `per` in the long run, and at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    count: u32,
    per: Duration,
    burst: u32,
    /// Ticks that one token takes to come back.
    token: u64,
    /// Ticks that the whole bucket takes to fill: `burst` times `token`.
    full: u64,
    /// Ticks in a nanosecond, with `SCALE` binary places, rounded down.
    ticks: u64,
    /// Nanoseconds in a tick, with `SCALE` binary places, rounded up: a wait is never told too short.
    nanos: u64,
}

/// Why a quota cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidQuota {
    /// A count of zero allows nothing.
    NoCount,
    /// A burst of zero can never hold a token.
    NoBurst,
    /// The period is zero.
    NoPeriod,
    /// More than 4,294,967,296 a second.
    TooFast,
    /// An empty bucket would take more than about 130 years to fill.
    TooSlow,
    /// More than a sliding window of this length can count.
    TooMany,
}

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCount => "the count must be at least 1",
            Self::NoBurst => "the burst must be at least 1",
            Self::NoPeriod => "the period must be longer than zero",
            Self::TooFast => "the rate must not exceed 4294967296 a second",
            Self::TooSlow => "the burst would take more than a century to refill",
            Self::TooMany => "a sliding window cannot count so many: at most 131071 in a second, 524287 in a minute, 4194303 in an hour",
        })
    }
}

impl std::error::Error for InvalidQuota {}

impl Quota {
    /// Allows `count` per `per` on average, and `burst` at once after a pause.
    pub fn new(count: u32, per: Duration, burst: u32) -> Result<Self, InvalidQuota> {
        if count == 0 {
            return Err(InvalidQuota::NoCount);
        }
        if burst == 0 {
            return Err(InvalidQuota::NoBurst);
        }
        if per.is_zero() {
            return Err(InvalidQuota::NoPeriod);
        }
        let (tokens, period) = (u128::from(count), per.as_nanos());
        if period > u128::from(u64::MAX) {
            return Err(InvalidQuota::TooSlow);
        }
        if tokens * 1_000_000_000 > FASTEST * period {
            return Err(InvalidQuota::TooFast);
        }
        // As many ticks to a token as it has nanoseconds, rounded; then the tick that makes this number exact. Where nothing had
        // to be rounded, a tick is a nanosecond.
        let token = ((period + tokens / 2) / tokens).max(1);
        let full = token * u128::from(burst);
        if full > u128::from(LONGEST) || token * tokens > u128::from(u64::MAX) {
            return Err(InvalidQuota::TooSlow);
        }
        let ticks = ((token * tokens) << SCALE) / period;
        let nanos = (1u128 << (2 * SCALE)).div_ceil(ticks);
        let narrow = |wide: u128| u64::try_from(wide).map_err(|_| InvalidQuota::TooFast);
        Ok(Self {
            count,
            per,
            burst,
            token: narrow(token)?,
            full: narrow(full)?,
            ticks: narrow(ticks)?,
            nanos: narrow(nanos)?,
        })
    }

    /// How many are allowed per [`period`](Self::per), in the long run.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The period that [`count`](Self::count) refers to.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// How many are allowed at once: the size of the bucket.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How long an empty bucket takes to fill.
    pub fn refill(&self) -> Duration {
        self.duration(self.full)
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most HORIZON * 2^63 >> SCALE, which is below 2^63")]
    #[inline]
    fn ticks_at(&self, now: Duration) -> u64 {
        let nanos =
            now.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(now.subsec_nanos())).min(HORIZON);
        ((u128::from(nanos) * u128::from(self.ticks)) >> SCALE) as u64
    }

    #[inline]
    fn duration(&self, ticks: u64) -> Duration {
        let nanos = (u128::from(ticks) * u128::from(self.nanos)).div_ceil(1 << SCALE);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A decision, in ticks.
#[derive(Clone, Copy)]
pub struct Step {
    /// Until the bucket is full, after the decision.
    missing: u64,
    /// The new state, if it changes.
    next: Option<u64>,
    /// How long to wait, if refused; `u64::MAX` is for ever.
    wait: Option<u64>,
}

impl super::Policy for Quota {}

impl Arithmetic for Quota {
    type Step = Step;

    #[inline]
    fn clock(moment: super::Moment) -> Duration {
        moment.since_start
    }

    #[inline]
    fn instant(&self, now: Duration) -> u64 {
        self.ticks_at(now)
    }

    // A bucket that is full now.
    #[inline]
    fn unused(&self, now: u64) -> u64 {
        now
    }

    /// The decision alone, in ticks: what the table needs before its swap, and nothing that can wait until after it. Only the
    /// first `most` tokens of the bucket may be used.
    #[inline]
    fn step(&self, tat: u64, now: u64, cost: u32, most: u32) -> Step {
        let most = most.min(self.burst);
        let missing = tat.saturating_sub(now);
        if cost == 0 {
            return Step { missing, next: None, wait: None };
        }
        if cost > most {
            return Step { missing, next: None, wait: Some(u64::MAX) };
        }
        // The products are at most `full`; the sum saturates only for a state that another quota made, and is then refused.
        let (after, room) = (missing.saturating_add(u64::from(cost) * self.token), u64::from(most) * self.token);
        if after > room {
            return Step { missing, next: None, wait: Some(after - room) };
        }
        Step { missing: after, next: Some(now + after), wait: None }
    }

    /// The decision in the words of the caller.
    #[inline]
    fn verdict(&self, step: Step) -> Verdict {
        Verdict {
            limit: self.burst,
            remaining: u32::try_from(self.full.saturating_sub(step.missing) / self.token).unwrap_or(self.burst),
            reset: self.duration(step.missing),
            retry: step.wait.map(|wait| if wait == u64::MAX { Verdict::NEVER } else { self.duration(wait) }),
        }
    }

    #[inline]
    fn next(step: Step) -> Option<u64> {
        step.next
    }

    #[inline]
    fn most(&self) -> u32 {
        self.burst
    }
}

/// When a bucket will be full again, on the clock of the quota that made it; the whole state of one client.
///
/// The default is a bucket that is full already. It means nothing to another quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tat(u64);

/// What a limiter answers, whether the request passes or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The size of the bucket; `remaining` never exceeds it.
    pub limit: u32,
    /// Whole tokens left after this request.
    pub remaining: u32,
    /// Time until the bucket is full again, if nothing more is taken.
    pub reset: Duration,
    /// `None`: pass. `Some`: refuse; the same request would pass after this time, or never when it is [`Verdict::NEVER`].
    pub retry: Option<Duration>,
}

impl Verdict {
    /// The `retry` of a request that costs more than the bucket holds: waiting will not help.
    pub const NEVER: Duration = Duration::MAX;

    /// Whether the request may pass.
    pub fn allowed(&self) -> bool {
        self.retry.is_none()
    }

    /// Whether the same request would be refused for ever.
    pub fn never(&self) -> bool {
        self.retry == Some(Self::NEVER)
    }
}

/// Decides one request of `cost` tokens against a bucket, and says what the bucket becomes.
///
/// `None` as the new state means "unchanged": the request was refused, or it cost nothing. A cost of zero only looks, and always
/// passes. `now` may step back (another thread read the clock earlier): that gives nothing away, the missing time is waited for again.
pub fn decide(quota: &Quota, tat: Tat, now: Duration, cost: u32) -> (Verdict, Option<Tat>) {
    let step = quota.step(tat.0, quota.instant(now), cost, quota.burst);
    (quota.verdict(step), step.next.map(Tat))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quota(count: u32, per: Duration, burst: u32) -> Quota {
        Quota::new(count, per, burst).unwrap()
    }

    /// How many of cost 1 pass when asked at every step from `start` to `end`.
    fn passes(quota: &Quota, tat: &mut Tat, start: Duration, end: Duration, step: Duration) -> u32 {
        let (mut now, mut passed) = (start, 0);
        while now < end {
            if let (_, Some(next)) = decide(quota, *tat, now, 1) {
                *tat = next;
                passed += 1;
            }
            now += step;
        }
        passed
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let quota = quota(10, SECOND, 4);
        let mut tat = Tat::default();
        assert_eq!(passes(&quota, &mut tat, Duration::ZERO, Duration::from_nanos(9), Duration::from_nanos(1)), 4);
        assert_eq!(passes(&quota, &mut tat, Duration::from_millis(1), SECOND, Duration::from_millis(1)), 9);
        assert_eq!(passes(&quota, &mut tat, SECOND, 11 * SECOND, Duration::from_millis(1)), 100);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        // A day of three a second; an interval cut to whole nanoseconds would be 1e-9 off, these must not be off at all.
        for (count, per) in
            [(3, SECOND), (7, SECOND), (7_000_000, SECOND), (999_983, SECOND), (7, Duration::from_secs(3600))]
        {
            let quota = quota(count, per, 1);
            let mut tat = Tat::default();
            let tokens = 100_000u32;
            for _ in 0..tokens {
                let now = quota.duration(tat.0);
                tat = decide(&quota, tat, now, 1).1.unwrap();
            }
            let exact = per.as_nanos() * u128::from(tokens) / u128::from(count);
            let ours = quota.duration(tat.0).as_nanos();
            // Only the readings of the clock in this loop may add up, by a tick each; the interval itself adds nothing.
            assert!(ours.abs_diff(exact) <= 2 * u128::from(tokens), "{count} per {per:?}: {ours} instead of {exact}");
            assert!(
                quota.duration(u64::from(tokens) * quota.token).as_nanos().abs_diff(exact) <= 2,
                "{count} per {per:?}"
            );
        }
    }

    #[test]
    fn a_verdict_tells_what_is_left_and_when_it_is_back() {
        let quota = quota(10, SECOND, 5);
        let (verdict, tat) = decide(&quota, Tat::default(), SECOND, 2);
        assert_eq!((verdict.limit, verdict.remaining, verdict.retry), (5, 3, None));
        assert_eq!(verdict.reset.as_millis(), 200);
        let (verdict, unchanged) = decide(&quota, tat.unwrap(), SECOND, 4);
        assert_eq!((verdict.remaining, unchanged), (3, None));
        assert_eq!(verdict.retry.unwrap().as_millis(), 100);
    }

    #[test]
    fn a_cost_of_zero_only_looks() {
        let quota = quota(1, SECOND, 1);
        let spent = decide(&quota, Tat::default(), Duration::ZERO, 1).1.unwrap();
        let (verdict, next) = decide(&quota, spent, Duration::ZERO, 0);
        assert_eq!((verdict.remaining, verdict.retry, next), (0, None, None));
    }

    #[test]
    fn more_than_the_bucket_never_passes() {
        let (verdict, next) = decide(&quota(1, SECOND, 3), Tat::default(), SECOND, 4);
        assert!(verdict.never() && !verdict.allowed() && next.is_none());
        assert_eq!(verdict.remaining, 3);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let quota = quota(1, SECOND, 1);
        let spent = decide(&quota, Tat::default(), 10 * SECOND, 1).1.unwrap();
        let (verdict, next) = decide(&quota, spent, SECOND, 1);
        assert_eq!((verdict.remaining, next), (0, None));
        assert!(verdict.retry.unwrap() >= 10 * SECOND);
    }

    #[test]
    fn quotas_that_make_no_sense_are_refused() {
        let year = Duration::from_secs(31_536_000);
        assert_eq!(Quota::new(0, SECOND, 1), Err(InvalidQuota::NoCount));
        assert_eq!(Quota::new(1, SECOND, 0), Err(InvalidQuota::NoBurst));
        assert_eq!(Quota::new(1, Duration::ZERO, 1), Err(InvalidQuota::NoPeriod));
        assert_eq!(Quota::new(u32::MAX, Duration::from_millis(1), 1), Err(InvalidQuota::TooFast));
        assert_eq!(Quota::new(1, year, 1000), Err(InvalidQuota::TooSlow));
        assert_eq!(Quota::new(1, Duration::MAX, 1), Err(InvalidQuota::TooSlow));
        assert!(Quota::new(u32::MAX, SECOND, u32::MAX).is_ok());
        assert!(Quota::new(1, year, 100).is_ok());
    }

    /// A bucket in exact fractions: `level` counts tokens in units of 1/`per` nanoseconds.
    struct Model {
        quota: Quota,
        level: i128,
        seen: i128,
    }

    impl Model {
        /// The level at `now`, before taking anything.
        fn level(&self, now: i128) -> i128 {
            let full = i128::from(self.quota.burst) * self.per();
            (self.level + (now - self.seen) * i128::from(self.quota.count)).min(full)
        }

        fn per(&self) -> i128 {
            i128::try_from(self.quota.per.as_nanos()).unwrap()
        }
    }

    proptest! {
        #[test]
        fn agrees_with_exact_fractions(
            count in 1u32..5_000_000, micros in 1_000u64..10_000_000, burst in 1u32..50,
            steps in prop::collection::vec((0u64..3_000, 1u32..6), 1..200),
        ) {
            let quota = quota(count, Duration::from_micros(micros), burst);
            let mut model = Model { quota, level: i128::from(burst) * i128::from(micros) * 1_000, seen: 0 };
            let (mut tat, mut now) = (Tat::default(), 0u64);
            // Steps of a third of a token on average, so that both answers are common.
            let unit = (micros * 1_000 / u64::from(count) / 1_000).max(1);
            for (step, cost) in steps {
                now += step * unit / 3;
                let (verdict, next) = decide(&quota, tat, Duration::from_nanos(now), cost);
                let level = model.level(i128::from(now));
                let spare = level - i128::from(cost) * model.per();
                // Two ticks of clock rounding (the reading, and the one the state began with), and no more for any history.
                if spare.abs() > 4 * i128::from(count) {
                    prop_assert_eq!(verdict.allowed(), spare >= 0, "spare {} at {}", spare, now);
                }
                if verdict.allowed() {
                    model.level = spare;
                    model.seen = i128::from(now);
                }
                if let Some(wait) = verdict.retry.filter(|_| !verdict.never()) {
                    let again = Duration::from_nanos(now) + wait;
                    prop_assert!(decide(&quota, tat, again, cost).0.allowed(), "told to wait too short");
                    let early = again.saturating_sub(Duration::from_nanos(10));
                    prop_assert!(wait < Duration::from_nanos(10) || !decide(&quota, tat, early, cost).0.allowed(), "told to wait too long");
                }
                prop_assert!(verdict.remaining <= verdict.limit);
                tat = next.unwrap_or(tat);
                prop_assert_eq!(decide(&quota, tat, Duration::from_nanos(now) + verdict.reset, 0).0.remaining, burst);
            }
        }

        #[test]
        fn never_panics(count: u32, secs: u64, nanos in 0u32..1_000_000_000, burst: u32, now: u64, later: u64, cost: u32) {
            if let Ok(quota) = Quota::new(count, Duration::new(secs, nanos), burst) {
                let (_, tat) = decide(&quota, Tat::default(), Duration::from_nanos(now), cost);
                decide(&quota, tat.unwrap_or_default(), Duration::from_nanos(later), cost);
                decide(&quota, tat.unwrap_or_default(), Duration::MAX, burst);
            }
        }
    }
}
