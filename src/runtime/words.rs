//! What there is to tell a neighbour, in order. Nobody waits who tells, and nothing that is to be told is lost: where too much waits, all
//! of it becomes one purge of everything.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Condvar, Mutex};

use crate::cache::purge::{Manner, Purge};

/// So many words wait to be said.
const WAITING: usize = 1024;

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

#[derive(Debug, Default)]
struct Queue {
    words: Mutex<(VecDeque<Word>, bool)>,
    changed: Condvar,
}

/// Where words are told; there are no more when this is dropped.
#[derive(Debug)]
pub struct Speaker(Arc<Queue>);

/// Where they are heard.
#[derive(Debug)]
pub struct Listener(Arc<Queue>);

/// Both ends.
pub fn words() -> (Speaker, Listener) {
    let queue = Arc::<Queue>::default();
    (Speaker(queue.clone()), Listener(queue))
}

impl Speaker {
    /// Tells a word.
    pub fn tell(&self, word: Word) {
        let (words, _) = &mut *self.0.words.lock();
        if words.len() < WAITING {
            words.push_back(word);
        } else if word != Word::More {
            let said_last = if word == Word::Bye { Some(word) } else { None };
            words.clear();
            words.push_back(Word::Purged(Purge::All, Manner::Hard));
            words.extend(said_last);
        }
        self.0.changed.notify_one();
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0.words.lock().1 = true;
        self.0.changed.notify_one();
    }
}

impl Listener {
    /// The next word, which is waited for; nothing when there are no more.
    pub fn hear(&self) -> Option<Word> {
        let mut words = self.0.words.lock();
        self.0.changed.wait_while(&mut words, |(words, is_over)| words.is_empty() && !*is_over);
        words.0.pop_front()
    }

    /// The next word, if there is one by now.
    pub fn has_heard(&self) -> Option<Word> {
        self.0.words.lock().0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_everything_and_what_comes_later_is_told() {
        let (speaker, listener) = words();
        let url = |number: usize| Word::Purged(Purge::Url(format!("http://a.test/{number}")), Manner::Soft);
        let all = Word::Purged(Purge::All, Manner::Hard);
        (0..=WAITING).for_each(|number| speaker.tell(url(number)));
        speaker.tell(url(7));
        assert_eq!([listener.hear(), listener.hear(), listener.has_heard()], [Some(all.clone()), Some(url(7)), None]);
        (0..WAITING).for_each(|_| speaker.tell(Word::More));
        speaker.tell(Word::More);
        speaker.tell(Word::Bye);
        drop(speaker);
        assert_eq!([listener.hear(), listener.hear(), listener.hear()], [Some(all), Some(Word::Bye), None]);
    }

    #[test]
    fn who_hears_waits_for_words_and_for_their_end() {
        let (speaker, listener) = words();
        let hearing = std::thread::spawn(move || std::iter::from_fn(|| listener.hear()).count());
        speaker.tell(Word::More);
        std::thread::sleep(std::time::Duration::from_millis(20));
        speaker.tell(Word::Bye);
        drop(speaker);
        assert_eq!(hearing.join().ok(), Some(2));
    }
}
