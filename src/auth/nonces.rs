//! Nonces that were used, for as long as a signature that has one could be shown again.
//!
//! Two generations, each for one window: what is noted is remembered for one window at least, and for two at most. It is exact (a
//! filter that errs would refuse good requests) and bounded: when a generation is full, nothing is taken in any more, so that
//! nobody can push out what he wants to use again. Only what has been verified may be noted.

use std::{collections::HashSet, fmt, time::Duration};

use parking_lot::Mutex;

use super::Digest;

/// What has become of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is new.
    Fresh,
    /// It was there.
    Used,
    /// There is no room for it.
    Full,
}

#[derive(Default)]
struct Generations {
    young: HashSet<Digest>,
    old: HashSet<Digest>,
    since: Duration,
}

/// A bounded memory of nonces.
pub struct Nonces {
    window: Duration,
    capacity: usize,
    generations: Mutex<Generations>,
}

impl Nonces {
    /// Remembers for `window`, up to `capacity` in each window.
    pub fn new(window: Duration, capacity: usize) -> Self {
        Self { window, capacity, generations: Mutex::default() }
    }

    /// Notes what `key_id` has used, at `now` (time since some moment).
    pub fn note(&self, key_id: &str, nonce: &str, now: Duration) -> Noted {
        // The length keeps the two apart.
        let digest = Digest::of(format!("{}:{key_id}{nonce}", key_id.len()).as_bytes());
        let mut all = self.generations.lock();
        let age = now.saturating_sub(all.since);
        if age >= self.window {
            let young = std::mem::take(&mut all.young);
            all.old = if age < self.window * 2 { young } else { HashSet::new() };
            all.since = now;
        }
        if all.young.contains(&digest) || all.old.contains(&digest) {
            return Noted::Used;
        }
        if all.young.len() >= self.capacity {
            return Noted::Full;
        }
        all.young.insert(digest);
        Noted::Fresh
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has been noted is no setting.
        write!(f, "Nonces({:?}, {})", self.window, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_nonce_is_good_once_within_the_window() {
        for begun in [0, 7, 9] {
            let nonces = Nonces::new(s(10), 100);
            assert_eq!(nonces.note("k", "other", s(0)), Noted::Fresh);
            assert_eq!(nonces.note("k", "n", s(begun)), Noted::Fresh);
            for later in 0..=10 {
                assert_eq!(nonces.note("k", "n", s(begun + later)), Noted::Used, "{begun} {later}");
            }
            assert_eq!(nonces.note("k", "n", s(begun + 40)), Noted::Fresh);
        }
    }

    #[test]
    fn keys_do_not_share_nonces_and_a_full_store_takes_nothing_in() {
        let nonces = Nonces::new(s(10), 3);
        for (key, nonce) in [("a", "bc"), ("ab", "c"), ("", "abc")] {
            assert_eq!(nonces.note(key, nonce, s(0)), Noted::Fresh);
        }
        assert_eq!(nonces.note("x", "y", s(1)), Noted::Full);
        assert_eq!(nonces.note("a", "bc", s(1)), Noted::Used, "what is there stays");
        assert_eq!(nonces.note("x", "y", s(10)), Noted::Fresh);
    }
}
