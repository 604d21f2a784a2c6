#![expect(clippy::unwrap_used, reason = "tests")]

use super::{
    super::{
        key::{KeyParts, Keys},
        test_entry::Made,
        vary::Selection,
    },
    *,
};

mod order;

struct Store {
    keys: Keys,
    memory: Memory,
}

impl Store {
    fn new(budget: u64, largest: u64) -> Self {
        Self { keys: Keys::default(), memory: Memory::new(budget, largest) }
    }

    fn key_of(&self, made: &Made, host: &str, path: &str) -> Key {
        self.keys.key(&KeyParts {
            route: 0,
            policy: &made.policy,
            secure: false,
            host,
            path,
            spelled: None,
            query: None,
            identity: &[],
            request: &made.request,
            told: &[],
        })
    }

    fn key(&self, path: &str) -> Key {
        self.key_of(&Made::under("{}"), "h", path)
    }

    fn put(&self, path: &str, made: &Made) -> Result<Arc<Entry>, Refusal> {
        self.memory.insert(&self.key(path), made.entry(), self.memory.ticket())
    }

    fn has(&self, path: &str) -> bool {
        self.memory.get(&self.key(path)).is_some()
    }

    /// What is indexed is what is stored.
    fn check(&self) {
        let all: Vec<Arc<Variants>> = self.memory.cache.iter().map(|(_, variants)| variants).collect();
        let tags = |variants: &Arc<Variants>| {
            let mut tags: Vec<_> = variants.entries().iter().flat_map(|entry| entry.tags.to_vec()).collect();
            tags.sort_unstable();
            tags.dedup();
            tags.len()
        };
        let index = self.memory.changes.lock().index.len();
        assert_eq!(index, (all.len(), all.iter().map(tags).sum::<usize>()));
        let stats = self.memory.stats();
        assert_eq!((stats.entries, stats.bytes), (all.len(), all.iter().map(|variants| variants.weight()).sum()));
        assert!(stats.bytes <= stats.budget, "{stats:?}");
    }
}

fn sized(bytes: usize) -> Made {
    Made { body: vec![7; bytes], ..Made::under("{ttl: 5m, max_object: 1GiB}") }
}

#[test]
fn the_budget_holds_and_the_index_does_not_leak() {
    let store = Store::new(4 << 20, 256 << 10);
    let mut random = fastrand::Rng::with_seed(7);
    let mut total = 0;
    for number in 0..12_000 {
        let bytes = 1usize << random.u32(0..18);
        total += bytes;
        let made = sized(bytes).with("surrogate-key", &format!("t{} even{}", random.u8(..), number % 2));
        let _ = store.put(&format!("/{}", random.u32(..40_000)), &made);
        if number % 1000 == 0 {
            store.check();
            store.memory.purge(&Purge::Tag(b"t1".to_vec()), Manner::Hard, Made::later(1));
        }
    }
    store.check();
    let stats = store.memory.stats();
    assert!(total > 40 * (4 << 20) && stats.evictions > 5_000, "{total} {stats:?}");
    assert!(stats.bytes > stats.budget / 2, "{stats:?}");
    let purged = store.memory.purge(&Purge::All, Manner::Hard, Made::later(1));
    assert_eq!(purged, stats.entries);
    store.check();
    assert_eq!((store.memory.stats().entries, store.memory.stats().bytes), (0, 0));
}

#[test]
fn a_scan_does_not_empty_a_hot_set() {
    let store = Store::new(4 << 20, 256 << 10);
    let hot: Vec<String> = (0..500).map(|number| format!("/hot/{number}")).collect();
    for path in &hot {
        store.put(path, &sized(1000)).unwrap();
    }
    for round in 0..100 {
        assert!(round > 2 || hot.iter().all(|path| store.has(path)));
        for number in 0..200 {
            store.put(&format!("/scan/{round}/{number}"), &sized(4000)).unwrap();
        }
        hot.iter().step_by(3).for_each(|path| assert!(store.has(path) || round > 0));
    }
    // 80 MB of answers that were asked for once have gone through 4 MiB.
    let left = hot.iter().step_by(3).filter(|path| store.has(path)).count();
    assert!(left * 100 >= hot.len() / 3 * 95, "{left}");
}

