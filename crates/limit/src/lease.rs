//! Tokens of a shared bucket that one node has taken ahead, so that most requests ask nobody.
//!
//! The shared bucket lacks what is held here, and does not fill further than that (its deficit is never below what all nodes
//! hold): so what is in the bucket and what is held are together never more than the burst, and no interleaving of nodes lets
//! more pass than one bucket would. What that needs of a node: it says when it has spent what it had; it never spends what it has
//! given back, and nothing after [`HOLD`], when the store forgets what a node holds that has died. What a waiting request is given
//! counts as spent when it is given, and is spent at once or never.
//!
//! A lease begins with one token and grows, for a client that comes once needs no more. One that is half used is filled up beside
//! the requests; one that nobody has used for [`IDLE`] goes back.

use std::time::Duration;

use super::{SharedQuota, Verdict};

/// For so long the store believes that a node holds what it has taken.
pub const HOLD: Duration = Duration::from_secs(5);

/// The node itself stops a little earlier: its clock and the store's need not run alike.
const SPEND: Duration = Duration::from_millis(4_500);

/// A lease that nobody has used for so long goes back.
pub const IDLE: Duration = Duration::from_secs(1);

/// An empty bucket is not asked again before this.
const PAUSE: Duration = Duration::from_millis(10);

/// What was given for a request that has gone meanwhile is not spent after this.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A lease that was used up is so many times larger the next time.
const GROWTH: u32 = 4;

/// The most tokens that one node takes ahead for one client.
const MOST: u32 = 100;

/// What the shared bucket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// With fewer tokens the answer is none.
    pub least: u32,
    /// As many as there are, at most.
    pub want: u32,
    /// Tokens that this node still holds.
    pub left: u32,
    /// Tokens that it held, has not spent, and gives back.
    pub back: u32,
    /// When it has spent one of those that it held last.
    pub spent: Duration,
    /// The store's generation that this node's tokens come from.
    pub generation: u64,
}

/// What the shared bucket has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Tokens that were taken.
    pub granted: u32,
    /// What the bucket lacks now.
    pub deficit: u64,
    /// When there are `least` tokens, if there are not and nothing comes back that others hold.
    pub wait: Duration,
    /// Tokens that other nodes hold: what they do not spend goes back.
    pub others: u32,
}

impl Answer {
    /// When it is worth to ask again after a refusal. What others hold they may have spent by then, or given back: nobody
    /// knows, so the far time is not promised while they hold it.
    pub fn again(&self) -> Duration {
        if self.others > 0 { self.wait.min(IDLE) } else { self.wait }
    }
}

/// What is to be done for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// It passes. The bucket is to be asked beside it.
    Pass(Option<Ask>),
    /// It is refused for this long.
    Refuse(Duration),
    /// The bucket is to be asked; then look again.
    Ask(Ask),
    /// The bucket is being asked; then look again.
    Wait,
}

/// What one node holds of one client's bucket, and what it knows of the rest.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    tokens: u32,
    /// What was given for requests that wait, and until when it is spent.
    at_once: (u32, Duration),
    /// How many it wants to hold.
    size: u32,
    /// When it was given tokens last.
    filled: Duration,
    /// What it holds is spent until then.
    until: Duration,
    /// The bucket was empty: it is not asked again before this.
    empty_until: Duration,
    asking: bool,
    /// Something was spent since [`Lease::idle`] looked.
    used: bool,
    /// When it was.
    spent: Duration,
    generation: u64,
    /// What the bucket lacked, and when.
    deficit: (u64, Duration),
    /// What other nodes held then.
    others: u32,
}

/// How many tokens a node may hold of a bucket of `burst`: few enough that several nodes find some.
pub fn largest(burst: u32) -> u32 {
    (burst / 4).clamp(1, MOST)
}

impl Lease {
    /// Spends `cost` tokens at `now`. `waiting`: as many requests more would. What was held when the store was of another
    /// `generation` is gone.
    pub fn take(&mut self, cost: u32, waiting: u32, largest: u32, generation: u64, now: Duration) -> LeaseStep {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
        if now >= self.until {
            self.tokens = 0;
        }
        if self.at_once.0 >= cost && now < self.at_once.1 {
            self.at_once.0 -= cost;
            return LeaseStep::Pass(None);
        }
        let may_ask = !self.asking && now >= self.empty_until;
        if self.tokens >= cost {
            self.tokens -= cost;
            (self.used, self.spent) = (true, now);
            let old = now + SPEND / 2 >= self.until;
            let low = self.tokens <= self.size / 2 && self.size > 1;
            return LeaseStep::Pass((may_ask && (low || old)).then(|| self.ask(0, waiting, largest)));
        }
        if may_ask {
            if now >= self.filled + IDLE {
                // One that comes now and then would only give back what it took ahead.
                self.size = 1;
            }
            return LeaseStep::Ask(self.ask(cost, waiting, largest));
        }
        if self.asking { LeaseStep::Wait } else { LeaseStep::Refuse(self.empty_until.saturating_sub(now)) }
    }

