//! The processes that this one takes over from and that takes over from it, as far as kept answers are concerned: each tells the
//! others of what is purged, for both answer requests for a while, and requests that change something may be under way in the older
//! one.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};

use super::words::{Listener, Speaker, Word, words};
use crate::cache::{
    purge::{Manner, Purge},
    query::QueryRule,
};

/// Time between two looks whether somebody is impatient.
const LOOK: Duration = Duration::from_millis(50);

/// One of the neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The process that this one has taken over from.
    Before,
    /// The process that has taken over from this one.
    After,
}

/// What answers are made by.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Equal where the same settings hold; `None`: answers are kept where others find them by themselves.
    pub id: Option<u64>,
    /// Which that is: there, others hear of purges by themselves, too.
    pub redis: Option<u64>,
    /// Which part of a query counts, by each of the routes that keep answers.
    pub queries: Vec<QueryRule>,
}

/// Held by purges until they are done.
type Words = RwLock<Option<Speaker>>;

/// The neighbours of this process, where there are any.
#[derive(Debug, Default)]
pub struct Neighbours {
    before: Words,
    after: Words,
    /// The process before may still say something.
    owed: Mutex<bool>,
    told: Mutex<bool>,
    /// The successor takes over files.
    gives: AtomicBool,
    changed: Condvar,
    settings: Mutex<Settings>,
}

impl Neighbours {
    /// Purges by `act`, and has the neighbours told, but for the one that has said it.
    pub fn purge<R>(&self, from: Option<Side>, purge: &Purge, manner: Manner, act: impl FnOnce() -> R) -> R {
        let (before, after) = (self.before.read(), self.after.read());
        let done = act();
        for (side, words) in [(Side::Before, &before), (Side::After, &after)] {
            if let Some(words) = words.as_ref().filter(|_| from != Some(side)) {
                words.tell(Word::Purged(purge.clone(), manner));
            }
        }
        done
    }

    /// There is, or will be in a moment, a process before: what there is to tell it, of all purges that are not done when this returns.
    pub fn follow(&self) -> Listener {
        *self.owed.lock() = true;
        begin(&self.before)
    }

    /// The process before says nothing more.
    pub fn has_ended(&self) {
        *self.before.write() = None;
        *self.owed.lock() = false;
    }

    /// There is, or will be in a moment, a successor: what there is to tell it, of all purges that are not done when this returns.
    pub fn precede(&self) -> Listener {
        *self.told.lock() = false;
        begin(&self.after)
    }

    /// The successor has not taken over, or wants to be told nothing.
    pub fn has_no_successor(&self) {
        *self.after.write() = None;
        self.has_been_told();
    }

    /// True while the process before may say something that the successor has to know.
    pub fn has_more_to_tell(&self) -> bool {
        self.is_owed() && self.has_successor()
    }

    /// True while the process before may say something.
    pub fn is_owed(&self) -> bool {
        *self.owed.lock()
    }

    /// True when another process is told what is purged here.
    pub fn are_there(&self) -> bool {
        self.before.read().is_some() || self.has_successor()
    }

    /// True while there is a successor that is to know what is purged here.
    pub fn has_successor(&self) -> bool {
        self.after.read().is_some()
    }

    /// From now on, answers are made by these settings.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// See [`Self::set_settings`].
    pub fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    /// Has the process before told that more files would be taken over.
    pub fn ask_for_more(&self) {
        if let Some(words) = &*self.before.read() {
            words.tell(Word::More);
        }
    }

    /// The successor would have more files.
    pub fn is_asked_for_more(&self) {
        if let Some(words) = &*self.after.read() {
            self.gives.store(true, Relaxed);
            words.tell(Word::More);
        }
    }

    /// There are no more files that the successor could take over.
    pub fn has_given_all(&self) {
        self.gives.store(false, Relaxed);
    }

    /// True while the successor takes over files.
    pub fn gives_more(&self) -> bool {
        self.gives.load(Relaxed)
    }

    /// All has been told, or cannot be.
    pub fn has_been_told(&self) {
        self.has_given_all();
        *self.told.lock() = true;
        self.changed.notify_all();
    }

    /// Nothing more is purged here; waits so long at most until the successor knows all, and no longer than nobody is
    /// `impatient`. It hears no farewell when the process before may still have something to say.
    pub fn leave(&self, longest: Duration, impatient: impl Fn() -> bool) {
        let owed = self.is_owed();
        let Some(words) = self.after.write().take() else { return };
        if owed {
            return;
        }
        words.tell(Word::Bye);
        drop(words);
        let (begun, mut told) = (Instant::now(), self.told.lock());
        while !*told && begun.elapsed() < longest && !impatient() {
            self.changed.wait_for(&mut told, LOOK);
        }
    }
}

fn begin(place: &Words) -> Listener {
    let (speaker, listener) = words();
    *place.write() = Some(speaker);
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(neighbours: &Neighbours, from: Option<Side>) {
        neighbours.purge(from, &Purge::All, Manner::Hard, || ());
    }

    fn all(words: &Listener) -> Vec<Word> {
        std::iter::from_fn(|| words.has_heard()).collect()
    }

    fn heard(words: &Listener) -> usize {
        all(words).iter().filter(|word| **word != Word::Bye).count()
    }

    #[test]
    fn a_successor_hears_of_what_is_purged_after_it_has_come() {
        let (neighbours, purge) = (Neighbours::default(), Purge::All);
        assert_eq!(neighbours.purge(None, &purge, Manner::Hard, || 7), 7);
        let words = neighbours.precede();
        neighbours.purge(None, &purge, Manner::Soft, || ());
        neighbours.leave(Duration::ZERO, || false);
        neighbours.purge(None, &purge, Manner::Hard, || ());
        assert_eq!(all(&words), [Word::Purged(purge, Manner::Soft), Word::Bye]);
    }

    #[test]
    fn nobody_waits_for_a_successor_that_has_not_taken_over() {
        let neighbours = Neighbours::default();
        let words = neighbours.precede();
        assert!(neighbours.are_there());
        neighbours.has_no_successor();
        purge(&neighbours, None);
        assert!(!neighbours.are_there() && words.hear().is_none());
        let begun = Instant::now();
        neighbours.leave(Duration::from_secs(60), || false);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn everybody_hears_but_the_one_who_has_said_it() {
        let neighbours = Neighbours::default();
        let (before, after) = (neighbours.follow(), neighbours.precede());
        for (from, expected) in [(None, (1, 1)), (Some(Side::Before), (0, 1)), (Some(Side::After), (1, 0))] {
            purge(&neighbours, from);
            assert_eq!((heard(&before), heard(&after)), expected, "{from:?}");
        }
        neighbours.has_ended();
        purge(&neighbours, None);
        assert_eq!((heard(&before), heard(&after)), (0, 1));
    }

    #[test]
    fn no_farewell_comes_before_that_of_the_process_before() {
        for ended in [false, true] {
            let neighbours = Neighbours::default();
            let _before = neighbours.follow();
            assert!(!neighbours.has_more_to_tell(), "there is nobody to tell");
            let after = neighbours.precede();
            assert!(neighbours.has_more_to_tell());
            if ended {
                neighbours.has_ended();
                assert!(!neighbours.has_more_to_tell());
            }
            neighbours.leave(Duration::ZERO, || false);
            assert_eq!(all(&after).contains(&Word::Bye), ended);
        }
    }
}
