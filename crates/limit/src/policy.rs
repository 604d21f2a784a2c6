//! What a [`Table`](super::Table) must know of an algorithm: a client's whole state is one `u64`, so that one compare-and-swap
//! changes it, and a larger state has more to lose, so that the smallest of a crowded place is the one to be forgotten.

use std::{fmt, time::Duration};

use super::Verdict;

/// A limit that a table can apply: [`Quota`](super::Quota), [`SlidingWindow`](super::SlidingWindow) or
/// [`CalendarQuota`](super::CalendarQuota). Nobody else can make one.
pub trait Policy: Arithmetic {}

/// The time of a request, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since any fixed start, by a clock that never goes back.
    pub since_start: Duration,
    /// Since 1970, by the calendar's clock.
    pub unix: Duration,
}

/// The arithmetic of a policy.
pub trait Arithmetic: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// A decision, before it is put into words.
    type Step: Copy;

    /// The clock that it goes by.
    fn clock(moment: Moment) -> Duration;

    /// `now` as the other methods want it.
    fn instant(&self, now: Duration) -> u64;

    /// The state of whoever has used nothing. A state that is not larger has nothing to lose.
    fn unused(&self, now: u64) -> u64;

    /// The decision alone: what the table needs before its swap. Only the first `most` of what is allowed may be used.
    fn step(&self, state: u64, now: u64, cost: u32, most: u32) -> Self::Step;

    /// The new state, if it changes.
    fn next(step: Self::Step) -> Option<u64>;

    /// The decision in the words of the caller.
    fn verdict(&self, step: Self::Step) -> Verdict;

    /// The most that can pass at once.
    fn most(&self) -> u32;
}
