//! A stored answer.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{
    allocated::allocated,
    held::{self, Held},
    storable::Terms,
    tags::Tags,
    vary::Selection,
};
use crate::clock::Now;

/// Bodies are kept in pieces of at most this many bytes.
const PIECE: usize = 128 << 10;

/// A complete body, in pieces that belong to nothing else.
#[derive(Debug, Clone, Default)]
pub struct Body {
    parts: Arc<[Bytes]>,
    len: usize,
}

impl Body {
    /// A copy of what was received. What came from a connection is a view of a buffer that may be much larger, and that
    /// nobody would count. Its pieces are counted in `held`.
    pub fn copied<P: AsRef<[u8]>>(received: &[P], held: &Held) -> Self {
        let len = received.iter().map(|part| part.as_ref().len()).sum::<usize>();
        let (mut parts, mut left) = (Vec::with_capacity(len.div_ceil(PIECE)), len);
        let mut piece: Vec<u8> = Vec::with_capacity(left.min(PIECE));
        for mut part in received.iter().map(AsRef::as_ref) {
            while !part.is_empty() {
                let room = left.min(PIECE) - piece.len();
                let (now, later) = part.split_at(room.min(part.len()));
                piece.extend_from_slice(now);
                part = later;
                if piece.len() == left.min(PIECE) {
                    left -= piece.len();
                    parts.push(held.piece(std::mem::replace(&mut piece, Vec::with_capacity(left.min(PIECE)))));
                }
            }
        }
        Self { parts: parts.into(), len }
    }

    /// Room for a body of which this length was said, to be given to [`Self::of`]: at most a piece is taken on trust.
    pub fn room_for(length: Option<u64>) -> Vec<u8> {
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        Vec::with_capacity(length.min(PIECE))
    }

    /// What was received; one piece that takes no more memory than its bytes is kept as it is.
    pub fn of(received: Vec<u8>, held: &Held) -> Self {
        let len = received.len();
        if len == 0 || len > PIECE || received.capacity() > len {
            return Self::copied(&[received], held);
        }
        Self { parts: Arc::new([held.piece(received)]), len }
    }

    /// The pieces; cloning one copies nothing.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces of a part of it; nothing is copied. What is outside of it is left out.
    pub fn slice(&self, range: Range<usize>) -> impl Iterator<Item = Bytes> + '_ {
        let mut start = 0usize;
        self.parts.iter().filter_map(move |part| {
            let (from, to) = (range.start.max(start), range.end.min(start + part.len()));
            let slice = (from < to).then(|| part.slice(from - start..to - start));
            start += part.len();
            slice
        })
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> usize {
        let pieces = self.parts.iter().map(|part| allocated(part.len())).sum::<usize>();
        pieces + allocated(16 + self.parts.len() * size_of::<Bytes>()) + self.parts.len() * held::OVERHEAD
    }
}

/// A stored answer. It never changes, except that it can be marked as stale.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, `Date` among them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
    /// On what terms it is kept.
    pub terms: Terms,
    /// When its head came, or that of the answer by which it was found to be good still.
    pub stored: Now,
    /// The requests that it is for.
    pub selection: Selection,
    /// What it can be purged by.
    pub tags: Tags,
    /// Since when it has been marked as stale: microseconds since the process began, and one; 0 when it is not.
    marked: AtomicU64,
    weight: usize,
}

impl Entry {
    /// One of these parts.
    pub(super) fn made_of(
        status: StatusCode,
        headers: HeaderMap,
        terms: Terms,
        stored: Now,
        selection: Selection,
        tags: Tags,
        body: Body,
    ) -> Self {
        let mut headers = headers;
        compact(&mut headers);
        let tag_bytes = tags.iter().map(|tag| size_of::<Arc<[u8]>>() + allocated(tag.len() + 16)).sum::<usize>();
        let weight = allocated(size_of::<Self>() + 16)
            + fields_weight(&headers)
            + selection.weight()
            + tag_bytes
            + body.weight();
        let marked = AtomicU64::new(0);
        Self { status, headers, body, terms, stored, selection, tags, marked, weight }
    }

