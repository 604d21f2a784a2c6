//! A purge of kept answers: here, at the other gateways, and in the processes before and after this one.

use super::{Shared, neighbours::Side};
use crate::{
    cache::{
        key::Key,
        purge::{Manner, Purge},
        query::QueryRule,
        taken_back::TakenBack,
    },
    clock::Now,
};

/// Purges everywhere; says how many answers were here.
pub fn purge(shared: &Shared, purge: &Purge, manner: Manner, now: Now) -> usize {
    purge_but(shared, None, purge, manner, now)
}

/// What the process on that side has purged, or another one, is purged here, and where that one cannot tell of it.
pub fn heard(shared: &Shared, from: Option<Side>, purge: &Purge, manner: Manner) {
    for purge in purge.by_rules(&shared.neighbours.settings().queries) {
        purge_but(shared, from, &purge, manner, Now::read());
    }
}

fn purge_but(shared: &Shared, from: Option<Side>, purge: &Purge, manner: Manner, now: Now) -> usize {
    shared.neighbours.purge(from, purge, manner, || {
        if let Some(tier) = shared.cache_tier.load().as_ref() {
            tier.purge(purge, manner);
        }
        shared.cache.purge(purge, manner, now)
    })
}

/// Takes out what a backend has taken back: everywhere, but gateways that share a Redis are not told of what is one client's own.
pub fn take_back(shared: &Shared, key: &Key, what: &TakenBack<'_>) {
    if !shared.neighbours.are_there() && key.is_one_clients() {
        return shared.cache.take_back(key, what);
    }
    let purge = Purge::Url(key.url().to_owned());
    // A process with other rules has it under another part of the query, which is not known here any more.
    let cut = shared.neighbours.settings().queries.iter().any(|rule| *rule != QueryRule::Whole);
    let told = if cut { purge.with_any_query() } else { purge.clone() };
    shared.neighbours.purge(None, &told, Manner::Hard, || {
        if let Some(tier) = shared.cache_tier.load().as_ref().filter(|_| !key.is_one_clients()) {
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
