//! A purge of kept answers: here, at the other gateways, and in the process that takes over.

use super::Shared;
use crate::{
    cache::{
        key::Key,
        purge::{Manner, Purge},
        taken_back::TakenBack,
    },
    clock::Now,
};

/// Purges everywhere; says how many answers were here.
pub fn purge(shared: &Shared, purge: &Purge, manner: Manner, now: Now) -> usize {
    shared.successor.purge(purge, manner, || {
        if let Some(tier) = shared.cache_tier.load().as_ref() {
            tier.purge(purge, manner);
        }
        shared.cache.purge(purge, manner, now)
    })
}

/// Takes out what a backend has taken back: everywhere, unless it is one client's own, of which nobody else is told.
pub fn take_back(shared: &Shared, key: &Key, what: &TakenBack<'_>) {
    if key.is_one_clients() {
        return shared.cache.take_back(key, what);
    }
    let purge = Purge::Url(key.url().to_owned());
    shared.successor.purge(&purge, Manner::Hard, || {
        if let Some(tier) = shared.cache_tier.load().as_ref() {
            tier.purge(&purge, Manner::Hard);
        }
        shared.cache.take_back(key, what);
    });
}

/// Waits, for a moment at most, until a purge that other gateways have not been told of outlives this process.
pub async fn note(shared: &Shared) {
    if let Some(tier) = shared.cache_tier.load_full() {
        tier.note(&shared.untold).await;
    }
}
