//! The process that takes over from this one, as far as kept answers are concerned: it is told of what is purged here from then
//! on, for requests that change something may still be under way.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::cache::purge::{Manner, Purge};

/// So many words wait to be said; with more, nothing is said any more.
const WAITING: usize = 1024;

/// Time between two looks whether somebody is impatient.
const LOOK: Duration = Duration::from_millis(50);

/// What a successor is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Something was purged.
    Purged(Purge, Manner),
    /// There is nothing more to be told.
    Bye,
}

/// The successor of this process, if there is one.
#[derive(Debug, Default)]
pub struct Successor {
    /// Held by purges until they are done.
    words: RwLock<Option<SyncSender<Word>>>,
    told: Mutex<bool>,
    changed: Condvar,
    settings: Mutex<Option<u64>>,
}

impl Successor {
    /// Purges by `act`, and has the successor told.
    pub fn purge<R>(&self, purge: &Purge, manner: Manner, act: impl FnOnce() -> R) -> R {
        let words = self.words.read();
        let done = act();
        let word = |words: &SyncSender<Word>| words.try_send(Word::Purged(purge.clone(), manner));
        let missed = words.as_ref().is_some_and(|words| word(words).is_err());
        drop(words);
        if missed {
            // It hears nothing more, not even a farewell: so it knows that it has missed something.
            *self.words.write() = None;
        }
        done
    }

    /// What there is to tell it, of all purges that are not done when this returns.
    pub fn begin(&self) -> Receiver<Word> {
        let (words, receiver) = sync_channel(WAITING);
        *self.told.lock() = false;
        *self.words.write() = Some(words);
        receiver
    }

    /// From now on, answers are made by these settings; `None`: they are kept where others find them by themselves.
    pub fn set_settings(&self, settings: Option<u64>) {
        *self.settings.lock() = settings;
    }

    /// See [`Self::set_settings`].
    pub fn settings(&self) -> Option<u64> {
        *self.settings.lock()
    }

    /// All has been told, or cannot be.
    pub fn has_been_told(&self) {
        *self.told.lock() = true;
        self.changed.notify_all();
    }

    /// Nothing more is purged here; waits so long at most until the successor knows all, and no longer than nobody is
    /// `impatient`.
    pub fn leave(&self, longest: Duration, impatient: impl Fn() -> bool) {
        let Some(words) = self.words.write().take() else { return };
        if words.try_send(Word::Bye).is_err() {
            return;
        }
        let (begun, mut told) = (Instant::now(), self.told.lock());
        while !*told && begun.elapsed() < longest && !impatient() {
            self.changed.wait_for(&mut told, LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_hears_of_what_is_purged_after_it_has_come() {
        let (successor, purge) = (Successor::default(), Purge::All);
        assert_eq!(successor.purge(&purge, Manner::Hard, || 7), 7);
        let words = successor.begin();
        successor.purge(&purge, Manner::Soft, || ());
        successor.leave(Duration::ZERO, || false);
        successor.purge(&purge, Manner::Hard, || ());
        assert_eq!(words.try_iter().collect::<Vec<_>>(), [Word::Purged(purge, Manner::Soft), Word::Bye]);
    }

    #[test]
    fn one_that_has_missed_something_hears_no_farewell() {
        let successor = Successor::default();
        let words = successor.begin();
        (0..=WAITING).for_each(|_| successor.purge(&Purge::All, Manner::Hard, || ()));
        successor.leave(Duration::ZERO, || false);
        let words: Vec<_> = words.iter().collect();
        assert!(words.len() == WAITING && !words.contains(&Word::Bye));
    }
}