    fn ask(&mut self, least: u32, waiting: u32, largest: u32) -> Ask {
        self.asking = true;
        let size = self.size.max(1).max(waiting).min(largest).max(least);
        let want = size.saturating_sub(self.tokens).max(least);
        Ask { least, want, left: self.tokens, back: 0, spent: self.spent, generation: self.generation }
    }

    /// Takes in what was answered to `ask`, which was sent at `sent`; `None`: nothing was.
    pub fn answered(&mut self, ask: Ask, answer: Option<Answer>, largest: u32, sent: Duration, now: Duration) {
        if self.generation != ask.generation {
            return;
        }
        self.asking = false;
        let Some(answer) = answer else { return };
        (self.deficit, self.others) = ((answer.deficit, now), answer.others);
        if answer.granted > 0 || ask.least == 0 {
            self.until = sent + SPEND;
            self.tokens = self.tokens.saturating_add(answer.granted.saturating_sub(ask.least));
            self.at_once = (answer.granted.min(ask.least), now + AT_ONCE);
        }
        if answer.granted > 0 {
            self.filled = now;
            self.size = self.size.saturating_mul(GROWTH).clamp(1, largest).max(answer.granted.min(largest));
        } else if ask.want > 0 {
            self.empty_until = now + answer.again().max(PAUSE);
        }
    }

    /// What goes back, if nothing was spent since this was asked last; call it every [`IDLE`]. `Err`: there is nothing to
    /// wait for.
    #[expect(clippy::result_unit_err, reason = "there is nothing to say of it")]
    pub fn idle(&mut self, generation: u64, now: Duration) -> Result<Option<Ask>, ()> {
        if self.generation != generation || now >= self.until {
            return Err(());
        }
        if self.asking || std::mem::take(&mut self.used) {
            return Ok(None);
        }
        let back = std::mem::take(&mut self.tokens);
        (self.asking, self.size) = (true, 0);
        Ok(Some(Ask { least: 0, want: 0, left: 0, back, spent: self.spent, generation }))
    }

    /// When the bucket was asked last, other nodes held tokens of it: one that is refused now might have passed.
    pub fn is_withheld(&self) -> bool {
        self.others > 0
    }

