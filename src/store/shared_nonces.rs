//! Nonces that gateways remember together: what was used at one is used at all.

use std::{sync::Arc, time::Duration};

use super::{
    missed::{MissedNonce, note},
    redis::RedisStore,
};
use crate::{clock::Now, limit::StoreDown};

/// The nonces that gateways remember in Redis.
#[derive(Debug)]
pub struct SharedNonces {
    store: Arc<RedisStore>,
    /// What its metric calls a decision without the store.
    policy: &'static str,
}

impl SharedNonces {
    /// Those in `store`. `policy` is what happens while it does not answer, for the metric.
    pub fn new(store: Arc<RedisStore>, policy: &'static str) -> Self {
        Self { store, policy }
    }

    /// Notes the nonce of this `name` for `window`: whether it is new to all gateways. Takes no longer than a request may wait
    /// for the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn note(&self, name: &str, window: Duration) -> Result<bool, StoreDown> {
        if !self.store.has_begun() {
            // A configuration's own tests: nothing is shared, nobody is asked.
            return Ok(true);
        }
        let noted: Result<u8, _> = self.store.call(&note(name, window), self.store.generation()).await;
        noted.map(|new| new == 1).map_err(|_| {
            self.store.metrics().nonce_without(self.policy);
            StoreDown("it does not answer".to_owned())
        })
    }

    /// Notes it when the store is back: it has been taken without it.
    pub fn note_later(&self, name: String, window: Duration) {
        self.store.missed.push(MissedNonce { name, until: Now::monotonic().saturating_add(window) });
    }
}
