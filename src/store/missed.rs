//! Nonces that this gateway has seen while the store did not answer. They are told when it is back: others must not take them
//! again.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use redis::ScriptInvocation;

use super::{
    connection::NOTE,
    failure::{Concern, Failure},
};
use crate::clock::Now;

/// So many are told at a time.
const AT_ONCE: usize = 256;

/// So many are remembered, of about 80 bytes each; then the oldest are forgotten.
const MOST: usize = 65_536;

/// One of them.
#[derive(Debug)]
pub(super) struct MissedNonce {
    pub(super) name: String,
    /// Nobody takes it from then on (time of the monotonic clock).
    pub(super) until: Duration,
}

/// What notes the nonce of this `name` for `window`.
pub(super) fn note(name: &str, window: Duration) -> ScriptInvocation<'static> {
    let mut script = NOTE.key(format!("tollgate:{{{name}}}:nonce"));
    script.arg(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
    script
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct MissedNonces(Mutex<VecDeque<MissedNonce>>);

impl MissedNonces {
    /// One more.
    pub(super) fn push(&self, nonce: MissedNonce) {
        let mut all = self.0.lock();
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(nonce);
    }

    /// The oldest that still matter at `now`, up to `most`.
    fn take(&self, most: usize, now: Duration) -> Vec<MissedNonce> {
        let mut all = self.0.lock();
        while all.front().is_some_and(|oldest| oldest.until <= now) {
            all.pop_front();
        }
        let count = all.len().min(most);
        let taken = all.drain(..count).collect();
        if all.is_empty() {
            all.shrink_to_fit();
        }
        taken
    }

    /// Those that could not be told.
    fn put_back(&self, nonces: Vec<MissedNonce>) {
        let mut all = self.0.lock();
        let room = MOST.saturating_sub(all.len());
        nonces.into_iter().rev().take(room).for_each(|nonce| all.push_front(nonce));
    }

    /// Has `ask` note them all, some at a time.
    pub(super) async fn tell<F>(&self, ask: impl Fn(ScriptInvocation<'static>) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<u8, Failure>>,
    {
        loop {
            let now = Now::monotonic();
            let nonces = self.take(AT_ONCE, now);
            if nonces.is_empty() {
                return Ok(());
            }
            let told = nonces.iter().map(|nonce| ask(note(&nonce.name, nonce.until.saturating_sub(now))));
            if let Err(failure) = try_join_all(told).await {
                self.put_back(nonces);
                // What it does not take now it may take later; limits are not to do without it for that.
                return if failure.concern == Concern::Key { Ok(()) } else { Err(failure) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: usize) -> Duration {
        Duration::from_secs(seconds as u64)
    }

    fn missed(numbers: std::ops::Range<usize>) -> MissedNonces {
        let all = MissedNonces::default();
        numbers.for_each(|number| all.push(MissedNonce { name: number.to_string(), until: s(number) }));
        all
    }

    fn names(all: &[MissedNonce]) -> Vec<&str> {
        all.iter().map(|nonce| nonce.name.as_str()).collect()
    }

    #[test]
    fn what_is_over_is_not_told_and_what_was_put_back_comes_first() {
        let all = missed(0..10);
        let first = all.take(3, s(5));
        assert_eq!(names(&first), ["6", "7", "8"]);
        all.put_back(first);
        assert_eq!(names(&all.take(9, s(6))), ["7", "8", "9"]);
        assert_eq!((all.take(3, s(5)).len(), all.0.lock().capacity()), (0, 0));
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let all = missed(0..MOST + 2);
        let taken = all.take(MOST + 2, s(0));
        assert_eq!((taken.len(), taken[0].name.as_str()), (MOST, "2"));
        all.push(MissedNonce { name: "new".to_owned(), until: s(MOST) });
        all.put_back(taken);
        assert_eq!(all.0.lock().len(), MOST);
        assert_eq!(names(&all.take(1, s(0))), ["3"]);
    }
}
