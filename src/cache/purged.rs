//! What was purged while an answer was on its way: it was made before, and must not be kept. A few fixed tables say when a
//! URL or a tag was purged last; two that share a slot cost an answer that could have been kept, and never a wrong one.

use std::{collections::VecDeque, sync::Arc};

use ahash::RandomState;

use super::{
    purge::{Purge, in_form_of, under},
    vary::Selection,
};

/// One slot for each value of 16 bits of a hash.
const SLOTS: usize = 1 << 16;
/// The most prefixes that are remembered; after that, the oldest counts for everything.
const PREFIXES: usize = 64;

/// Tells apart the variants of a key.
fn variant(key: u128, selection: &Selection) -> Vec<u8> {
    [&key.to_le_bytes()[..], selection.name().as_bytes()].concat()
}

/// The purges that there have been, as much of them as is needed.
#[derive(Debug, Clone)]
pub struct Purged {
    count: u64,
    /// The number of the last purge of a URL, a tag or a key with this hash.
    slots: Box<[u64]>,
    prefixes: VecDeque<(u64, Purge)>,
    /// The number of the last purge that counts for everything.
    everything: u64,
    hasher: RandomState,
}

impl Default for Purged {
    fn default() -> Self {
        let slots = vec![0; SLOTS].into();
        Self { count: 0, slots, prefixes: VecDeque::new(), everything: 0, hasher: RandomState::new() }
    }
}

impl Purged {
    /// As if there had been so many, the last one of everything.
    pub fn begin_at(&mut self, count: u64) {
        (self.count, self.everything) = (count, count);
    }

    /// Remembers a purge; gives back how many there have been.
    pub fn add(&mut self, purge: &Purge) -> u64 {
        self.add_all(std::slice::from_ref(purge));
        self.count
    }

    /// Remembers several that count as one.
    pub fn add_all(&mut self, purges: &[Purge]) {
        self.count += 1;
        for purge in purges {
            self.note(purge);
        }
    }

    /// Remembers that there is something newer than what was under a key, or nothing any more; gives back how many purges there have been.
    pub fn add_key(&mut self, key: u128) -> u64 {
        self.count += 1;
        *self.slot(3, &key.to_le_bytes()) = self.count;
        self.count
    }

    /// True when this was remembered of a key after there had been `since` purges.
    pub fn was_key(&self, since: u64, key: u128) -> bool {
        self.count != since && self.slots[self.at(3, &key.to_le_bytes())] > since
    }

    /// Remembers that there is something newer than what was for these requests under a key; gives back how many purges there
    /// have been.
    pub fn add_variant(&mut self, key: u128, selection: &Selection) -> u64 {
        if selection.is_any() {
            return self.add_key(key);
        }
        self.count += 1;
        for selection in [selection, &Selection::default()] {
            *self.slot(4, &variant(key, selection)) = self.count;
        }
        self.count
    }

    /// True when this, or the same of its key, was remembered after there had been `since` purges.
    pub fn was_variant(&self, since: u64, key: u128, selection: &Selection) -> bool {
        self.count != since && (self.was_key(since, key) || self.slots[self.at(4, &variant(key, selection))] > since)
    }

    fn note(&mut self, purge: &Purge) {
        match purge {
            Purge::Url(url) => *self.slot(0, url.as_bytes()) = self.count,
            Purge::Tag(tag) => *self.slot(1, tag) = self.count,
            Purge::Under(url) => *self.slot(2, url.as_bytes()) = self.count,
            Purge::All => {
                self.everything = self.count;
                self.prefixes.clear();
            }
            Purge::Prefix(_) => {
                self.prefixes.push_back((self.count, purge.clone()));
                if self.prefixes.len() > PREFIXES
                    && let Some((number, _)) = self.prefixes.pop_front()
                {
                    self.everything = self.everything.max(number);
                }
            }
        }
    }

    /// True when something that is about this URL or these tags was purged after there had been `since` purges.
    pub fn was(&self, since: u64, url: &str, tags: &[Arc<[u8]>]) -> bool {
        if self.count == since {
            return false;
        }
        let later = |kind, text: &[u8]| self.slots[self.at(kind, text)] > since;
        self.everything > since
            || later(0, url.as_bytes())
            || later(0, in_form_of("/", url).as_bytes())
            || later(2, under(url).as_bytes())
            || later(2, under(in_form_of("/", url)).as_bytes())
            || tags.iter().any(|tag| later(1, tag))
            || self.prefixes.iter().any(|(number, purge)| *number > since && purge.is_about(url, tags))
    }

    fn at(&self, kind: u8, text: &[u8]) -> usize {
        usize::try_from(self.hasher.hash_one((kind, text)) % SLOTS as u64).unwrap_or(0)
    }

    fn slot(&mut self, kind: u8, text: &[u8]) -> &mut u64 {
        let at = self.at(kind, text);
        &mut self.slots[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_remembered() {
        let (url, tags): (_, [Arc<[u8]>; 1]) = ("http://h/a/b?c", [(*b"t").into()]);
        for purge in [
            Purge::Url(url.to_owned()),
            Purge::Url("/a/b?c".to_owned()),
            Purge::Under("http://h/a/b".to_owned()),
            Purge::Under("/a/b".to_owned()),
            Purge::Prefix("http://h/a".to_owned()),
            Purge::Prefix("/a/".to_owned()),
            Purge::Tag(b"t".to_vec()),
            Purge::All,
        ] {
            let mut purged = Purged::default();
            let before = purged.add(&Purge::Url("http://other/".to_owned()));
            assert!(!purged.was(before, url, &tags));
            let after = purged.add(&purge);
            assert!(purged.was(before, url, &tags), "{purge:?}");
            assert!(!purged.was(after, url, &tags), "{purge:?}");
        }
        let mut purged = Purged::default();
        for purge in [Purge::Url("http://h/a".to_owned()), Purge::Tag(b"u".to_vec()), Purge::Prefix("/b".to_owned())] {
            purged.add(&purge);
        }
        assert!(!purged.was(0, url, &tags));
    }

    #[test]
    fn a_forgotten_prefix_counts_for_everything() {
        let mut purged = Purged::default();
        for number in 0..=PREFIXES {
            purged.add(&Purge::Prefix(format!("/{number}")));
        }
        assert!(purged.was(0, "http://h/x", &[]) && !purged.was(1, "http://h/x", &[]));
    }
}