#[test]
fn what_was_asked_for_before_a_store_was_replaced_is_not_kept() {
    let old = Store::new(1 << 20, 64 << 10);
    old.put("/a", &sized(9)).unwrap();
    let before = old.memory.ticket();
    let new = Store { keys: Keys::default(), memory: Memory::in_place_of(&old.memory, 2 << 20, 64 << 10) };
    assert_eq!((new.memory.stats().budget, new.memory.stats().entries), (2 << 20, 0));
    // What is purged while both are in use is purged in one of them.
    old.memory.purge(&Purge::All, Manner::Hard, Made::later(1));
    for ticket in [before, old.memory.ticket()] {
        assert_eq!(new.memory.insert(&new.key("/a"), sized(9).entry(), ticket).err(), Some(Refusal::Purged));
    }
    assert!(new.put("/a", &sized(9)).is_ok());
}

#[test]
fn what_is_too_large_is_refused_and_replaces_nothing_wrong() {
    let store = Store::new(1 << 20, 100 << 10);
    store.put("/a", &sized(10)).unwrap();
    assert_eq!(store.put("/a", &sized(2 << 20)).err(), Some(Refusal::TooLarge));
    assert!(!store.has("/a"));
    store.check();
    assert!(store.put("/a", &sized(100 << 10)).is_ok());
    assert_eq!(store.memory.largest(9)[0].0, "http://h/a");
    // A store without room stores nothing.
    let none = Store::new(0, 1);
    assert_eq!(none.put("/a", &sized(1)).err(), Some(Refusal::TooLarge));
    none.check();
}

#[test]
fn purges() {
    let filled = || {
        let store = Store::new(4 << 20, 1 << 20);
        for (path, tags) in [("/a", "x"), ("/a/b", "x y"), ("/a/c", "y"), ("/b", "z")] {
            store.put(path, &sized(9).with("cache-tag", &tags.replace(' ', ","))).unwrap();
        }
        let other = sized(9);
        store.memory.insert(&store.key_of(&other, "other", "/a/b"), other.entry(), store.memory.ticket()).unwrap();
        store
    };
    for (purge, count, left) in [
        (Purge::Url("http://h/a".to_owned()), 1, "/a/b /a/c /b"),
        (Purge::Url("http://h/A".to_owned()), 0, "/a /a/b /a/c /b"),
        (Purge::Url("/a/b".to_owned()), 2, "/a /a/c /b"),
        (Purge::Prefix("http://h/a/".to_owned()), 2, "/a /b"),
        (Purge::Prefix("/a".to_owned()), 4, "/b"),
        (Purge::Prefix("http://".to_owned()), 5, ""),
        (Purge::Tag(b"x".to_vec()), 2, "/a/c /b"),
        (Purge::Tag(b"none".to_vec()), 0, "/a /a/b /a/c /b"),
        (Purge::All, 5, ""),
    ] {
        let store = filled();
        assert_eq!(store.memory.purge(&purge, Manner::Soft, Made::later(5)), count, "{purge:?}");
        for path in ["/a", "/a/b", "/a/c", "/b"] {
            let found = store.memory.get(&store.key(path)).unwrap();
            let fresh = found.entries()[0].stale_for(Made::later(6)).is_none();
            assert_eq!(fresh, left.split(' ').any(|left| left == path), "{purge:?} {path}");
        }
        assert_eq!(store.memory.purge(&purge, Manner::Hard, Made::later(5)), count, "{purge:?}");
        let there: Vec<_> = ["/a", "/a/b", "/a/c", "/b"].into_iter().filter(|path| store.has(path)).collect();
        assert_eq!(there.join(" "), left, "{purge:?}");
        store.check();
    }
}

#[test]
fn a_purge_of_many_goes_on_to_its_end() {
    let store = Store::new(64 << 20, 1 << 20);
    for number in 0..2000 {
        store.put(&format!("/{number}"), &sized(1).with("surrogate-key", "all")).unwrap();
    }
    for purge in [Purge::Tag(b"all".to_vec()), Purge::Prefix("http://h/".to_owned()), Purge::Prefix("/".to_owned())] {
        assert_eq!(store.memory.purge(&purge, Manner::Soft, Made::later(1)), 2000, "{purge:?}");
    }
    assert_eq!(store.memory.purge(&Purge::Tag(b"all".to_vec()), Manner::Hard, Made::later(1)), 2000);
    store.check();
}

#[test]
fn an_answer_that_was_purged_on_its_way_is_not_stored() {
    let store = Store::new(4 << 20, 1 << 20);
    let ticket = store.memory.ticket();
    store.memory.purge(&Purge::Url("http://h/a".to_owned()), Manner::Hard, Made::later(0));
    let insert = |path: &str, ticket| store.memory.insert(&store.key(path), sized(1).entry(), ticket).err();
    assert_eq!(insert("/a", ticket), Some(Refusal::Purged));
    assert_eq!(insert("/b", ticket), None);
    assert_eq!(insert("/a", store.memory.ticket()), None);
    store.check();
}

