//! By what stored answers are found when they are purged: URLs and tags. What is in it is what is stored: whoever changes the store
//! does so under its lock, and takes out what goes, so that it is bounded as the store is.
//!
//! URLs are in it as numbers, for nearly every change is an answer that is stored or makes room, and comparing the URLs themselves would
//! fetch a dozen of them from memory each time. So a purge of one URL looks at that one alone, and one of a prefix at all.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use ahash::RandomState;

use super::{
    key::Key,
    purge::{Purge, under},
};

/// The keys of all that is stored.
#[derive(Debug, Default)]
pub(super) struct Index {
    urls: BTreeSet<Place>,
    tags: BTreeSet<(Arc<[u8]>, u128)>,
    hasher: RandomState,
}

/// Where a key stands: with all of its URL, and before that with all of the same path. Two URLs with the same number stand together,
/// and are told apart by whoever has found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of the URL without its query.
    path: u64,
    url: u64,
    key: u128,
}

/// How far a search has come.
#[derive(Debug, Clone)]
pub(super) enum Cursor {
    /// Not begun.
    Start,
    /// After this place; that of a tag has a key only.
    After(Place),
    /// At its end.
    End,
}

impl Place {
    const FIRST: Self = Self { path: 0, url: 0, key: 0 };
    const LAST: Self = Self { path: u64::MAX, url: u64::MAX, key: u128::MAX };
}

impl Index {
    pub(super) fn add<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        self.urls.insert(self.place(key));
        for tag in tags {
            self.tags.insert((Arc::clone(tag), key.hash()));
        }
    }

    pub(super) fn remove<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        self.urls.remove(&self.place(key));
        for tag in tags {
            self.tags.remove(&(Arc::clone(tag), key.hash()));
        }
    }

    fn place(&self, key: &Key) -> Place {
        Place { key: key.hash(), ..self.of_url(key.url()) }
    }

    /// The first place of a URL.
    fn of_url(&self, url: &str) -> Place {
        Place { url: self.hasher.hash_one(url), ..self.of_path(under(url)) }
    }

    /// The first place of a URL without its query.
    fn of_path(&self, path: &str) -> Place {
        Place { path: self.hasher.hash_one(path), ..Place::FIRST }
    }

    /// The hashes of up to `most` further keys among which are all that the purge is about.
    pub(super) fn find(&self, purge: &Purge, cursor: &mut Cursor, most: usize) -> Vec<u128> {
        match purge {
            Purge::Tag(tag) => self.tagged(tag, cursor, most),
            Purge::Url(url) if !url.starts_with('/') => {
                let first = self.of_url(url);
                self.between(first, Place { key: u128::MAX, ..first }, cursor, most)
            }
            Purge::Under(path) if !path.starts_with('/') => {
                let first = self.of_path(path);
                self.between(first, Place { path: first.path, ..Place::LAST }, cursor, most)
            }
            _ => self.between(Place::FIRST, Place::LAST, cursor, most),
        }
    }

    fn between(&self, first: Place, last: Place, cursor: &mut Cursor, most: usize) -> Vec<u128> {
        let start = match *cursor {
            Cursor::Start => Bound::Included(first),
            Cursor::After(place) => Bound::Excluded(place),
            Cursor::End => return Vec::new(),
        };
        proceed(self.urls.range((start, Bound::Included(last))).copied(), cursor, most)
    }

    fn tagged(&self, tag: &[u8], cursor: &mut Cursor, most: usize) -> Vec<u128> {
        let tag: Arc<[u8]> = tag.into();
        let start = match *cursor {
            Cursor::Start => Bound::Included((Arc::clone(&tag), 0)),
            Cursor::After(place) => Bound::Excluded((Arc::clone(&tag), place.key)),
            Cursor::End => return Vec::new(),
        };
        let all = self.tags.range((start, Bound::Included((tag, u128::MAX))));
        proceed(all.map(|(_, key)| Place { key: *key, ..Place::FIRST }), cursor, most)
    }

    /// How many keys there are, and how many tags of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.urls.len(), self.tags.len())
    }
}

/// The keys of the next `most` places.
fn proceed(places: impl Iterator<Item = Place>, cursor: &mut Cursor, most: usize) -> Vec<u128> {
    let found: Vec<Place> = places.take(most).collect();
    *cursor = match found.last() {
        Some(last) if found.len() == most => Cursor::After(*last),
        _ => Cursor::End,
    };
    found.iter().map(|place| place.key).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderMap;

    use super::{
        super::{
            config::CacheConfig,
            key::{KeyParts, Keys},
        },
        *,
    };

    fn key(keys: &Keys, path: &str, query: Option<&str>) -> Key {
        let policy = serde_yaml::from_str::<CacheConfig>("{}").unwrap().policy().unwrap();
        let (host, request) = ("a.test", &HeaderMap::new());
        let (identity, told): (&[&[u8]], &[&[u8]]) = (&[], &[]);
        keys.key(&KeyParts { route: 1, policy: &policy, secure: false, host, path, query, identity, request, told })
    }

    /// What is found, in batches of this size; none of it twice.
    fn all(index: &Index, purge: &Purge, most: usize) -> BTreeSet<u128> {
        let (mut cursor, mut found) = (Cursor::Start, BTreeSet::new());
        while !matches!(cursor, Cursor::End) {
            let some = index.find(purge, &mut cursor, most);
            assert!(some.len() <= most);
            for key in some {
                assert!(found.insert(key));
            }
        }
        found
    }

    #[test]
    fn a_url_is_found_without_a_look_at_those_that_begin_so() {
        let (keys, mut index) = (Keys::default(), Index::default());
        let hashes = |of: &[&Key]| of.iter().map(|key| key.hash()).collect::<BTreeSet<_>>();
        let [list, other, one] = [("/items", None), ("/items", Some("page=2")), ("/items/1", None)]
            .map(|(path, query)| key(&keys, path, query));
        let tag: Arc<[u8]> = b"t"[..].into();
        for key in [&list, &other, &one] {
            index.add(key, std::iter::once(&tag));
        }
        let items = "http://a.test/items".to_owned();
        for most in [1, 2, 3, 9] {
            assert_eq!(all(&index, &Purge::Url(items.clone()), most), hashes(&[&list]));
            assert_eq!(all(&index, &Purge::Url(format!("{items}?page=2")), most), hashes(&[&other]));
            assert_eq!(all(&index, &Purge::Under(items.clone()), most), hashes(&[&list, &other]));
            assert!(all(&index, &Purge::Url(format!("{items}/2")), most).is_empty());
            for purge in
                [Purge::All, Purge::Prefix(items.clone()), Purge::Url("/items".into()), Purge::Tag(b"t".into())]
            {
                assert_eq!(all(&index, &purge, most), hashes(&[&list, &other, &one]), "{purge:?}");
            }
        }
        assert!(all(&index, &Purge::Tag(b"s".into()), 1).is_empty());
        index.remove(&list, std::iter::once(&tag));
        assert_eq!(index.len(), (2, 2));
        assert_eq!(all(&index, &Purge::Under(items), 9), hashes(&[&other]));
    }
}
