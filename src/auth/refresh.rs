//! When a key set that lives elsewhere is fetched: by its age, and once more when a token names a key that it does not have.
//!
//! Whoever sends tokens can name keys that do not exist as fast as he likes, so such a wish never leads to more than one fetch
//! per cool-down, counted from the beginning of the last one, whatever made that one. It fetches nothing and keeps no keys:
//! `now` is the time since some fixed moment.

use std::time::Duration;

/// The first pause after a failure while there are no keys at all.
const SOON: Duration = Duration::from_secs(1);

/// When fetches are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshTimes {
    /// The time from one fetch to the next, whatever the answer says.
    pub fixed: Option<Duration>,
    /// The least and the most of what an answer may ask for.
    pub bounds: (Duration, Duration),
    /// The least time between two fetches that unknown keys lead to.
    pub cooldown: Duration,
}

impl RefreshTimes {
    /// How long a set with this `max-age` is good for.
    fn age(&self, max_age: Option<Duration>) -> Duration {
        // As long as nothing is said: twice as often as most issuers ask for, and within the bounds.
        const UNSAID: Duration = Duration::from_secs(15 * 60);
        self.fixed.unwrap_or_else(|| max_age.unwrap_or(UNSAID).min(self.bounds.1).max(self.bounds.0))
    }
}

/// What has become of the fetches so far.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    /// When the last one began.
    began: Option<Duration>,
    running: bool,
    wanted: bool,
    loaded: bool,
    failures: u32,
    next: Duration,
}

impl Refresh {
    /// Of a set whose keys are known from before; it is fetched all the same, at once.
    pub fn of_known() -> Self {
        Self { loaded: true, ..Self::default() }
    }

    /// A token names a key that is not there. True when waiting makes sense: a fetch is running, or begins now.
    pub fn want(&mut self, times: &RefreshTimes, now: Duration) -> bool {
        if self.running {
            return true;
        }
        self.wanted = true;
        self.due(times) <= now
    }

    /// When the next fetch should begin.
    pub fn due(&self, times: &RefreshTimes) -> Duration {
        match self.began {
            None => Duration::ZERO,
            Some(began) if self.wanted => self.next.min(began.saturating_add(times.cooldown)),
            Some(_) => self.next,
        }
    }

    /// A fetch begins.
    pub fn begin(&mut self, now: Duration) {
        (self.began, self.running, self.wanted) = (Some(now), true, false);
    }

    /// It has brought keys, for so long as the answer says.
    pub fn succeeded(&mut self, times: &RefreshTimes, max_age: Option<Duration>, now: Duration) {
        (self.running, self.loaded, self.failures) = (false, true, 0);
        self.next = now.saturating_add(times.age(max_age));
    }

    /// It has brought none. Without any keys it is tried again soon; with some there is no hurry.
    pub fn failed(&mut self, times: &RefreshTimes, now: Duration) {
        let (first, most) = if self.loaded {
            (times.cooldown.max(SOON), times.cooldown.max(times.bounds.0))
        } else {
            (SOON, times.cooldown.max(SOON))
        };
        self.running = false;
        let pause = first.saturating_mul(2u32.saturating_pow(self.failures)).min(most.max(first));
        self.failures = self.failures.saturating_add(1);
        self.next = now.saturating_add(pause);
    }

    /// Nobody fetches any more: the one who did has ended before its fetch did.
    pub fn abandoned(&mut self) {
        self.running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn times(fixed: Option<u64>) -> RefreshTimes {
        RefreshTimes { fixed: fixed.map(s), bounds: (s(300), s(86_400)), cooldown: s(30) }
    }

    #[test]
    fn an_answer_says_how_long_it_is_good_within_bounds() {
        for (fixed, said, next) in [
            (None, Some(600), 600),
            (None, Some(0), 300),
            (None, Some(u64::MAX), 86_400),
            (None, None, 900),
            (Some(60), Some(600), 60),
        ] {
            let (mut refresh, times) = (Refresh::default(), times(fixed));
            assert_eq!(refresh.due(&times), s(0));
            refresh.begin(s(10));
            refresh.succeeded(&times, said.map(s), s(11));
            assert_eq!(refresh.due(&times), s(11 + next), "{fixed:?} {said:?}");
        }
    }

    #[test]
    fn a_flood_of_unknown_keys_leads_to_one_fetch_per_cooldown() {
        let (mut refresh, times) = (Refresh::default(), times(None));
        let mut fetches = 0;
        for second in 0..300 {
            for _ in 0..100 {
                refresh.want(&times, s(second));
            }
            if refresh.due(&times) <= s(second) {
                refresh.begin(s(second));
                refresh.succeeded(&times, None, s(second));
                fetches += 1;
            }
        }
        assert_eq!(fetches, 10);
    }

    #[test]
    fn waiting_makes_sense_while_a_fetch_is_near() {
        let (mut refresh, times) = (Refresh::default(), times(None));
        assert!(refresh.want(&times, s(0)), "nothing has been fetched yet");
        refresh.begin(s(0));
        assert!(refresh.want(&times, s(1)), "it is running");
        refresh.succeeded(&times, None, s(2));
        assert!(!refresh.want(&times, s(3)), "the cool-down");
        assert_eq!(refresh.due(&times), s(30), "what was wanted meanwhile is fetched then");
        assert!(refresh.want(&times, s(30)));
    }

    #[test]
    fn failures_are_spaced_and_no_key_makes_them_more_frequent_than_the_cooldown() {
        let (mut refresh, times) = (Refresh::default(), times(None));
        let pauses = |refresh: &mut Refresh| -> Vec<u64> {
            let pause = |_| {
                let now = refresh.due(&times);
                refresh.begin(now);
                refresh.failed(&times, now);
                refresh.due(&times).saturating_sub(now).as_secs()
            };
            (0..7).map(pause).collect()
        };
        assert_eq!(pauses(&mut refresh), [1, 2, 4, 8, 16, 30, 30]);
        let mut known = Refresh::of_known();
        assert_eq!(pauses(&mut known), [30, 60, 120, 240, 300, 300, 300]);
        known.want(&times, s(0));
        assert_eq!(known.due(&times), known.began.map_or(s(0), |began| began + s(30)));
    }
}