    /// What the client is told.
    pub fn verdict(&self, quota: &SharedQuota, retry: Option<Duration>, now: Duration) -> Verdict {
        let (deficit, at) = self.deficit;
        quota.verdict(quota.after(deficit, now.saturating_sub(at)), self.tokens, retry)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{
        super::{Quota, Tat, decide},
        *,
    };

    /// The shared bucket, as `store/take.lua` keeps it.
    struct Bucket {
        quota: SharedQuota,
        deficit: u64,
        at: Duration,
        /// Of each node: the number of its last call, its tokens, and how long they are believed in.
        held: Vec<(u64, u32, Duration)>,
    }

    impl Bucket {
        fn take(&mut self, node: usize, number: u64, ask: Ask, now: Duration) -> Answer {
            if self.held[node].0 >= number {
                return Answer { granted: 0, deficit: self.deficit, wait: Duration::ZERO, others: 0 };
            }
            let (before, at) = ((self.deficit, self.at, self.held.clone()), self.at);
            let (mut others, mut own, mut changed) = (0, 0, ask.spent);
            for (i, (_, tokens, ends)) in self.held.iter_mut().enumerate() {
                if *ends <= now && *tokens > 0 {
                    changed = changed.max(*ends);
                }
                *(if i == node || *ends <= now { &mut own } else { &mut others }) += *tokens;
                *tokens = if *ends <= now { 0 } else { *tokens };
            }
            let units = |tokens: u32| u64::from(tokens) * self.quota.token;
            let changed = changed.clamp(at, now.max(at));
            self.deficit = self.quota.after(self.deficit, changed.saturating_sub(at)).max(units(others + own));
            self.deficit =
                self.quota.after(self.deficit, now.saturating_sub(changed)).max(units(others + ask.left + ask.back));
            self.deficit -= units(ask.back);
            self.at = now;
            let free = self.quota.tokens(self.deficit);
            let divisor = 2 * u32::try_from(self.held.len()).unwrap();
            let granted = (free / divisor).max(ask.least.max(1)).min(ask.want);
            let granted = if granted > free { 0 } else { granted };
            self.deficit += u64::from(granted) * self.quota.token;
            let lacks = self.deficit + u64::from(ask.least.max(1)) * self.quota.token;
            let wait =
                if granted == 0 { self.quota.wait(lacks.saturating_sub(self.quota.full)) } else { Duration::ZERO };
            let answer = Answer { granted, deficit: self.deficit, wait, others };
            if granted == 0 && ask.least > 0 {
                (self.deficit, self.at, self.held) = before;
            } else {
                self.held[node] = (number, ask.left + granted.saturating_sub(ask.least), now + HOLD);
            }
            answer
        }
    }

    /// A call on its way to the bucket, or its answer on the way back.
    struct Flight {
        node: usize,
        number: u64,
        ask: Ask,
        sent: Duration,
        taken: Duration,
        answer: Option<Answer>,
    }

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_busy_client_asks_once_for_many_requests_and_loses_nothing() {
        let quota = Quota::new(1_000, Duration::from_secs(1), 1_000).unwrap();
        let shared = SharedQuota::new(&quota).unwrap();
        let mut bucket =
            Bucket { quota: shared, deficit: 0, at: Duration::ZERO, held: vec![(0, 0, Duration::ZERO); 2] };
        let (mut lease, largest, mut calls, mut number) = (Lease::default(), largest(1_000), 0, 0);
        for request in 0..10_000u32 {
            let now = MILLI * 2 * request + MILLI;
            loop {
                let step = lease.take(1, 0, largest, 0, now);
                if let LeaseStep::Pass(Some(ask)) | LeaseStep::Ask(ask) = step {
                    (calls, number) = (calls + 1, number + 1);
                    let answer = bucket.take(0, number, ask, now);
                    lease.answered(ask, Some(answer), largest, now, now);
                }
                match step {
                    LeaseStep::Pass(_) => break,
                    LeaseStep::Ask(_) => {}
                    other => panic!("request {request}: {other:?}"),
                }
            }
        }
        assert!(calls < 500, "{calls} calls for 10,000 requests");
    }

    #[test]
    fn a_refusal_is_remembered_and_ends() {
        let (mut lease, now) = (Lease::default(), MILLI * 100);
        let LeaseStep::Ask(ask) = lease.take(1, 0, 5, 0, now) else { panic!() };
        assert_eq!((ask.least, ask.want, ask.left, ask.back), (1, 1, 0, 0));
        assert_eq!(lease.take(1, 0, 5, 0, now), LeaseStep::Wait);
        let nothing = Answer { granted: 0, deficit: 0, wait: MILLI * 70, others: 0 };
        lease.answered(ask, Some(nothing), 5, now, now);
        assert_eq!(lease.take(1, 0, 5, 0, now + MILLI * 20), LeaseStep::Refuse(MILLI * 50));
        assert!(matches!(lease.take(1, 0, 5, 0, now + MILLI * 70), LeaseStep::Ask(_)));
        // A store that has begun anew knows nothing of what was said before.
        assert!(matches!(lease.take(1, 0, 5, 1, now + MILLI * 20), LeaseStep::Ask(_)));
    }

    #[test]
    fn a_refusal_does_not_outlast_what_others_may_give_back() {
        let (mut lease, now, hour) = (Lease::default(), MILLI * 100, Duration::from_secs(3_600));
        let LeaseStep::Ask(ask) = lease.take(1, 0, 5, 0, now) else { panic!() };
        let nothing = Answer { granted: 0, deficit: 0, wait: hour, others: 18 };
        lease.answered(ask, Some(nothing), 5, now, now);
        assert_eq!(lease.take(1, 0, 5, 0, now), LeaseStep::Refuse(IDLE));
        let later = now + IDLE;
        let LeaseStep::Ask(ask) = lease.take(1, 0, 5, 0, later) else { panic!() };
        lease.answered(ask, Some(Answer { others: 0, ..nothing }), 5, later, later);
        assert_eq!(lease.take(1, 0, 5, 0, later), LeaseStep::Refuse(hour));
    }

    #[test]
    fn a_client_that_comes_now_and_then_takes_nothing_ahead() {
        let mut lease = Lease::default();
        for turn in 1..9 {
            let now = IDLE * 2 * turn;
            let LeaseStep::Ask(ask) = lease.take(1, 0, 25, 0, now) else { panic!("{turn}") };
            assert_eq!(ask.want, 1, "{turn}");
            lease.answered(ask, Some(Answer { granted: 1, deficit: 0, wait: Duration::ZERO, others: 0 }), 25, now, now);
            assert_eq!(lease.take(1, 0, 25, 0, now), LeaseStep::Pass(None));
        }
    }

    #[test]
    fn what_nobody_uses_goes_back() {
        let (mut lease, now) = (Lease::default(), MILLI);
        let LeaseStep::Ask(ask) = lease.take(1, 5, 5, 0, now) else { panic!() };
        lease.answered(ask, Some(Answer { granted: 5, deficit: 0, wait: Duration::ZERO, others: 0 }), 5, now, now);
        assert_eq!(lease.take(1, 0, 5, 0, now), LeaseStep::Pass(None), "the one that was waited for");
        assert_eq!(lease.take(1, 0, 5, 0, now), LeaseStep::Pass(None));
        assert_eq!(lease.idle(0, now + IDLE), Ok(None), "one was spent");
        let back = lease.idle(0, now + 2 * IDLE).unwrap().unwrap();
        assert_eq!((back.back, back.left, back.want), (3, 0, 0));
        assert_eq!(lease.take(1, 0, 5, 0, now + 2 * IDLE), LeaseStep::Wait, "what went back is not spent");
        lease.answered(back, None, 5, now, now + 2 * IDLE);
        assert!(lease.idle(0, now + 5 * IDLE).is_err(), "nothing is left to wait for");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Requests at any node, calls that arrive late, answers that are late or lost, leases that go back, nodes that stop.
        /// Whatever has passed would have passed one single bucket.
        #[test]
        fn nodes_together_let_pass_no_more_than_one_bucket(
            count in 1u32..200, burst in prop_oneof![1u32..9, 1u32..60], nodes in 1usize..5,
            steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>(), 0u64..40), 1..600),
        ) {
            let quota = Quota::new(count, Duration::from_secs(1), burst).unwrap();
            let shared = SharedQuota::new(&quota).unwrap();
            let mut bucket =
                Bucket { quota: shared, deficit: 0, at: Duration::ZERO, held: vec![(0, 0, Duration::ZERO); nodes] };
            let (mut leases, largest) = (vec![Lease::default(); nodes], largest(burst));
            let (mut calls, mut answers): (Vec<Flight>, Vec<Flight>) = Default::default();
            let (mut now, mut number, mut passed, mut given) = (MILLI, 0, Vec::new(), vec![MILLI; nodes]);
            for (what, which, millis) in steps {
                now += Duration::from_millis(if millis > 36 { millis * 60 } else { millis / 4 });
                let node = which.index(nodes);
                let at_once = leases[node].at_once.0 > 0 && now < leases[node].at_once.1;
                let ask = match what {
                    0..5 => match leases[node].take(1, 0, largest, 0, now) {
                        LeaseStep::Pass(ask) => {
                            // What a request has waited for has passed when it was given.
                            passed.push(if at_once { given[node] } else { now });
                            ask
                        }
                        LeaseStep::Ask(ask) => Some(ask),
                        _ => None,
                    },
                    5..8 if !calls.is_empty() => {
                        let mut call = calls.swap_remove(which.index(calls.len()));
                        call.answer = Some(bucket.take(call.node, call.number, call.ask, now));
                        call.taken = now;
                        answers.push(call);
                        None
                    }
                    8 if !answers.is_empty() => {
                        let Flight { node, ask, sent, answer, taken, .. } =
                            answers.swap_remove(which.index(answers.len()));
                        // A call that has not been answered in time has failed, and then its answer is not looked at.
                        let answer = answer.filter(|_| now < sent + MILLI * 20);
                        if answer.is_some_and(|answer| answer.granted > 0) && ask.least > 0 {
                            given[node] = taken;
                        }
                        leases[node].answered(ask, answer, largest, sent, now);
                        None
                    }
                    9 => leases[node].idle(0, now).ok().flatten(),
                    _ => None,
                };
                if let Some(ask) = ask {
                    number += 1;
                    calls.push(Flight { node, number, ask, sent: now, taken: now, answer: None });
                }
            }
            passed.sort_unstable();
            let mut ideal = Tat::default();
            for (i, at) in passed.iter().enumerate() {
                // The ideal bucket's own clock is rounded down by less than a tick.
                let (verdict, next) = decide(&quota, ideal, *at + Duration::from_nanos(2), 1);
                prop_assert!(verdict.allowed(), "request {i} at {at:?}");
                ideal = next.unwrap();
            }
        }
    }
}
