//! A circuit breaker: closed, open after failures, half-open to find out.
//!
//! Open, nothing passes. When its time is over, one probe at a time does; enough successes close it, one failure opens
//! it again. What a request that began before the change comes to changes nothing any more.
//!
//! A probe whose request its client has not sent yet must not keep others from probing, for as long as that client
//! likes. It makes room for the next one; there may be a few of these at a time.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use super::{note::Note, window::Window};
use crate::units::counted;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub consecutive: Option<u32>,
    /// Share of failures that opens it.
    pub rate: Option<FailureRate>,
    /// How long it stays open.
    pub open: Duration,
    /// Probes that must succeed before it closes.
    pub probes: u32,
}

/// A share of failures over a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureRate {
    /// The share, from 0 to 1.
    pub share: f64,
    /// The time looked back upon.
    pub window: Duration,
    /// Below so many results it says nothing.
    pub minimum: u32,
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// One probe at a time passes.
    HalfOpen,
}

impl BreakerState {
    /// The state as a metric: 0 closed, 1 open, 2 half-open.
    pub fn gauge(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    /// The state's name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a breaker says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It passes.
    Pass,
    /// It passes, and its result decides; the ticket belongs to [`Breaker::record`] or [`Breaker::abandon`].
    Probe(u64),
    /// It does not pass.
    Refused {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The new state.
    pub to: BreakerState,
    /// Why.
    pub reason: String,
}

/// While a probe is under way, others are told to come back after this.
const SOON: Duration = Duration::from_secs(1);

/// The most probes whose requests are still being sent. Each counts for [`SOON`] and no longer: clients that never end
/// their requests must not keep out everybody else who has a body to send.
const MOST_SENDING: usize = 8;

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    /// 0 while closed, else 1: the common case reads this and no more.
    tripped: AtomicU32,
    /// Failures in a row while closed.
    row: AtomicU32,
    results: Option<(Window, Window)>,
    inner: Mutex<Inner>,
    /// Why and since when it is in its state. Written while `inner` is held.
    changed: Note,
    /// Numbers for probes.
    tickets: AtomicU64,
}

#[derive(Debug)]
enum Inner {
    Closed,
    Open {
        until: Duration,
    },
    HalfOpen {
        probe: Option<Probe>,
        /// Probes that have made room for others until their requests have been sent.
        sending: Vec<Probe>,
        succeeded: u32,
    },
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    ticket: u64,
    /// A probe that never reports must not keep the breaker half-open for ever.
    expires: Duration,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        let results = policy.rate.map(|rate| (Window::new(rate.window), Window::new(rate.window)));
        Self {
            policy,
            tripped: AtomicU32::new(0),
            row: AtomicU32::new(0),
            results,
            inner: Mutex::new(Inner::Closed),
            changed: Note::default(),
            tickets: AtomicU64::new(1),
        }
    }

    /// The rule.
    pub fn policy(&self) -> &BreakerPolicy {
        &self.policy
    }

