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
    let stored = shared.cache.memory().get(&place.key);
    let in_memory = stored.iter().flat_map(|stored| stored.entries()).any(|known| Arc::ptr_eq(known, entry));
    // It may have been pushed out meanwhile.
    if in_memory || shared.cache.disk().as_ref().is_some_and(|disk| disk.has(&place.key, &entry.selection)) {
        return Some(entry.clone());
    }
    let stored = stored?;
    let newer = stored.select(asked)?;
    let may_be_given = match reuse::decide(newer, &Asked::of(asked, policy), Now::read()) {
        Reuse::Fresh | Reuse::Stale | Reuse::StaleWhileRevalidate => true,
        Reuse::Revalidate { or, .. } => of(or),
        Reuse::Unusable(_) | Reuse::Unavailable => false,
    };
    may_be_given.then(|| newer.clone())
}