    /// The same, as it came at this time: what a file says of it is rounded.
    #[must_use]
    pub fn as_it_came(self, stored: Now, initial_age: Duration) -> Self {
        Self { stored, terms: Terms { initial_age, ..self.terms }, ..self }
    }

    /// How old it is (`current_age`, RFC 9111 §4.2.3).
    pub fn age(&self, now: Now) -> Duration {
        let resident = now.since_start.saturating_sub(self.stored.since_start);
        self.terms.initial_age.saturating_add(resident)
    }

    /// For how long it has been stale; `None` while it is fresh.
    pub fn stale_for(&self, now: Now) -> Option<Duration> {
        let age = self.age(now);
        let old = (age >= self.terms.lifetime).then(|| age.saturating_sub(self.terms.lifetime));
        let marked = self.marked.load(Relaxed);
        let marked = (marked > 0).then(|| now.since_start.saturating_sub(Duration::from_micros(marked - 1)));
        old.max(marked)
    }

    /// For how long it is fresh still; zero when it is stale.
    pub fn fresh_for(&self, now: Now) -> Duration {
        if self.stale_for(now).is_some() { Duration::ZERO } else { self.terms.lifetime.saturating_sub(self.age(now)) }
    }

    /// Marks it as stale since `now`, if it is not so yet.
    pub fn mark_stale(&self, now: Now) {
        let micros = u64::try_from(now.since_start.as_micros()).unwrap_or(u64::MAX - 1).saturating_add(1);
        let _ = self.marked.compare_exchange(0, micros, Relaxed, Relaxed);
    }

    /// True when it has been marked as stale.
    pub fn is_marked(&self) -> bool {
        self.marked.load(Relaxed) > 0
    }

    /// True when it came later than the other one, and was not marked as stale.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.stored.since_start > other.stored.since_start && self.marked.load(Relaxed) == 0
    }

    /// About how many bytes of memory it takes, its part of the store not counted.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

/// Puts the values of fields into one piece of memory: those of a received head are views of it.
fn compact(headers: &mut HeaderMap) {
    let mut all = Vec::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = Bytes::from(all);
    for value in headers.values_mut() {
        // It was a value before, and is one again.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(all.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
}

/// About how many bytes fields take: of each name a slot, and of each value its bytes.
fn fields_weight(headers: &HeaderMap) -> usize {
    /// A name, a value, a hash and links.
    const SLOT: usize = 112;
    let bytes = headers.values().map(HeaderValue::len).sum::<usize>();
    let names = headers.keys().map(|name| name.as_str().len()).sum::<usize>();
    allocated(bytes) + names + allocated(headers.capacity() * SLOT) + (headers.len() - headers.keys_len()) * SLOT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_body_is_what_was_received(parts in proptest::collection::vec(0usize..100_000, 0..6), from in 0usize..400_000, length in 0usize..200_000) {
            let received: Vec<Vec<u8>> = parts.iter().enumerate().map(|(at, len)| {
                (0..*len).map(|byte| u8::try_from((byte * 7 + at) % 251).unwrap_or(0)).collect()
            }).collect();
            let body = Body::copied(&received, &Held::default());
            let whole = received.concat();
            prop_assert_eq!(body.len(), whole.len());
            prop_assert_eq!(body.parts().concat(), whole.clone());
            prop_assert!(body.parts().iter().all(|part| !part.is_empty() && part.len() <= PIECE));
            let end = from.saturating_add(length);
            let expected = whole.get(from.min(whole.len())..end.min(whole.len())).unwrap_or_default();
            prop_assert_eq!(body.slice(from..end).collect::<Vec<_>>().concat(), expected);
            prop_assert!(body.weight() >= body.len());
        }
    }
}
