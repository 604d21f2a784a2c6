//! By what stored answers are found when they are purged: URLs and tags. What is in it is what is stored: whoever changes the store
//! does so under its lock, and takes out what goes, so that it is bounded as the store is.
//!
//! URLs stand in folders, as far as the last slash of the path, and within those as numbers: nearly every change is an answer that is
//! stored or makes room, and comparing all the URLs themselves would fetch a dozen of them from memory each time. A purge of one URL
//! looks at that one alone, and one of a prefix at the folder in which it ends and those below.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use ahash::RandomState;

use super::{
    key::Key,
    purge::{Purge, in_form_of, under},
};

/// So many folders are looked at in one go, when any could be the one.
const LOOKS: usize = 1024;

/// The keys of all that is stored.
#[derive(Debug, Default)]
pub(super) struct Index {
    folders: BTreeMap<Arc<str>, Folder>,
    /// How many folders there have been.
    count: u64,
    urls: BTreeSet<Place>,
    tags: BTreeSet<(Arc<[u8]>, u128)>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Folder {
    number: u64,
    keys: usize,
}

/// Where a key stands: with all of its URL, and before that with all of the same path. Two URLs with the same number stand together,
/// and are told apart by whoever has found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    folder: u64,
    /// Of the URL without its query.
    path: u32,
    url: u32,
    key: u128,
}

/// How far a search has come.
#[derive(Debug, Clone)]
pub(super) enum Cursor {
    /// Not begun.
    Start,
    /// After this place in this folder; that of a tag has a key only.
    After(Arc<str>, Place),
    /// At its end.
    End,
}

impl Place {
    const FIRST: Self = Self { folder: 0, path: 0, url: 0, key: 0 };
    const LAST: Self = Self { folder: u64::MAX, path: u32::MAX, url: u32::MAX, key: u128::MAX };
}

/// A URL as far as the last slash of its path.
fn folder_of(url: &str) -> &str {
    let path = under(url);
    &path[..path.rfind('/').map_or(0, |slash| slash + 1)]
}

