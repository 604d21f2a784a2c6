//! A sliding window by two counters: what passed in this window, and so much of what passed in the one before as would still
//! be in sight had it been spread evenly.
//!
//! `previous * (1 - elapsed) + current` must not exceed the limit. Windows follow one another without a gap, all of one length. A
//! refused request is not counted.
//!
//! # Its error
//!
//! In each window never more passes than the limit. In a stretch of the same length that lies across two of them less than
//! twice the limit can pass, if all of the first window's requests came at its very end; a token bucket with a burst as large as its rate
//! passes as much. Even traffic is counted without error.

use std::time::Duration;

use super::{InvalidQuota, Verdict, policy::Arithmetic};

/// Longest time since start in nanoseconds (18 years); later instants count as this one.
const HORIZON: u64 = 1 << 59;

/// `count` in any window of `per`, by the sliding-window counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    count: u32,
    /// Nanoseconds in a window.
    window: u64,
    /// Bits of one counter: as many as `count` needs. The state is the window's number, its count, and that of the one before.
    bits: u32,
}

impl SlidingWindow {
    /// Allows `count` in any window of `per`.
    ///
    /// # Errors
    /// Two counts and the number of a window must fit in 64 bits: windows of a second hold at most 131,071, of a day 33 million.
    pub fn new(count: u32, per: Duration) -> Result<Self, InvalidQuota> {
        if count == 0 {
            return Err(InvalidQuota::NoCount);
        }
        let window = u64::try_from(per.as_nanos()).map_err(|_| InvalidQuota::TooSlow)?;
        if window == 0 {
            return Err(InvalidQuota::NoPeriod);
        }
        let bits = u32::BITS - count.leading_zeros();
        if (HORIZON / window) >> (u64::BITS - 2 * bits) != 0 || bits >= 32 {
            return Err(InvalidQuota::TooMany);
        }
        Ok(Self { count, window, bits })
    }

    /// How many are allowed in a window.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The length of a window.
    pub fn per(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// What a client has used: `previous` in the window before, `current` in this one, which began `elapsed` ago.
    pub fn seen(&self, previous: u32, current: u32, elapsed: Duration) -> WindowView {
        let into = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).min(self.window);
        WindowView { count: self.count, window: self.window, previous: previous.into(), current: current.into(), into }
    }

    /// What the state of a key holds (see [`Table::state`](super::Table::state)): the number of a window since the table's start,
    /// what passed in it, and in the one before.
    pub fn read(&self, state: u64) -> (u64, u64, u64) {
        let mask = (1 << self.bits) - 1;
        (state >> (2 * self.bits), state >> self.bits & mask, state & mask)
    }

    fn view(&self, state: u64, now: u64) -> (u64, WindowView) {
        let (number, into) = (now / self.window, now % self.window);
        let (of, current, previous) = self.read(state);
        let view =
            |previous, current, into| WindowView { count: self.count, window: self.window, previous, current, into };
        match of {
            // Another thread read the clock later: its window has just begun.
            _ if of > number => (of, view(previous, current, 0)),
            _ if of == number => (number, view(previous, current, into)),
            _ if of + 1 == number => (number, view(current, 0, into)),
            _ => (number, view(0, 0, into)),
        }
    }
}

/// What one client has used of a [`SlidingWindow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowView {
    count: u32,
    window: u64,
    previous: u64,
    current: u64,
    /// Nanoseconds since the window began.
    into: u64,
}

impl WindowView {
    /// What counts, in parts of a request: `window` of them are one.
    fn used(&self) -> u128 {
        let still = u128::from(self.previous) * u128::from(self.window - self.into);
        still + u128::from(self.current) * u128::from(self.window)
    }

    /// Whether `cost` more pass, while no more than `most` may be used.
    fn passes(&self, cost: u32, most: u32) -> bool {
        self.used() + u128::from(cost) * u128::from(self.window) <= u128::from(most) * u128::from(self.window)
    }

    /// How much of `previous` must have passed out of sight before no more than `room` of it counts.
    fn until(&self, previous: u64, room: u64) -> u64 {
        if previous <= room {
            return 0;
        }
        let in_sight = u128::from(room) * u128::from(self.window) / u128::from(previous);
        self.window - u64::try_from(in_sight).unwrap_or(self.window)
    }

    /// How long to wait until `cost` more pass, which do not now.
    fn wait(&self, cost: u32, most: u32) -> u64 {
        let room = u64::from(most.saturating_sub(cost));
        match room.checked_sub(self.current) {
            Some(room) => self.until(self.previous, room).saturating_sub(self.into).max(1),
            None => self.window - self.into + self.until(self.current, room),
        }
    }

    /// The words for it. `retry`: after this time a refused request would pass.
    pub fn verdict(&self, retry: Option<Duration>) -> Verdict {
        let used = self.used().div_ceil(u128::from(self.window));
        let reset = match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => self.window - self.into,
            _ => 2 * self.window - self.into,
        };
        let remaining = u32::try_from(u128::from(self.count).saturating_sub(used)).unwrap_or(0);
        Verdict { limit: self.count, remaining, reset: Duration::from_nanos(reset), retry }
    }
}

/// A decision.
#[derive(Clone, Copy)]
pub struct WindowStep {
    /// After it.
    view: WindowView,
    next: Option<u64>,
    /// How long to wait, if refused; `u64::MAX` is for ever.
    wait: Option<u64>,
}

impl super::Policy for SlidingWindow {}

impl Arithmetic for SlidingWindow {
    type Step = WindowStep;

    fn clock(moment: super::Moment) -> Duration {
        moment.since_start
    }

