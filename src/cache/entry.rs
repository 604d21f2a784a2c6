//! A stored answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{allocated::allocated, body::Body, storable::Terms, tags::Tags, vary::Selection};
use crate::clock::Now;

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