    /// The state; an open breaker counts as open until a probe has been let in.
    pub fn state(&self) -> BreakerState {
        match *self.inner.lock() {
            Inner::Closed => BreakerState::Closed,
            Inner::Open { .. } => BreakerState::Open,
            Inner::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When its state changed last, and why; `None` while it has always been closed.
    pub fn changed(&self) -> Option<(Duration, String)> {
        self.changed.get()
    }

    /// True when [`Breaker::admit`] would let a request pass.
    pub fn would_admit(&self, now: Duration) -> bool {
        if self.tripped.load(Relaxed) == 0 {
            return true;
        }
        match &*self.inner.lock() {
            Inner::Closed => true,
            Inner::Open { until } => *until <= now,
            Inner::HalfOpen { probe, .. } => probe.is_none_or(|probe| probe.expires <= now),
        }
    }

    /// Asks for leave to pass.
    pub fn admit(&self, now: Duration) -> (Admission, Option<Transition>) {
        if self.tripped.load(Relaxed) == 0 {
            return (Admission::Pass, None);
        }
        let mut inner = self.inner.lock();
        let ticket = self.tickets.fetch_add(1, Relaxed);
        let next = Some(Probe { ticket, expires: now + self.policy.open });
        match &mut *inner {
            Inner::Closed => return (Admission::Pass, None),
            Inner::Open { until } if now < *until => {
                return (Admission::Refused { retry_after: until.saturating_sub(now) }, None);
            }
            Inner::Open { .. } => {
                *inner = Inner::HalfOpen { probe: next, sending: Vec::new(), succeeded: 0 };
                let reason = format!("{:?} are over, one request probes", self.policy.open);
                return (Admission::Probe(ticket), Some(self.transition(now, BreakerState::HalfOpen, reason)));
            }
            Inner::HalfOpen { probe: Some(probe), .. } if now < probe.expires => {
                return (Admission::Refused { retry_after: SOON }, None);
            }
            Inner::HalfOpen { probe, .. } => *probe = next,
        }
        (Admission::Probe(ticket), None)
    }

    /// Lets others probe while the request of this probe is being sent.
    ///
    /// # Errors
    /// When it is worth trying again: there are too many of these. The probe has ended then.
    pub fn suspend(&self, now: Duration, ticket: u64) -> Result<(), Duration> {
        let mut inner = self.inner.lock();
        let Inner::HalfOpen { probe, sending, .. } = &mut *inner else { return Ok(()) };
        if probe.is_none_or(|probe| probe.ticket != ticket) {
            return Ok(());
        }
        *probe = None;
        sending.retain(|probe| now < probe.expires);
        let earliest = sending.iter().map(|probe| probe.expires).min();
        if let Some(earliest) = earliest.filter(|_| sending.len() >= MOST_SENDING) {
            return Err(earliest.saturating_sub(now));
        }
        sending.push(Probe { ticket, expires: now + SOON });
        Ok(())
    }

    /// The request of a suspended probe has been sent: true when it is the probe again. If another one is by now, that
    /// one decides.
    pub fn resume(&self, now: Duration, ticket: u64) -> bool {
        let mut inner = self.inner.lock();
        let Inner::HalfOpen { probe, sending, .. } = &mut *inner else { return false };
        sending.retain(|probe| probe.ticket != ticket);
        if probe.is_some_and(|probe| now < probe.expires) {
            return false;
        }
        *probe = Some(Probe { ticket, expires: now + self.policy.open });
        true
    }

    /// Tells the result of a request that passed; `probe` is its ticket when it was one.
    pub fn record(&self, now: Duration, probe: Option<u64>, ok: bool) -> Option<Transition> {
        match probe {
            Some(ticket) => self.record_probe(now, ticket, ok),
            None if self.tripped.load(Relaxed) != 0 => None,
            None => self.record_closed(now, ok),
        }
    }

    /// A probe has ended without a result, because its client left: another one may go.
    pub fn abandon(&self, ticket: u64) {
        if let Inner::HalfOpen { probe, sending, .. } = &mut *self.inner.lock() {
            sending.retain(|probe| probe.ticket != ticket);
            probe.take_if(|probe| probe.ticket == ticket);
        }
    }

    fn record_closed(&self, now: Duration, ok: bool) -> Option<Transition> {
        let row = if ok {
            // Nearly always 0 already: reading does not take the cache line away from other threads.
            if self.row.load(Relaxed) != 0 {
                self.row.store(0, Relaxed);
            }
            0
        } else {
            self.row.fetch_add(1, Relaxed) + 1
        };
        if let Some((all, failed)) = &self.results {
            all.add(now);
            if !ok {
                failed.add(now);
            }
        }
        if ok {
            return None;
        }
        let reason = self.verdict(now, row)?;
        let mut inner = self.inner.lock();
        // Another thread may have been faster.
        matches!(*inner, Inner::Closed).then(|| self.open(&mut inner, now, reason))
    }

    /// Why a closed breaker must open, if it must.
    fn verdict(&self, now: Duration, row: u32) -> Option<String> {
        if self.policy.consecutive.is_some_and(|most| row >= most) {
            return Some(format!("{row} failures in a row"));
        }
        let ((all, failed), rate) = (self.results.as_ref()?, self.policy.rate?);
        let (all, failed) = (all.sum(now), failed.sum(now));
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = failed as f64 / all.max(1) as f64;
        (all >= rate.minimum.into() && share >= rate.share)
            .then(|| format!("{:.0}% of {all} requests failed within {:?}", share * 100.0, rate.window))
    }

    fn record_probe(&self, now: Duration, ticket: u64, ok: bool) -> Option<Transition> {
        let mut inner = self.inner.lock();
        let Inner::HalfOpen { probe, sending, succeeded } = &mut *inner else { return None };
        let before = sending.len();
        sending.retain(|probe| probe.ticket != ticket);
        // A backend that answers before the end of the request has answered.
        if sending.len() == before && probe.take_if(|probe| probe.ticket == ticket).is_none() {
            return None;
        }
        if !ok {
            return Some(self.open(&mut inner, now, "the probe failed".to_owned()));
        }
        *succeeded += 1;
        let succeeded = *succeeded;
        if succeeded < self.policy.probes {
            return None;
        }
        *inner = Inner::Closed;
        self.row.store(0, Relaxed);
        if let Some((all, failed)) = &self.results {
            all.clear();
            failed.clear();
        }
        self.tripped.store(0, Relaxed);
        let probes = counted(usize::try_from(succeeded).unwrap_or(usize::MAX), "probe");
        Some(self.transition(now, BreakerState::Closed, format!("{probes} succeeded")))
    }

    fn open(&self, inner: &mut Inner, now: Duration, reason: String) -> Transition {
        *inner = Inner::Open { until: now + self.policy.open };
        self.tripped.store(1, Relaxed);
        self.transition(now, BreakerState::Open, reason)
    }

    fn transition(&self, now: Duration, to: BreakerState, reason: String) -> Transition {
        self.changed.set(now, reason.clone());
        Transition { to, reason }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn breaker(probes: u32) -> Breaker {
        Breaker::new(BreakerPolicy { consecutive: Some(3), rate: None, open: 10 * S, probes })
    }

    fn probe(breaker: &Breaker, now: Duration) -> u64 {
        match breaker.admit(now).0 {
            Admission::Probe(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let breaker = breaker(1);
        for ok in [false, false, true, false, false] {
            assert_eq!(breaker.record(S, None, ok), None);
        }
        let transition = breaker.record(S, None, false).unwrap();
        assert_eq!((transition.to, transition.reason.as_str()), (BreakerState::Open, "3 failures in a row"));
        assert_eq!(breaker.admit(4 * S).0, Admission::Refused { retry_after: 7 * S });
        assert!(!breaker.would_admit(10 * S) && breaker.would_admit(11 * S));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let breaker = breaker(2);
        (0..3).for_each(|_| drop(breaker.record(S, None, false)));
        let (Admission::Probe(first), Some(transition)) = breaker.admit(11 * S) else { panic!("no probe") };
        assert_eq!(transition.to, BreakerState::HalfOpen);
        assert!(matches!(breaker.admit(11 * S).0, Admission::Refused { .. }));
        assert_eq!(breaker.record(12 * S, None, false), None, "a request from before says nothing");
        assert_eq!(breaker.record(12 * S, Some(first), true), None);
        let second = probe(&breaker, 12 * S);
        assert_eq!(breaker.record(12 * S, Some(first), false), None, "an old ticket says nothing");
        assert_eq!(breaker.record(13 * S, Some(second), true).unwrap().to, BreakerState::Closed);
        assert_eq!(breaker.changed(), Some((13 * S, "2 probes succeeded".to_owned())));
        assert_eq!(breaker.admit(13 * S).0, Admission::Pass);
        (0..2).for_each(|_| assert_eq!(breaker.record(13 * S, None, false), None, "the row begins anew"));
    }

    #[test]
    fn a_failed_probe_opens_again_and_a_lost_one_is_replaced() {
        let breaker = breaker(1);
        (0..3).for_each(|_| drop(breaker.record(S, None, false)));
        let ticket = probe(&breaker, 11 * S);
        assert_eq!(breaker.record(12 * S, Some(ticket), false).unwrap().reason, "the probe failed");
        assert!(!breaker.would_admit(21 * S));
        let lost = probe(&breaker, 22 * S);
        assert!(!breaker.would_admit(31 * S) && breaker.would_admit(32 * S));
        let ticket = probe(&breaker, 32 * S);
        breaker.abandon(lost);
        assert!(!breaker.would_admit(33 * S), "a stale ticket frees nothing");
        breaker.abandon(ticket);
        assert!(breaker.would_admit(33 * S));
    }

    #[test]
    fn probes_whose_requests_are_not_sent_yet_make_room_and_are_few() {
        let breaker = breaker(1);
        (0..3).for_each(|_| drop(breaker.record(S, None, false)));
        let now = 11 * S;
        let sending: Vec<u64> = (0..MOST_SENDING)
            .map(|_| probe(&breaker, now))
            .inspect(|ticket| {
                assert_eq!(breaker.suspend(now, *ticket), Ok(()));
            })
            .collect();
        let one_more = probe(&breaker, now + S / 4);
        assert_eq!(breaker.suspend(now + S / 4, one_more), Err(S * 3 / 4));
        let quick = probe(&breaker, now + S / 4);
        assert!(!breaker.resume(now + S / 4, sending[0]), "another one probes");
        breaker.abandon(quick);
        assert!(breaker.resume(now + S / 2, sending[1]) && !breaker.would_admit(now + S / 2));
        breaker.abandon(sending[1]);
        // Two have gone; those that take too long do not keep out others either.
        for _ in 0..2 {
            assert_eq!(breaker.suspend(now, probe(&breaker, now)), Ok(()));
        }
        assert_eq!(breaker.suspend(now + S, probe(&breaker, now + S)), Ok(()));
        assert_eq!(breaker.record(now + S, Some(sending[2]), false), None, "it no longer counts");
        let last = probe(&breaker, now + S);
        assert_eq!(breaker.suspend(now + S, last), Ok(()));
        let closed = breaker.record(now + S, Some(last), true).unwrap();
        assert_eq!(closed.to, BreakerState::Closed, "answered before its request was sent");
        assert!(!breaker.resume(now + S, sending[3]));
    }

    #[test]
    fn opens_by_share_over_enough_requests() {
        let rate = FailureRate { share: 0.5, window: 10 * S, minimum: 10 };
        let breaker = Breaker::new(BreakerPolicy { consecutive: None, rate: Some(rate), open: S, probes: 1 });
        for i in 0..8 {
            assert_eq!(breaker.record(S, None, i % 2 == 0), None);
        }
        assert_eq!(breaker.record(S, None, true), None);
        assert_eq!(breaker.record(S, None, false).unwrap().reason, "50% of 10 requests failed within 10s");
    }

    proptest! {
        /// Whatever happens: nothing passes before an open breaker's time, and at most one probe is out.
        #[test]
        fn holds_its_promises(steps in proptest::collection::vec((0u64..4000, 0u8..4, any::<bool>()), 1..300)) {
            let breaker = breaker(2);
            let (mut now, mut out, mut until) = (Duration::ZERO, None::<(u64, Duration)>, Duration::ZERO);
            for (wait, step, ok) in steps {
                now += Duration::from_millis(wait);
                let transition = match step {
                    0 | 1 => {
                        let would = breaker.would_admit(now);
                        let (admission, transition) = breaker.admit(now);
                        prop_assert_eq!(would, !matches!(admission, Admission::Refused { .. }));
                        match admission {
                            Admission::Pass => breaker.record(now, None, ok),
                            Admission::Probe(ticket) => {
                                prop_assert!(now >= until, "a probe before its time");
                                let free = out.is_none_or(|(_, expires)| expires <= now);
                                prop_assert!(free, "two probes at once");
                                out = Some((ticket, now + 10 * S));
                                transition
                            }
                            Admission::Refused { .. } => {
                                prop_assert!(now < until || out.is_some());
                                transition
                            }
                        }
                    }
                    2 => out.take().and_then(|(ticket, _)| breaker.record(now, Some(ticket), ok)),
                    _ => {
                        if let Some((ticket, _)) = out.take() {
                            breaker.abandon(ticket);
                        }
                        None
                    }
                };
                if transition.is_some_and(|transition| transition.to == BreakerState::Open) {
                    until = now + 10 * S;
                }
            }
        }
    }
}