impl Index {
    pub(super) fn add<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        let url = key.url();
        let name = folder_of(url);
        let number = if let Some(folder) = self.folders.get(name) {
            folder.number
        } else {
            self.count += 1;
            self.folders.insert(name.into(), Folder { number: self.count, keys: 0 });
            self.count
        };
        let is_new = self.urls.insert(Place { folder: number, key: key.hash(), ..self.of_url(url) });
        if let Some(folder) = self.folders.get_mut(name).filter(|_| is_new) {
            folder.keys += 1;
        }
        for tag in tags {
            self.tags.insert((Arc::clone(tag), key.hash()));
        }
    }

    pub(super) fn remove<'t>(&mut self, key: &Key, tags: impl Iterator<Item = &'t Arc<[u8]>>) {
        let url = key.url();
        let name = folder_of(url);
        if let Some(folder) = self.folders.get(name).copied()
            && self.urls.remove(&Place { folder: folder.number, key: key.hash(), ..self.of_url(url) })
        {
            match self.folders.get_mut(name) {
                Some(folder) if folder.keys > 1 => folder.keys -= 1,
                _ => drop(self.folders.remove(name)),
            }
        }
        for tag in tags {
            self.tags.remove(&(Arc::clone(tag), key.hash()));
        }
    }

    /// The first place of a URL in its folder.
    fn of_url(&self, url: &str) -> Place {
        Place { path: self.number(under(url)), url: self.number(url), ..Place::FIRST }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn number(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    /// The hashes of up to `most` further keys among which are all that the purge is about.
    pub(super) fn find(&self, purge: &Purge, cursor: &mut Cursor, most: usize) -> Vec<u128> {
        if let Purge::Tag(tag) = purge {
            return self.tagged(tag, cursor, most);
        }
        // In each folder.
        let (first, last) = match purge {
            Purge::Url(url) if !url.starts_with('/') => {
                let first = self.of_url(url);
                (first, Place { key: u128::MAX, ..first })
            }
            Purge::Under(url) if !url.starts_with('/') => {
                let path = self.number(under(url));
                (Place { path, ..Place::FIRST }, Place { path, ..Place::LAST })
            }
            _ => (Place::FIRST, Place::LAST),
        };
        let (mut found, mut looks) = (Vec::new(), 0);
        while found.len() < most && looks < LOOKS {
            let (name, start) = match &*cursor {
                Cursor::End => break,
                Cursor::After(name, place) if *place < (Place { folder: place.folder, ..last }) => {
                    (Arc::clone(name), Bound::Excluded(*place))
                }
                before => {
                    let before = if let Cursor::After(name, _) = before { Some(&**name) } else { None };
                    let Some((name, folder)) = self.next(purge, before) else {
                        *cursor = Cursor::End;
                        break;
                    };
                    (Arc::clone(name), Bound::Included(Place { folder: folder.number, ..first }))
                }
            };
            let (Bound::Included(place) | Bound::Excluded(place)) = start else { break };
            looks += 1;
            let end = Place { folder: place.folder, ..last };
            let some = if is_about(purge, &name) { most - found.len() } else { 0 };
            let before = found.len();
            found.extend(self.urls.range((start, Bound::Included(end))).take(some));
            let is_full = found.len() - before == some && some > 0;
            *cursor = Cursor::After(name, if is_full { found[found.len() - 1] } else { end });
        }
        found.iter().map(|place| place.key).collect()
    }

    /// The folder to look at after this one, or the first.
    fn next(&self, purge: &Purge, before: Option<&str>) -> Option<(&Arc<str>, &Folder)> {
        let from = match purge {
            Purge::Url(url) | Purge::Under(url) | Purge::Prefix(url) if !url.starts_with('/') => {
                let own = self.folders.get_key_value(folder_of(url));
                match (before, purge) {
                    (None, _) if own.is_some() => return own,
                    // What is below comes later than what it begins with.
                    (_, Purge::Prefix(prefix)) => match before {
                        Some(before) if before >= prefix.as_str() => Bound::Excluded(before),
                        _ => Bound::Included(prefix.as_str()),
                    },
                    _ => return None,
                }
            }
            _ => before.map_or(Bound::Unbounded, Bound::Excluded),
        };
        let next = self.folders.range::<str, _>((from, Bound::Unbounded)).next();
        next.filter(|(name, _)| !matches!(purge, Purge::Prefix(prefix) if !prefix.starts_with('/') && !name.starts_with(prefix.as_str())))
    }

    fn tagged(&self, tag: &[u8], cursor: &mut Cursor, most: usize) -> Vec<u128> {
        let tag: Arc<[u8]> = tag.into();
        let start = match cursor {
            Cursor::Start => Bound::Included((Arc::clone(&tag), 0)),
            Cursor::After(_, place) => Bound::Excluded((Arc::clone(&tag), place.key)),
            Cursor::End => return Vec::new(),
        };
        let all = self.tags.range((start, Bound::Included((tag, u128::MAX))));
        let found: Vec<u128> = all.take(most).map(|(_, key)| *key).collect();
        *cursor = match found.last() {
            Some(last) if found.len() == most => Cursor::After("".into(), Place { key: *last, ..Place::FIRST }),
            _ => Cursor::End,
        };
        found
    }

    /// How many keys there are, and how many tags of keys.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let keys = self.folders.values().map(|folder| folder.keys).sum::<usize>();
        assert!(keys == self.urls.len() && self.folders.values().all(|folder| folder.keys > 0));
        (keys, self.tags.len())
    }
}

