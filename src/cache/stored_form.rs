//! An entry as bytes, for stores outside of this process, and back.
//!
//! One byte for the form, sixteen of a SHA-256 over what it is about and all that follows, four for the length of the head, the head in
//! JSON, the body. What a request had in the fields that `Vary`
//! names is not in it: whoever reads it has the same there, or does not find it. What cannot be read is no entry.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    body::Body,
    entry::Entry,
    freshness::Basis,
    held::Held,
    storable::{self, Terms},
    vary::Selection,
};
use crate::{clock::Now, units::Sha256};

/// Another one is written by other versions.
const FORM: u8 = 2;
const SUM: usize = 16;
const LENGTH: usize = size_of::<u32>();

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    status: u16,
    /// Names and values; these, and tags, with a character for each byte.
    fields: Vec<(String, String)>,
    tags: Vec<String>,
    /// Its age when it was written, in milliseconds, as all times here.
    age: u64,
    lifetime: u64,
    basis: Basis,
    always_validate: bool,
    for_credentials: bool,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    stale_if_unreachable: u64,
    forbids_stale: bool,
}

/// The bytes of an entry, which are found where they are `about` the same; `None` for one that nobody would be given.
pub fn write(entry: &Entry, now: Now, about: &[&[u8]]) -> Option<Vec<u8>> {
    if entry.is_marked() {
        return None;
    }
    let terms = &entry.terms;
    let head = Head {
        status: entry.status.as_u16(),
        fields: entry.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect(),
        tags: entry.tags.iter().map(|tag| text(tag)).collect(),
        age: millis(entry.age(now)),
        lifetime: millis(terms.lifetime),
        basis: terms.basis,
        always_validate: terms.always_validate,
        for_credentials: terms.for_credentials,
        stale_while_revalidate: millis(terms.stale_while_revalidate),
        stale_if_error: millis(terms.stale_if_error),
        stale_if_unreachable: millis(terms.stale_if_unreachable),
        forbids_stale: terms.forbids_stale,
    };
    let head = serde_json::to_vec(&head).ok()?;
    let mut bytes = Vec::with_capacity(1 + SUM + LENGTH + head.len() + entry.body.len());
    bytes.push(FORM);
    bytes.extend([0; SUM]);
    bytes.extend(u32::try_from(head.len()).ok()?.to_le_bytes());
    bytes.extend(head);
    entry.body.parts().iter().for_each(|part| bytes.extend_from_slice(part));
    let sum = sum(about, &bytes[1 + SUM..]);
    bytes[1..=SUM].copy_from_slice(&sum);
    Some(bytes)
}

/// What has come out of a store.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// What was written.
    pub bytes: &'a [u8],
    /// What they should be about.
    pub about: &'a [&'a [u8]],
    /// For how long they have been kept.
    pub kept: Duration,
}

