//! What may be given in place of a failure.

use std::sync::Arc;

use http::HeaderMap;

use super::request::Place;
use crate::{
    cache::{
        entry::Entry,
        policy::Policy,
        reuse::{self, Asked, InPlaceOf, Reuse},
    },
    clock::Now,
    runtime::Shared,
};

/// The entry that the backend was asked about, if it may be given in place `of` that and is stored still: while the backend
/// was asked, it may have been purged, or somebody else was told that it is taken back. One that has come in its place is
/// given on its own terms.
pub(super) fn of_failure(
    shared: &Shared,
    place: &Place,
    asked: &HeaderMap,
    policy: &Policy,
    of: fn(InPlaceOf) -> bool,
) -> Option<Arc<Entry>> {
    let entry = place.entry.as_ref().filter(|_| of(place.or))?;
    let memory = shared.cache.memory();
    let stored = memory.get(&place.key);
    if stored.iter().flat_map(|stored| stored.entries()).any(|known| Arc::ptr_eq(known, entry)) {
        return Some(entry.clone());
    }
    let Some(newer) = stored.as_ref().and_then(|stored| stored.select(asked)) else {
        // It may have been pushed out meanwhile.
        return (!memory.has_purged_entry(&place.key, entry, place.tickets.memory)).then(|| entry.clone());
    };
    let may_be_given = match reuse::decide(newer, &Asked::of(asked, policy), Now::read()) {
        Reuse::Fresh | Reuse::Stale | Reuse::StaleWhileRevalidate => true,
        Reuse::Revalidate { or, .. } => of(or),
        Reuse::Unusable(_) | Reuse::Unavailable => false,
    };
    may_be_given.then(|| newer.clone())
}
