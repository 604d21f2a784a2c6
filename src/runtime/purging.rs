//! A purge of kept answers: here, and at the other gateways.

use super::Shared;
use crate::{
    cache::purge::{Manner, Purge},
    clock::Now,
};

/// Purges everywhere; says how many answers were here.
pub fn purge(shared: &Shared, purge: &Purge, manner: Manner, now: Now) -> usize {
    if let Some(tier) = shared.cache_tier.load().as_ref() {
        tier.purge(purge, manner);
    }
    shared.cache.purge(purge, manner, now)
}

/// Waits, for a moment at most, until a purge that other gateways have not been told of outlives this process.
pub async fn note(shared: &Shared) {
    if let Some(tier) = shared.cache_tier.load_full() {
        tier.note(&shared.untold).await;
    }
}
