//! Nonces that were used, for as long as a signature that has one could be shown again.
//!
//! They belong to a secret and to the process: wherever the secret counts, and whatever name it has there, what was used in one
//! place is used in all. Two generations, each for one window: what is noted is remembered for one window at least, and for two
//! at most. It is exact (a filter that errs would refuse good requests) and bounded: when a generation is full, nothing is taken
//! in any more, so that nobody can push out what he wants to use again. As each secret has its own, who fills it up locks out
//! himself alone. Only what has been verified may be noted.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

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
    /// When the youngest was noted: that decides what goes, as the window may have become shorter since.
    last: Duration,
    /// One for each [`Nonces`]: the longest counts for all.
    windows: Vec<Duration>,
}

impl Generations {
    fn window(&self, least: Duration) -> Duration {
        self.windows.iter().copied().fold(least, Duration::max)
    }
}

/// The memories of a process, each for as long as somebody uses it: a configuration is built before the one that it replaces
/// goes, so a secret that both have keeps what was noted.
#[derive(Default)]
pub struct NonceStores(Mutex<Vec<(Digest, Weak<Mutex<Generations>>)>>);

impl NonceStores {
    /// The nonces of the secret that `stamp` tells from others: remembered for `window` at least, up to `capacity` in each.
    pub fn of(&self, stamp: Digest, window: Duration, capacity: usize) -> Nonces {
        let mut all = self.0.lock();
        all.retain(|(_, store)| store.strong_count() > 0);
        let known = all.iter().find(|(known, _)| *known == stamp).and_then(|(_, store)| store.upgrade());
        let generations = known.unwrap_or_else(|| {
            let new = Arc::default();
            all.push((stamp, Arc::downgrade(&new)));
            new
        });
        generations.lock().windows.push(window);
        Nonces { window, capacity, generations }
    }
}

impl fmt::Debug for NonceStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceStores")
    }
}

/// A bounded memory of the nonces of one secret, which all who have that secret share.
pub struct Nonces {
    window: Duration,
    capacity: usize,
    generations: Arc<Mutex<Generations>>,
}

impl Nonces {
    /// Takes back what was just noted: it is not used after all, or somebody else remembers it.
    pub fn take_back(&self, nonce: &str) {
        let digest = Digest::of(nonce.as_bytes());
        let mut all = self.generations.lock();
        let _ = all.young.remove(&digest) || all.old.remove(&digest);
    }

    /// Notes what was used at `now` (time since some moment).
    pub fn note(&self, nonce: &str, now: Duration) -> Noted {
        let digest = Digest::of(nonce.as_bytes());
        let mut all = self.generations.lock();
        let window = all.window(self.window);
        let age = now.saturating_sub(all.since);
        if age >= window {
            let young = std::mem::take(&mut all.young);
            all.old = if now.saturating_sub(all.last) <= window { young } else { HashSet::new() };
            all.since = now;
        }
        if all.young.contains(&digest) || all.old.contains(&digest) {
            return Noted::Used;
        }
        if all.young.len() >= self.capacity {
            return Noted::Full;
        }
        all.young.insert(digest);
        all.last = now;
        Noted::Fresh
    }
}

impl Drop for Nonces {
    fn drop(&mut self) {
        let windows = &mut self.generations.lock().windows;
        if let Some(at) = windows.iter().position(|window| *window == self.window) {
            windows.swap_remove(at);
        }
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

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn a_nonce_is_good_once_within_the_window() {
        for begun in [0, 7, 9] {
            let nonces = NonceStores::default().of(key("k"), s(10), 100);
            assert_eq!(nonces.note("other", s(0)), Noted::Fresh);
            assert_eq!(nonces.note("n", s(begun)), Noted::Fresh);
            for later in 0..=10 {
                assert_eq!(nonces.note("n", s(begun + later)), Noted::Used, "{begun} {later}");
            }
            assert_eq!(nonces.note("n", s(begun + 40)), Noted::Fresh);
        }
    }

    #[test]
    fn secrets_do_not_share_nonces_and_a_full_store_takes_nothing_in() {
        let stores = NonceStores::default();
        let (a, b) = (stores.of(key("a"), s(10), 2), stores.of(key("b"), s(10), 2));
        assert_eq!(
            (a.note("x", s(0)), b.note("x", s(0)), a.note("y", s(0))),
            (Noted::Fresh, Noted::Fresh, Noted::Fresh)
        );
        assert_eq!((a.note("z", s(1)), b.note("z", s(1))), (Noted::Full, Noted::Fresh), "each has its own room");
        assert_eq!(a.note("x", s(1)), Noted::Used, "what is there stays");
        assert_eq!(a.note("z", s(10)), Noted::Fresh);
    }

    #[test]
    fn what_is_taken_back_leaves_its_room() {
        let nonces = NonceStores::default().of(key("k"), s(10), 1);
        for round in 0..3 {
            assert_eq!((nonces.note("n", s(round)), nonces.note("m", s(round))), (Noted::Fresh, Noted::Full));
            nonces.take_back("n");
        }
        assert_eq!((nonces.note("m", s(9)), nonces.note("n", s(11))), (Noted::Fresh, Noted::Fresh));
        nonces.take_back("m");
        assert_eq!(nonces.note("m", s(11)), Noted::Full, "a generation ago, too");
    }

    #[test]
    fn all_who_have_a_secret_share_its_nonces_for_the_longest_of_their_windows() {
        let stores = NonceStores::default();
        let (short, long) = (stores.of(key("a"), s(10), 100), stores.of(key("a"), s(100), 100));
        assert_eq!(short.note("n", s(200)), Noted::Fresh);
        assert_eq!((short.note("n", s(299)), long.note("n", s(299))), (Noted::Used, Noted::Used));
        assert_eq!(long.note("m", s(299)), Noted::Fresh);
        drop(long);
        let next = stores.of(key("a"), s(10), 100);
        drop(short);
        assert_eq!(next.note("m", s(305)), Noted::Used, "the next configuration keeps it, with a shorter window, too");
        assert_eq!(next.note("m", s(330)), Noted::Fresh, "the window is over");
        drop(next);
        assert_eq!(stores.of(key("b"), s(10), 100).note("n", s(330)), Noted::Fresh);
        assert_eq!(stores.0.lock().len(), 1, "what nobody uses goes");
    }
}