/// True when the folder with this name may have what the purge is about. Of paths on every host, more than that: the name is cut off
/// after so many bytes with the host.
fn is_about(purge: &Purge, name: &str) -> bool {
    match purge {
        Purge::Url(wanted) | Purge::Under(wanted) => wanted.starts_with(in_form_of(wanted, name)),
        Purge::Prefix(wanted) => {
            let name = in_form_of(wanted, name);
            wanted.starts_with(name) || name.starts_with(wanted.as_str())
        }
        Purge::Tag(_) | Purge::All => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderMap;
    use proptest::prelude::*;

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
        keys.key(&KeyParts {
            route: 1,
            policy: &policy,
            secure: false,
            host,
            path,
            spelled: None,
            query,
            identity,
            request,
            told,
        })
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
            assert_eq!(all(&index, &Purge::Url("/items".into()), most), hashes(&[&list, &other]), "of one folder");
            for purge in [Purge::All, Purge::Prefix(items.clone()), Purge::Prefix("/i".into()), Purge::Tag(b"t".into())]
            {
                assert_eq!(all(&index, &purge, most), hashes(&[&list, &other, &one]), "{purge:?}");
            }
        }
        assert!(all(&index, &Purge::Tag(b"s".into()), 1).is_empty());
        index.remove(&list, std::iter::once(&tag));
        assert_eq!(index.len(), (2, 2));
        assert_eq!(all(&index, &Purge::Under(items), 9), hashes(&[&other]));
    }

    /// URLs of a few hosts, some longer than what is compared of them.
    fn urls() -> impl Strategy<Value = (bool, &'static str, String, Option<String>)> {
        let segment = prop_oneof![4 => "[ab]{0,2}", 1 => Just("x".repeat(300))];
        let path = proptest::collection::vec(segment, 1..5).prop_map(|segments| format!("/{}", segments.join("/")));
        let query = proptest::option::of(prop_oneof!["[ab/]{0,2}", Just("y".repeat(600))]);
        (any::<bool>(), prop_oneof![Just("a.test"), Just("b.test"), Just("a.test:8080")], path, query)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_that_a_purge_is_about_are_found(
            urls in proptest::collection::vec(urls(), 1..60),
            wanted in urls(),
            cut in 0usize..700,
            gone in 0usize..60,
            most in 1usize..20,
        ) {
            let (keys, mut index) = (Keys::default(), Index::default());
            let policy = serde_yaml::from_str::<CacheConfig>("{}").unwrap().policy().unwrap();
            let of = |(secure, host, path, query): &(bool, &str, String, Option<String>)| {
                let (request, identity, told): (_, &[&[u8]], &[&[u8]]) = (&HeaderMap::new(), &[], &[]);
                let query = query.as_deref();
                let (route, policy, secure) = (1, &policy, *secure);
                keys.key(&KeyParts { route, policy, secure, host, path, spelled: None, query, identity, request, told })
            };
            let mut all: Vec<Key> = urls.iter().map(of).collect();
            all.iter().chain(&all[..1]).for_each(|key| index.add(key, std::iter::empty()));
            for key in all.split_off(gone.min(all.len())) {
                index.remove(&key, std::iter::empty());
                all.retain(|other| *other != key);
            }
            let distinct: BTreeSet<u128> = all.iter().map(Key::hash).collect();
            prop_assert_eq!(index.len().0, distinct.len());
            let url = of(&wanted).url().to_owned();
            let path = in_form_of("/", &url).to_owned();
            for text in [url, path] {
                let begun = text[..cut.min(text.len()).max(1)].to_owned();
                for purge in [Purge::Url(text.clone()), Purge::Under(under(&text).to_owned()), Purge::Prefix(begun), Purge::All] {
                    let about = all.iter().filter(|key| purge.is_about(key.url(), &[]));
                    let found = super::tests::all(&index, &purge, most);
                    prop_assert!(about.map(Key::hash).all(|key| found.contains(&key)), "{purge:?}");
                    prop_assert!(found.is_subset(&distinct));
                }
            }
        }
    }
}
