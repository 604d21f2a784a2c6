//! A file with an answer as a process hands it on to the one that takes over: its key, which requests it is for, its tags, its age, and
//! what it is called. What is in the file says itself what it is about (`stored_form`).

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    disk::Spot,
    handed_on::{put, take},
    key::{Key, Keys},
    stored_form::{came, millis},
    tags::Tags,
    vary::Selection,
};
use crate::clock::Now;

/// The bytes of what is known of a file under its key; `None` for what is one client's own: who that is may be told otherwise by the
/// next configuration.
pub fn write(key: &Key, spot: &Spot, now: Now) -> Option<Vec<u8>> {
    if key.is_one_clients() {
        return None;
    }
    let age = spot.initial_age.saturating_add(now.since_start.saturating_sub(spot.stored.since_start));
    let mut out = Vec::with_capacity(key.bytes().len() + 128);
    put(&mut out, key.bytes())?;
    for number in [spot.number, spot.bytes, millis(age)] {
        put(&mut out, &number.to_le_bytes())?;
    }
    let fields: Vec<_> = spot.selection.parts().collect();
    put(&mut out, &(fields.len() as u64).to_le_bytes())?;
    for (name, value) in fields {
        put(&mut out, name.as_str().as_bytes())?;
        put(&mut out, &[u8::from(value.is_some())])?;
        put(&mut out, value.unwrap_or_default())?;
    }
    spot.tags.iter().try_for_each(|tag| put(&mut out, tag))?;
    Some(out)
}

/// What is known of a file, and its key, as this process has them, when that was written so long ago; `None` for what has not come whole.
pub fn read(bytes: &[u8], keys: &Keys, now: Now, since: Duration) -> Option<(Key, Spot)> {
    let mut rest = bytes;
    let key = keys.of_bytes(take(&mut rest)?);
    let [name, bytes, age] = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
    let mut fields = Vec::new();
    for _ in 0..number(&mut rest)? {
        let name = HeaderName::from_bytes(take(&mut rest)?).ok()?;
        let (is_there, value) = (take(&mut rest)? == [1], take(&mut rest)?);
        fields.push((name, is_there.then(|| value.into())));
    }
    let mut tags = Vec::new();
    while !rest.is_empty() {
        tags.push(Arc::from(take(&mut rest)?));
    }
    let (stored, initial_age) = came(Duration::from_millis(age).saturating_add(since), now);
    let (selection, tags) = (Selection::of_parts(fields), Tags::from(tags));
    Some((key, Spot { number: name, bytes, stored, initial_age, selection, tags }))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{
        super::{handed_on::tests::key, test_entry::Made},
        *,
    };

    fn spot(made: Made) -> Spot {
        let entry = made.entry();
        let (stored, initial_age) = (entry.stored, entry.terms.initial_age);
        Spot { number: 7 << 40, bytes: 1234, stored, initial_age, selection: entry.selection, tags: entry.tags }
    }

    #[test]
    fn what_is_known_of_a_file_comes_along() {
        let (here, there, now) = (Keys::default(), Keys::default(), Made::later(10));
        for made in [
            Made::saying("max-age=60"),
            Made::saying("max-age=60").with("cache-tag", "a, b").with("age", "5"),
            Made::saying("max-age=60").with("vary", "x-a, x-b, cookie").asked_with("cookie", "").asked_with("x-a", "1"),
        ] {
            let spot = spot(made);
            let bytes = write(&key(&here, &[]), &spot, now).unwrap();
            let (found, read) = super::read(&bytes, &there, now, Duration::ZERO).unwrap();
            assert!(found == key(&there, &[]));
            assert_eq!((read.number, read.bytes), (spot.number, spot.bytes));
            assert_eq!((&read.selection, &read.tags), (&spot.selection, &spot.tags));
            let age = spot.initial_age + Duration::from_secs(10);
            // A process that has begun since, too.
            for now in [now, Now { since_start: Duration::from_secs(1), ..now }] {
                let (_, read) = super::read(&bytes, &there, now, Duration::ZERO).unwrap();
                let here = now.since_start.saturating_sub(read.stored.since_start);
                assert_eq!(read.initial_age + here, age, "as old as it was");
            }
            let whole = (0..bytes.len())
                .filter(|end| super::read(&bytes[..*end], &there, now, Duration::ZERO).is_some())
                .count();
            assert_eq!(whole, read.tags.len(), "without its last tags it is another one");
        }
        assert!(write(&key(&here, &[b"alice"]), &spot(Made::saying("max-age=60")), now).is_none());
    }
}