    fn instant(&self, now: Duration) -> u64 {
        now.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(now.subsec_nanos())).min(HORIZON)
    }

    fn unused(&self, now: u64) -> u64 {
        (now / self.window).saturating_sub(1) << (2 * self.bits)
    }

    fn step(&self, state: u64, now: u64, cost: u32, most: u32) -> WindowStep {
        let (number, mut view) = self.view(state, now);
        let most = most.min(self.count);
        if cost == 0 {
            return WindowStep { view, next: None, wait: None };
        }
        if cost > most {
            return WindowStep { view, next: None, wait: Some(u64::MAX) };
        }
        if !view.passes(cost, most) {
            let mut wait = view.wait(cost, most);
            if number > now / self.window {
                wait = wait.saturating_add(number * self.window - now);
            }
            return WindowStep { view, next: None, wait: Some(wait) };
        }
        // At most `count`, hence within its bits.
        view.current += u64::from(cost);
        let next = number << (2 * self.bits) | view.current << self.bits | view.previous;
        WindowStep { view, next: Some(next), wait: None }
    }

    fn next(step: WindowStep) -> Option<u64> {
        step.next
    }

    fn verdict(&self, step: WindowStep) -> Verdict {
        let retry = |wait| if wait == u64::MAX { Verdict::NEVER } else { Duration::from_nanos(wait) };
        step.view.verdict(step.wait.map(retry))
    }

    fn most(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::Table;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(count: u32) -> Table<SlidingWindow> {
        Table::new(SlidingWindow::new(count, SECOND).unwrap(), 100)
    }

    #[test]
    fn what_passed_before_goes_out_of_sight_evenly() {
        let table = table(10);
        let passed = |millis| (0..20).filter(|_| table.take(1, 1, Duration::from_millis(millis)).allowed()).count();
        assert_eq!(passed(1_900), 10);
        // A fifth of the second window: 8 of the 10 still count.
        assert_eq!((passed(2_000), passed(2_200), passed(2_300), passed(2_999)), (0, 2, 1, 6));
        assert_eq!(passed(9_000), 10);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_refusal_says_when_the_same_would_pass() {
        let table = table(10);
        for (at, cost) in [(1_900, 10), (2_250, 2)] {
            assert!(table.take(1, cost, Duration::from_millis(at)).allowed());
        }
        let now = Duration::from_millis(2_250);
        for cost in 1..=10 {
            let refused = table.take(1, cost, now);
            let wait = refused.retry.unwrap();
            let (_, before) = probe(&table, cost, (now + wait).saturating_sub(Duration::from_nanos(2)));
            let (_, after) = probe(&table, cost, now + wait);
            assert!(!before && after, "{cost}: {wait:?}");
        }
        assert!(table.take(1, 11, now).never());
        let looked = table.take(1, 0, now);
        assert_eq!((looked.limit, looked.remaining, looked.reset.as_millis()), (10, 0, 1_750));
    }

    /// Whether it would pass, of another table with the same past.
    fn probe(_: &Table<SlidingWindow>, cost: u32, now: Duration) -> (u32, bool) {
        let table = table(10);
        table.take(1, 10, Duration::from_millis(1_900));
        table.take(1, 2, Duration::from_millis(2_250));
        (cost, table.take(1, cost, now).allowed())
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        assert!(SlidingWindow::new(131_071, SECOND).is_ok());
        assert_eq!(SlidingWindow::new(131_072, SECOND), Err(InvalidQuota::TooMany));
        assert!(SlidingWindow::new(33_000_000, 86_400 * SECOND).is_ok());
        assert_eq!(SlidingWindow::new(u32::MAX, 3_650 * 86_400 * SECOND), Err(InvalidQuota::TooMany));
        assert_eq!(SlidingWindow::new(0, SECOND), Err(InvalidQuota::NoCount));
        assert_eq!(SlidingWindow::new(1, Duration::ZERO), Err(InvalidQuota::NoPeriod));
    }

    #[test]
    fn exactly_the_limit_passes_on_eight_threads() {
        let table = table(1_000);
        let passed = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mine = (0..2_000).filter(|_| table.take(1, 1, 5 * SECOND).allowed()).count();
                    passed.fetch_add(mine, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.into_inner(), 1_000);
    }

    proptest! {
        #[test]
        fn never_more_than_said_and_refusals_cost_nothing(
            count in 1u32..30, gaps in prop::collection::vec((0u64..400, 1u32..4), 1..300),
        ) {
            let table = table(count);
            let (mut now, mut passed) = (0u64, Vec::<(u64, u32)>::new());
            let second = 1_000;
            for (gap, cost) in gaps {
                now += gap;
                let of = |number: u64| -> u32 { passed.iter().filter(|(at, _)| at / second == number).map(|(_, cost)| cost).sum() };
                let number = now / second;
                let before = if number == 0 { 0 } else { of(number - 1) };
                let used = u64::from(before) * (second - now % second) + u64::from(of(number)) * second;
                let passes = used + u64::from(cost) * second <= u64::from(count) * second;
                let verdict = table.take(1, cost, Duration::from_millis(now));
                prop_assert_eq!(verdict.allowed(), passes);
                if passes {
                    passed.push((now, cost));
                }
            }
            for (at, _) in &passed {
                let within = |from: u64, to: u64| -> u32 { passed.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, cost)| cost).sum() };
                let start = at / second * second;
                prop_assert!(within(start, start + second) <= count, "a window");
                prop_assert!(within(*at, at + second) < 2 * count || count == 1, "any stretch");
            }
        }
    }
}
