//! An answer as a process hands it on to the one that takes over: its key, the requests that it is for, and its stored form.
//!
//! Only what is for all clients, and of use for a second more: who a client is may be told otherwise by the next configuration.

use std::time::Duration;

use super::{
    entry::Entry,
    held::Held,
    key::{Key, Keys},
    stored_form::{self, Stored},
};
use crate::clock::Now;

/// Another build may mean something else by the same bytes.
pub const FORM: &str = concat!("4 ", env!("CARGO_PKG_VERSION"), " (", env!("TOLLGATE_BUILD"), ")");

/// What ends sooner is not worth while.
const LEAST_USE: Duration = Duration::from_secs(1);

const LENGTH: usize = size_of::<u32>();

/// The bytes of an answer under its key; `None` for what is not handed on.
pub fn write(key: &Key, entry: &Entry, now: Now) -> Option<Vec<u8>> {
    if key.is_one_clients() || stored_form::useful_for(entry, now) < LEAST_USE {
        return None;
    }
    let request = entry.selection.request()?;
    let fields: Vec<[&[u8]; 2]> =
        request.iter().map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]).collect();
    let form = stored_form::write(entry, now, &[key.bytes(), entry.selection.name().as_bytes()])?;
    let mut out = Vec::with_capacity(form.len() + key.bytes().len() + 64);
    put(&mut out, key.bytes())?;
    out.extend(u32::try_from(fields.len()).ok()?.to_le_bytes());
    for part in fields.iter().flatten() {
        put(&mut out, part)?;
    }
    put(&mut out, entry.selection.name().as_bytes())?;
    out.extend(form);
    Some(out)
}

/// An answer and its key, as this process has them; `None` for what has not come whole, or would not have been kept here.
pub fn read(bytes: &[u8], keys: &Keys, now: Now, held: &Held) -> Option<(Key, Entry)> {
    let mut rest = bytes;
    let key = take(&mut rest)?;
    let (count, after) = rest.split_first_chunk::<LENGTH>()?;
    rest = after;
    let mut request = http::HeaderMap::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let name = http::HeaderName::from_bytes(take(&mut rest)?).ok()?;
        request.try_insert(name, http::HeaderValue::from_bytes(take(&mut rest)?).ok()?).ok()?;
    }
    let name = take(&mut rest)?;
    let stored = Stored { bytes: rest, about: &[key, name], kept: Duration::ZERO };
    let entry = stored_form::read(&stored, &request, now, held)?;
    (entry.selection.name().as_bytes() == name).then(|| (keys.of_bytes(key), entry))
}

pub(super) fn put(out: &mut Vec<u8>, part: &[u8]) -> Option<()> {
    out.extend(u32::try_from(part.len()).ok()?.to_le_bytes());
    out.extend_from_slice(part);
    Some(())
}

pub(super) fn take<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, after) = rest.split_first_chunk::<LENGTH>()?;
    let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderMap;

    use super::{
        super::{key::KeyParts, test_entry::Made},
        *,
    };

    pub(in super::super) fn key(keys: &Keys, identity: &[&[u8]]) -> Key {
        keys.key(&KeyParts {
            route: 7,
            policy: &Made::saying("").policy,
            secure: true,
            host: "a.test",
            path: "/x",
            spelled: None,
            query: Some("b"),
            identity,
            request: &HeaderMap::new(),
            told: &[],
        })
    }

    #[test]
    fn what_is_handed_on_is_what_was_kept() {
        let (here, there, held) = (Keys::default(), Keys::default(), Held::default());
        let now = Made::later(0);
        for made in [
            Made::saying("max-age=60"),
            Made::saying("max-age=60")
                .with("vary", "accept-language, x-a, cookie")
                .asked_with("cookie", "a=b")
                .asked_with("accept-language", "DE;q=0.5, en"),
            Made::saying("max-age=60").with("vary", "x-a").asked_with("x-a", "1").asked_with("x-a", "2"),
        ] {
            let entry = made.entry();
            let bytes = write(&key(&here, &[]), &entry, now).unwrap();
            let (found, read) = super::read(&bytes, &there, now, &held).unwrap();
            assert!(found == key(&there, &[]) && !found.is_one_clients());
            assert_eq!((read.selection, read.headers, read.terms), (entry.selection, entry.headers, entry.terms));
            assert!((0..bytes.len()).all(|end| super::read(&bytes[..end], &there, now, &held).is_none()));
            for at in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                let other = super::read(&bytes, &there, now, &held);
                assert!(other.is_none(), "a byte is not the same at {at}");
            }
        }
    }

    #[test]
    fn what_is_of_no_use_or_one_clients_own_is_not() {
        let (keys, now) = (Keys::default(), Made::later(0));
        let fresh = Made::saying("max-age=60").entry();
        assert!(write(&key(&keys, &[]), &fresh, now).is_some());
        assert!(write(&key(&keys, &[b"alice"]), &fresh, now).is_none());
        fresh.mark_stale(now);
        assert!(write(&key(&keys, &[]), &fresh, now).is_none());
        assert!(write(&key(&keys, &[]), &Made::saying("no-cache").with("etag", "\"e\"").entry(), now).is_none());
    }
}
