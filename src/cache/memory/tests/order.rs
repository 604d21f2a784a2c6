//! What comes late, and what is taken back.

use super::*;

#[test]
fn what_is_taken_back_goes_whoever_has_renewed_it_and_is_not_kept_on_its_way() {
    let store = Store::new(4 << 20, 1 << 20);
    let key = store.key("/a");
    let at = |vary: Option<&str>, seconds| {
        let made = vary.map_or(sized(1), |field| sized(1).with("vary", field));
        let mut entry = made.asked_with("foo", "1").asked_with("bar", "1").entry();
        entry.stored = Made::later(seconds);
        entry
    };
    let request = Made::under("{}").asked_with("foo", "1").asked_with("bar", "1").request;
    let before = store.memory.ticket();
    let old = store.memory.insert(&key, at(Some("foo"), 1), before).unwrap();
    store.memory.insert(&key, at(Some("bar"), 2), before).unwrap();
    store.memory.refresh(&key, &old, at(Some("foo"), 3), before).unwrap();
    let left = || store.memory.get(&key).map_or(0, |variants| variants.entries().len());
    store
        .memory
        .take_back(&key, &TakenBack { request: &request, selection: &Selection::default(), at: Made::later(2) });
    assert_eq!(left(), 1, "one has come later");
    store
        .memory
        .take_back(&key, &TakenBack { request: &request, selection: &Selection::default(), at: Made::later(4) });
    assert_eq!(left(), 0);
    assert_eq!(store.memory.insert(&key, at(None, 1), before).err(), Some(Refusal::Purged), "read from a disk");
    assert!(store.memory.insert(&store.key("/b"), at(None, 1), before).is_ok());
    assert!(store.memory.insert(&key, at(None, 5), store.memory.ticket()).is_ok());
    store.check();
}

#[test]
fn what_comes_late_stands_behind_what_is_newer() {
    let store = Store::new(4 << 20, 1 << 20);
    let insert = |path: &str, vary: Option<&str>, seconds| {
        let made = vary.map_or(sized(1), |field| sized(1).with("vary", field));
        let mut entry = made.asked_with("foo", "1").asked_with("bar", "1").entry();
        entry.stored = Made::later(seconds);
        store.memory.insert(&store.key(path), entry, store.memory.ticket())
    };
    let seconds = |path: &str| -> Vec<u64> {
        let variants = store.memory.get(&store.key(path)).unwrap();
        variants
            .entries()
            .iter()
            .map(|entry| entry.stored.since_start.saturating_sub(Made::later(0).since_start).as_secs())
            .collect()
    };
    insert("/a", Some("foo"), 5).unwrap();
    insert("/a", Some("bar"), 3).unwrap();
    insert("/a", Some("foo, bar"), 4).unwrap();
    assert_eq!(seconds("/a"), [5, 4, 3]);
    assert_eq!(insert("/a", None, 4).err(), Some(Refusal::Purged), "it would leave nothing to what is newer");
    insert("/b", None, 5).unwrap();
    let given = insert("/b", Some("foo"), 4).unwrap();
    assert_eq!((given.stored.since_start, seconds("/b")), (Made::later(5).since_start, vec![5]));
    store.check();
}
