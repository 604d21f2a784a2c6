//! The processes that this one takes over from and that takes over from it, as far as kept answers are concerned: each tells the
//! others of what is purged, for both answer requests for a while, and requests that change something may be under way in the older
//! one.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::cache::{
    purge::{Manner, Purge},
    query::QueryRule,
};

/// So many words wait to be said; with more, nothing is said any more.
const WAITING: usize = 1024;

/// Time between two looks whether somebody is impatient.
const LOOK: Duration = Duration::from_millis(50);

/// What a neighbour is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Something was purged.
    Purged(Purge, Manner),
    /// The successor would have more files.
    More,
    /// There is nothing more to be told.
    Bye,
}

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
    /// Which part of a query counts, by each of the routes that keep answers.
    pub queries: Vec<QueryRule>,
}

/// Held by purges until they are done.
type Words = RwLock<Option<SyncSender<Word>>>;

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
        let misses = |side: Side, words: &Option<SyncSender<Word>>| {
            let words = words.as_ref().filter(|_| from != Some(side));
            words.is_some_and(|words| words.try_send(Word::Purged(purge.clone(), manner)).is_err())
        };
        let missed = [misses(Side::Before, &before), misses(Side::After, &after)];
        drop((before, after));
        // It hears nothing more, not even a farewell: so it knows that it has missed something.
        for (words, _) in [&self.before, &self.after].into_iter().zip(missed).filter(|(_, missed)| *missed) {
            *words.write() = None;
        }
        done
    }

    /// There is, or will be in a moment, a process before: what there is to tell it, of all purges that are not done when this returns.
    pub fn follow(&self) -> Receiver<Word> {
        *self.owed.lock() = true;
        begin(&self.before)
    }

    /// The process before says nothing more.
    pub fn has_ended(&self) {
        *self.before.write() = None;
        *self.owed.lock() = false;
    }

    /// There is, or will be in a moment, a successor: what there is to tell it, of all purges that are not done when this returns.
    pub fn precede(&self) -> Receiver<Word> {
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
        *self.owed.lock() && self.has_successor()
    }

    /// True when another process is told what is purged here.
    pub fn are_there(&self) -> bool {
        self.before.read().is_some() || self.has_successor()
    }

    fn has_successor(&self) -> bool {
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
            // With too much to say, it is not said, and no more come.
            let _ = words.try_send(Word::More);
        }
    }

    /// The successor would have more files.
    pub fn is_asked_for_more(&self) {
        let asked = self.after.read().as_ref().is_some_and(|words| words.try_send(Word::More).is_ok());
        self.gives.store(asked, Relaxed);
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
        let owed = *self.owed.lock();
        let Some(words) = self.after.write().take() else { return };
        if owed || words.try_send(Word::Bye).is_err() {
            return;
        }
        let (begun, mut told) = (Instant::now(), self.told.lock());
        while !*told && begun.elapsed() < longest && !impatient() {
            self.changed.wait_for(&mut told, LOOK);
        }
    }
}

fn begin(words: &Words) -> Receiver<Word> {
    let (sender, receiver) = sync_channel(WAITING);
    *words.write() = Some(sender);
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(neighbours: &Neighbours, from: Option<Side>) {
        neighbours.purge(from, &Purge::All, Manner::Hard, || ());
    }

    fn heard(words: &Receiver<Word>) -> usize {
        words.try_iter().filter(|word| *word != Word::Bye).count()
    }

    #[test]
    fn a_successor_hears_of_what_is_purged_after_it_has_come() {
        let (neighbours, purge) = (Neighbours::default(), Purge::All);
        assert_eq!(neighbours.purge(None, &purge, Manner::Hard, || 7), 7);
        let words = neighbours.precede();
        neighbours.purge(None, &purge, Manner::Soft, || ());
        neighbours.leave(Duration::ZERO, || false);
        neighbours.purge(None, &purge, Manner::Hard, || ());
        assert_eq!(words.try_iter().collect::<Vec<_>>(), [Word::Purged(purge, Manner::Soft), Word::Bye]);
    }

    #[test]
    fn one_that_has_missed_something_hears_no_farewell() {
        let neighbours = Neighbours::default();
        let words = neighbours.precede();
        (0..=WAITING).for_each(|_| purge(&neighbours, None));
        neighbours.leave(Duration::ZERO, || false);
        let words: Vec<_> = words.iter().collect();
        assert!(words.len() == WAITING && !words.contains(&Word::Bye));
    }

    #[test]
    fn nobody_waits_for_a_successor_that_has_not_taken_over() {
        let neighbours = Neighbours::default();
        let words = neighbours.precede();
        assert!(neighbours.are_there());
        neighbours.has_no_successor();
        purge(&neighbours, None);
        assert!(!neighbours.are_there() && words.iter().next().is_none());
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
            assert_eq!(after.iter().any(|word| word == Word::Bye), ended);
        }
    }
}
