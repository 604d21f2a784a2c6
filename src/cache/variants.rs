//! All that is stored under one key: an answer without `Vary`, or one for each kind of request (RFC 9111 §4.1).

use std::sync::Arc;

use http::HeaderMap;

use super::{allocated::allocated, entry::Entry, key::Key, vary::Selection};

/// The most variants of one key: with more, the oldest goes. A client that makes up values of a field that `Vary` names can
/// push out the variants of one URL, and nothing else.
const MOST: usize = 32;

/// What a key costs beside its bytes and its entries: its places in the map and in the index of URLs, and what remembers it
/// after it has been pushed out.
const OVERHEAD: usize = 256;

/// What each tag of an entry costs in the index.
const TAG_OVERHEAD: usize = 64;

/// The entries of a key, the newest first; never empty.
#[derive(Debug)]
pub struct Variants {
    /// The key, to be compared with the one that is looked for.
    pub key: Key,
    entries: Vec<Arc<Entry>>,
    weight: u64,
}

impl Variants {
    /// These entries, if there is one.
    pub fn new(key: Key, mut entries: Vec<Arc<Entry>>) -> Option<Self> {
        entries.truncate(MOST);
        entries.shrink_to_fit();
        let own = allocated(key.bytes().len() + 16) + allocated(size_of::<Self>() + 16) + OVERHEAD;
        let weight = entries.iter().map(|entry| cost(entry)).fold(own as u64, u64::saturating_add);
        (!entries.is_empty()).then_some(Self { key, entries, weight })
    }

    /// The newest entry that is for the request.
    pub fn select(&self, request: &HeaderMap) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.selection.matches(request, &entry.headers))
    }

    /// Tells the variant that the request wants from the others, by the fields of the newest; empty for an answer to all requests.
    pub fn wanted(&self, request: &HeaderMap) -> String {
        let newest = self.entries.first();
        newest.and_then(|entry| entry.selection.wanted(request)).unwrap_or_default()
    }

    /// The entries when `new` is one of them, which may have come long ago: it takes the place of those for the same requests. With
    /// less than `room` bytes for all of them, the oldest are left out, but never the new one.
    pub fn with(&self, new: Arc<Entry>, room: u64) -> Vec<Arc<Entry>> {
        let known: u64 = self.entries.iter().map(|entry| cost(entry)).sum();
        let mut left = room.saturating_sub(self.weight.saturating_sub(known)).saturating_sub(cost(&new));
        let mut all = Vec::with_capacity(self.entries.len() + 1);
        // One that answers for all requests leaves nothing to those that were told apart before.
        let others = self.entries.iter().filter(|_| !new.selection.is_any());
        let others = others.filter(|entry| !entry.selection.is_any() && entry.selection != new.selection);
        for entry in others.take(MOST - 1) {
            let Some(rest) = left.checked_sub(cost(entry)) else { break };
            left = rest;
            all.push(Arc::clone(entry));
        }
        let place = all.iter().position(|entry| entry.stored.since_start <= new.stored.since_start);
        all.insert(place.unwrap_or(all.len()), new);
        all
    }

    /// Those that there was no room for beside `kept`, and that are good still: not those whose place an answer for these
    /// requests has taken.
    pub(super) fn without(&self, kept: &[Arc<Entry>], new: &Selection) -> Option<Self> {
        let left_out =
            |entry: &&Arc<Entry>| !new.replaces(&entry.selection) && !kept.iter().any(|kept| Arc::ptr_eq(kept, entry));
        Self::new(self.key.clone(), self.entries.iter().filter(left_out).cloned().collect())
    }

    /// What its entries can be purged by.
    pub(super) fn tags(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.entries.iter().flat_map(|entry| entry.tags.iter())
    }

    /// The entries.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// About how many bytes of memory all of it takes, with its part of the store.
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// What an entry costs, with its place among the variants and its places in the index.
fn cost(entry: &Entry) -> u64 {
    (entry.weight() + size_of::<Arc<Entry>>() + entry.tags.len() * TAG_OVERHEAD) as u64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{
        super::{
            key::{KeyParts, Keys},
            test_entry::Made,
        },
        *,
    };

    fn key() -> Key {
        let made = Made::under("{}");
        Keys::default().key(&KeyParts {
            route: 0,
            policy: &made.policy,
            secure: false,
            host: "h",
            path: "/",
            spelled: None,
            query: None,
            identity: &[],
            request: &made.request,
            told: &[],
        })
    }

    fn variant(value: &str) -> Arc<Entry> {
        Arc::new(Made::saying("max-age=9").with("vary", "foo").asked_with("foo", value).entry())
    }

    fn request(value: &str) -> HeaderMap {
        Made::under("{}").asked_with("foo", value).request
    }

    #[test]
    fn the_newest_that_is_for_the_request() {
        let (one, two) = (variant("1"), variant("2"));
        let all = Variants::new(key(), vec![Arc::clone(&one)]).unwrap();
        let all = Variants::new(key(), all.with(Arc::clone(&two), u64::MAX)).unwrap();
        assert!(Arc::ptr_eq(all.select(&request("1")).unwrap(), &one));
        assert!(Arc::ptr_eq(all.select(&request("2")).unwrap(), &two));
        assert!(all.select(&request("3")).is_none() && all.select(&HeaderMap::new()).is_none());
        // A new one takes the place of the old one, and one for all that of all.
        let newer = variant("1");
        let all = Variants::new(key(), all.with(Arc::clone(&newer), u64::MAX)).unwrap();
        assert!(Arc::ptr_eq(all.select(&request("1")).unwrap(), &newer) && all.entries().len() == 2);
        let any = Arc::new(Made::saying("max-age=9").entry());
        let all = Variants::new(key(), all.with(any, u64::MAX)).unwrap();
        assert!(all.entries().len() == 1 && all.select(&request("7")).is_some());
        let all = Variants::new(key(), all.with(newer, u64::MAX)).unwrap();
        assert!(all.entries().len() == 1 && all.select(&request("7")).is_none());
    }

    #[test]
    fn there_are_not_too_many() {
        let mut all = Variants::new(key(), vec![variant("first")]).unwrap();
        for number in 0..100 {
            all = Variants::new(key(), all.with(variant(&number.to_string()), u64::MAX)).unwrap();
        }
        assert_eq!(all.entries().len(), MOST);
        assert!(all.select(&request("99")).is_some() && all.select(&request("first")).is_none());
        let few = all.with(variant("new"), all.weight() / 4);
        assert!((2..MOST / 2).contains(&few.len()), "{}", few.len());
        assert_eq!(all.with(variant("new"), 0).len(), 1);
        // What is left in its room fits into it, tags and all.
        let mut all = Variants::new(key(), vec![variant("first")]).unwrap();
        let room = 5 * all.weight();
        for number in 0..100 {
            let tagged = Made::saying("max-age=9").with("vary", "foo").asked_with("foo", &number.to_string());
            let tagged = Arc::new(tagged.with("surrogate-key", "a b c d e f g h").entry());
            all = Variants::new(key(), all.with(tagged, room)).unwrap();
            assert!(all.weight() <= room && (number == 0 || all.entries().len() > 1), "{}", all.entries().len());
        }
        assert!(Variants::new(key(), Vec::new()).is_none());
    }
}