/// The entry of what was stored, for a request with these fields; its body is counted in `held`. `None` for what has been altered, or
/// would not have been kept here.
pub fn read(stored: &Stored<'_>, request: &HeaderMap, now: Now, held: &Held) -> Option<Entry> {
    let (form, rest) = stored.bytes.split_first()?;
    let (said, rest) = rest.split_first_chunk::<SUM>().filter(|_| *form == FORM)?;
    if sum(stored.about, rest) != *said {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
    let (head, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let mut headers = HeaderMap::with_capacity(head.fields.len());
    for (name, value) in &head.fields {
        let value = HeaderValue::from_maybe_shared(Bytes::from(untext(value)?)).ok()?;
        headers.try_append(name.parse::<HeaderName>().ok()?, value).ok()?;
    }
    if !storable::may_be_kept(head.status, &headers, body.len() as u64) {
        return None;
    }
    let age = Duration::from_millis(head.age).saturating_add(stored.kept);
    let (since, initial_age) = came(age, now);
    let terms = Terms {
        lifetime: Duration::from_millis(head.lifetime),
        basis: head.basis,
        initial_age,
        always_validate: head.always_validate,
        for_credentials: head.for_credentials,
        stale_while_revalidate: Duration::from_millis(head.stale_while_revalidate),
        stale_if_error: Duration::from_millis(head.stale_if_error),
        stale_if_unreachable: Duration::from_millis(head.stale_if_unreachable),
        forbids_stale: head.forbids_stale,
    };
    let selection = Selection::of(request, &headers).ok()?;
    let status = StatusCode::from_u16(head.status).ok()?;
    let tags = head.tags.iter().map(|tag| untext(tag).map(Arc::from)).collect::<Option<_>>()?;
    Some(Entry::made_of(status, headers, terms, since, selection, tags, Body::copied(&[body], held)))
}

/// When it came, and how old it was then, that is so old now: as old as it is here, as far as this process is old enough for that.
pub(super) fn came(age: Duration, now: Now) -> (Now, Duration) {
    let here = age.min(now.since_start);
    let unix = now.unix.saturating_sub(here.as_secs());
    (Now { since_start: now.since_start.saturating_sub(here), unix }, age.saturating_sub(here))
}

/// Which of several variants an entry is, and by which fields that is told: for requests with these fields.
pub fn variant(selection: &Selection) -> (String, String) {
    let names: Vec<&str> = selection.names().map(HeaderName::as_str).collect();
    (names.join(","), selection.name())
}

/// The name of the variant that a request with these fields wants, where `vary` tells them apart.
pub fn wanted(vary: &str, request: &HeaderMap) -> Option<String> {
    let mut response = HeaderMap::new();
    response.insert(http::header::VARY, HeaderValue::from_str(vary).ok()?);
    Some(Selection::of(request, &response).ok()?.name())
}

/// For how long an entry may be of use: while it is fresh, and while it may be given though it is not.
pub fn useful_for(entry: &Entry, now: Now) -> Duration {
    let terms = &entry.terms;
    let beyond = terms.stale_while_revalidate.max(terms.stale_if_error).max(terms.stale_if_unreachable);
    let left = beyond.saturating_sub(entry.stale_for(now).unwrap_or_default());
    if terms.always_validate { Duration::ZERO } else { entry.fresh_for(now).saturating_add(left) }
}

/// Tells bytes from others, and from the same ones about something else.
fn sum(about: &[&[u8]], bytes: &[u8]) -> [u8; SUM] {
    let mut digest = Sha256::new();
    for part in about {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.update(bytes);
    std::array::from_fn({
        let all = digest.finish();
        move |at| all[at]
    })
}

/// A character for each byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn untext(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{super::test_entry::Made, *};

    #[test]
    fn an_entry_comes_back_as_it_was_and_older() {
        let mut made = Made::saying("max-age=60, stale-while-revalidate=5").with("vary", "accept-language");
        made = made.with("x-odd", "caf\u{e9}").asked_with("accept-language", "de");
        let entry = made.entry();
        let about: [&[u8]; 1] = [b"name"];
        let bytes = write(&entry, Made::later(10), &about).unwrap();
        let kept = Duration::from_secs(20);
        let read =
            |bytes: &[u8], now| read(&Stored { bytes, about: &about, kept }, &made.request, now, &Held::default());
        let young = Now { since_start: Duration::from_secs(7), ..Made::later(0) };
        for begun in [Made::later(1000), young] {
            let back = read(&bytes, begun).unwrap();
            assert_eq!((back.status, &back.headers), (entry.status, &entry.headers));
            assert_eq!(back.body.parts().concat(), entry.body.parts().concat());
            assert_eq!(back.age(begun).as_secs(), 30, "ten there and twenty on its way");
            assert_eq!(back.fresh_for(begun).as_secs(), 30);
            assert!(back.selection == entry.selection && back.tags == entry.tags);
            assert_eq!(back.terms.stale_while_revalidate, entry.terms.stale_while_revalidate);
        }
        let beyond = entry.terms.stale_if_unreachable;
        assert_eq!(useful_for(&entry, Made::later(10)), Duration::from_secs(50) + beyond);
        assert_eq!(useful_for(&entry, Made::later(65)), beyond.saturating_sub(Duration::from_secs(5)));
        assert_eq!(useful_for(&entry, Made::later(3600)), Duration::ZERO);
        let (vary, name) = variant(&entry.selection);
        assert_eq!((vary.as_str(), wanted(&vary, &made.request).unwrap()), ("accept-language", name.clone()));
        assert_ne!(wanted(&vary, &HeaderMap::new()).unwrap(), name);
    }

    #[test]
    fn what_cannot_be_read_is_no_entry() {
        let made = Made::saying("max-age=60");
        let now = Made::later(0);
        let bytes = write(&made.entry(), now, &[b"a", b"b"]).unwrap();
        let is_read_as = |bytes: &[u8], about: &[&[u8]]| {
            read(&Stored { bytes, about, kept: Duration::ZERO }, &HeaderMap::new(), now, &Held::default()).is_some()
        };
        let is_read = |bytes: &[u8]| is_read_as(bytes, &[b"a", b"b"]);
        assert!(is_read(&bytes) && !is_read_as(&bytes, &[b"ab", b""]) && !is_read_as(&bytes, &[]));
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(!is_read(&bytes[..at]) && !is_read(&altered), "{at}");
        }
        assert!(!is_read(&[&bytes[..], b"x"].concat()));
        // Whoever can write there can make up the sum, too.
        let length = 1 + SUM + LENGTH;
        let alter = |from: &str, to: &str| {
            let text = String::from_utf8(bytes[length..].to_vec()).unwrap().replacen(from, to, 1);
            let head = u32::try_from(text.len() - made.body.len()).unwrap().to_le_bytes();
            let rest = [&head, text.as_bytes()].concat();
            [&[FORM], &sum(&[b"a", b"b"], &rest)[..], &rest].concat()
        };
        assert!(is_read(&alter("\"status\":200", "\"status\":203")));
        for status in ["101", "206", "304", "999"] {
            assert!(!is_read(&alter("\"status\":200", &format!("\"status\":{status}"))), "{status}");
        }
        for (field, value, good) in
            [("x", "1", true), ("transfer-encoding", "chunked", false), ("content-length", "9", false)]
        {
            let added = format!("\"fields\":[[\"{field}\",\"{value}\"],");
            assert_eq!(is_read(&alter("\"fields\":[", &added)), good, "{field}");
        }
    }
}
