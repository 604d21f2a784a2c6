//! By what stored answers are found when they are purged: URLs in their order, and tags. What is in it is what is stored:
//! whoever changes the store does so under its lock, and takes out what goes, so that it is bounded as the store is.

use std::{cmp::Ordering, collections::BTreeSet, ops::Bound, sync::Arc};

use super::{key::Key, purge::Purge};

/// The keys of all that is stored.
#[derive(Debug, Default)]
pub(super) struct Index {
    urls: BTreeSet<Place>,
    tags: BTreeSet<(Arc<[u8]>, u128)>,
}

/// A key in the order of URLs.
#[derive(Debug, Clone)]
struct Place(Key);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.url_bytes(), self.0.hash()).cmp(&(other.0.url_bytes(), other.0.hash()))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Place {}

/// How far a search has come.
#[derive(Debug, Clone)]
pub(super) enum Cursor {
    /// Not begun.
    Start,
    /// After this key.
    After(Key),
    /// At its end.
    End,
}

impl Index {
    pub(super) fn add<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        self.urls.insert(Place(key.clone()));
        for tag in tags {
            self.tags.insert((Arc::clone(tag), key.hash()));
        }
    }

    pub(super) fn remove<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        self.urls.remove(&Place(key.clone()));
        for tag in tags {
            self.tags.remove(&(Arc::clone(tag), key.hash()));
        }
    }

    /// The hashes of up to `most` further keys among which are all that the purge is about.
    pub(super) fn find(&self, purge: &Purge, cursor: &mut Cursor, most: usize) -> Vec<u128> {
        match purge {
            Purge::Tag(tag) => self.tagged(tag, cursor, most),
            Purge::Url(url) | Purge::Prefix(url) | Purge::Under(url) if !url.starts_with('/') => {
                self.ranged(url, cursor, most)
            }
            _ => self.ranged("", cursor, most),
        }
    }

    /// Those whose URL begins with `prefix`.
    fn ranged(&self, prefix: &str, cursor: &mut Cursor, most: usize) -> Vec<u128> {
        let start = match &*cursor {
            Cursor::Start => Bound::Included(Place(Key::before(prefix))),
            Cursor::After(key) => Bound::Excluded(Place(key.clone())),
            Cursor::End => return Vec::new(),
        };
        let all = self.urls.range((start, Bound::Unbounded)).map(|place| &place.0);
        let found: Vec<&Key> =
            all.take_while(|key| key.url_bytes().starts_with(prefix.as_bytes())).take(most).collect();
        *cursor = match found.last() {
            Some(last) if found.len() == most => Cursor::After((*last).clone()),
            _ => Cursor::End,
        };
        found.into_iter().map(Key::hash).collect()
    }

    fn tagged(&self, tag: &[u8], cursor: &mut Cursor, most: usize) -> Vec<u128> {
        let tag: Arc<[u8]> = tag.into();
        let start = match &*cursor {
            Cursor::Start => Bound::Included((Arc::clone(&tag), 0)),
            Cursor::After(key) => Bound::Excluded((Arc::clone(&tag), key.hash())),
            Cursor::End => return Vec::new(),
        };
        let all = self.tags.range((start, Bound::Included((tag, u128::MAX)))).map(|(_, hash)| *hash);
        let found: Vec<u128> = all.take(most).collect();
        *cursor = match found.last() {
            Some(last) if found.len() == most => Cursor::After(Key::hashed(*last)),
            _ => Cursor::End,
        };
        found
    }

    /// How many keys there are, and how many tags of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.urls.len(), self.tags.len())
    }
}