#[test]
fn what_came_later_is_not_replaced_by_what_came_first() {
    let store = Store::new(4 << 20, 1 << 20);
    let (key, made, ticket) = (store.key("/a"), sized(1), store.memory.ticket());
    let at = |seconds| {
        let mut entry = made.entry();
        entry.stored = Made::later(seconds);
        entry
    };
    let newer = store.memory.insert(&key, at(5), ticket).unwrap();
    assert!(Arc::ptr_eq(&store.memory.insert(&key, at(4), ticket).unwrap(), &newer));
    // What was marked as stale is.
    newer.mark_stale(Made::later(6));
    let older = store.memory.insert(&key, at(4), ticket).unwrap();
    assert!(!Arc::ptr_eq(&older, &newer));
    // What a 304 says is about the entry that was asked about, and no other.
    assert_eq!(store.memory.refresh(&key, &newer, at(9), ticket).err(), Some(Refusal::Purged));
    let refreshed = store.memory.refresh(&key, &older, at(9), ticket).unwrap();
    assert!(Arc::ptr_eq(&store.memory.get(&key).unwrap().entries()[0], &refreshed));
    store.memory.purge(&Purge::All, Manner::Soft, Made::later(10));
    assert_eq!(store.memory.refresh(&key, &refreshed, at(11), ticket).err(), Some(Refusal::Purged));
    assert!(store.memory.refresh(&key, &refreshed, at(11), store.memory.ticket()).is_ok());
    store.check();
}

#[test]
fn one_variant_goes_alone() {
    let store = Store::new(4 << 20, 1 << 20);
    let variant = |value: &str, tag: &str| {
        let made = sized(1).with("vary", "foo").asked_with("foo", value).with("cache-tag", tag);
        store.memory.insert(&store.key("/a"), made.entry(), store.memory.ticket()).unwrap()
    };
    let (_one, _two) = (variant("1", "x,both"), variant("2", "y,both"));
    store.check();
    let count = || store.memory.get(&store.key("/a")).map_or(0, |variants| variants.entries().len());
    assert_eq!(count(), 2);
    let request = Made::under("{}").asked_with("foo", "1").request;
    for _ in 0..2 {
        store.memory.take_back(
            &store.key("/a"),
            &TakenBack { request: &request, selection: &Selection::default(), at: Made::later(0) },
        );
    }
    assert_eq!(count(), 1);
    store.check();
    variant("1", "z,both");
    assert_eq!(store.memory.purge(&Purge::Tag(b"y".to_vec()), Manner::Hard, Made::later(1)), 1);
    assert_eq!(count(), 1);
    assert_eq!(store.memory.purge(&Purge::Tag(b"both".to_vec()), Manner::Hard, Made::later(1)), 1);
    assert_eq!(count(), 0);
    store.check();
}

#[test]
fn a_key_with_the_same_hash_is_another_key() {
    let store = Store::new(4 << 20, 1 << 20);
    let key = store.key("/a");
    store.put("/a", &sized(1)).unwrap();
    let forged = Key::forged(&store.key("/b"), &key);
    assert!(store.memory.get(&forged).is_none() && store.memory.get(&key).is_some());
    store.memory.insert(&forged, sized(2).entry(), store.memory.ticket()).unwrap();
    assert!(store.memory.get(&key).is_none() && store.memory.get(&forged).is_some());
    store.check();
}

#[test]
fn everybody_at_once() {
    let store = Store::new(1 << 20, 64 << 10);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..1500 {
                    let path = format!("/{}", random.u8(..));
                    match random.u8(..10) {
                        0 => drop(store.memory.purge(
                            &Purge::Tag(vec![random.u8(..8) + b'a']),
                            Manner::Hard,
                            Made::later(1),
                        )),
                        1 => drop(store.memory.purge(
                            &Purge::Prefix(format!("/{}", random.u8(..9))),
                            Manner::Soft,
                            Made::later(1),
                        )),
                        2..6 => {
                            let tag = char::from(random.u8(..8) + b'a').to_string();
                            let _ = store.put(&path, &sized(random.usize(..20_000)).with("cache-tag", &tag));
                        }
                        _ => drop(store.has(&path)),
                    }
                }
            });
        }
    });
    store.check();
}
