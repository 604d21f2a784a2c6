//! Where answers are kept: in memory, and, when they are for all clients, in the store that gateways share.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    cache::{entry::Entry, key::Key, memory::Ticket, refusal::Refusal},
    runtime::{Shared, cache_tier::TierTicket},
};

/// To be taken before a backend is asked, and handed back with its answer.
#[derive(Debug, Clone)]
pub(super) struct Tickets {
    pub(super) memory: Ticket,
    tier: Option<TierTicket>,
}

impl Tickets {
    /// For an answer under a key; `one_client`: it is that one's own, and nobody else is told of it.
    pub(super) fn take(shared: &Shared, one_client: bool) -> Self {
        let tier = shared.cache_tier.load();
        let tier = tier.as_ref().filter(|_| !one_client).and_then(|tier| tier.ticket());
        Self { memory: shared.cache.memory().ticket(), tier }
    }

    /// Keeps a new answer.
    pub(super) fn insert(&self, shared: &Shared, key: &Key, entry: Entry) -> Result<Arc<Entry>, Refusal> {
        let kept = shared.cache.insert(key, entry, self.memory)?;
        self.tell(shared, key, &kept);
        Ok(kept)
    }

    /// Keeps what a 304 or a HEAD has made of an entry.
    pub(super) fn refresh(
        &self,
        shared: &Shared,
        key: &Key,
        old: &Arc<Entry>,
        new: Entry,
    ) -> Result<Arc<Entry>, Refusal> {
        let kept = shared.cache.refresh(key, old, new, self.memory)?;
        self.tell(shared, key, &kept);
        Ok(kept)
    }

    fn tell(&self, shared: &Shared, key: &Key, kept: &Arc<Entry>) {
        if let Some(tier) = shared.cache_tier.load().as_ref() {
            tier.keep(key, kept, self.tier.as_ref());
        }
    }
}

/// The answer to such a request out of the store that gateways share, if it is there; it is in memory now, if that has room.
pub(super) async fn fetch(shared: &Shared, key: &Key, one_client: bool, request: &HeaderMap) -> Option<Arc<Entry>> {
    let tier = shared.cache_tier.load_full().filter(|_| !one_client)?;
    let ticket = shared.cache.memory().ticket();
    let found = tier.find(key, request, shared.cache.held()).await;
    // It counts already: as long as clients hold too much of what is kept no longer, there is no room for it either.
    let found = found.filter(|_| shared.cache.room().grow(0))?;
    shared.cache.insert(key, found, ticket).ok()
}

/// The same out of a file, where memory has none that is as new.
pub(super) async fn from_disk(shared: &Shared, key: &Key, request: &HeaderMap) -> Option<Arc<Entry>> {
    let disk = shared.cache_disk.load_full()?;
    // What is purged from here on is not kept.
    let ticket = shared.cache.memory().ticket();
    let spot = disk.known.find(key, request)?;
    let in_memory = shared.cache.memory().get(key);
    let known = in_memory.as_ref().and_then(|variants| variants.select(request));
    if known.is_some_and(|known| known.stored.since_start >= spot.stored.since_start) {
        return None;
    }
    let entry = disk.read(key, spot, request, &shared.cache).await?;
    // It stays there, too: what is pushed out again need not be written again.
    shared.cache.memory().insert(key, entry, ticket).ok()
}
