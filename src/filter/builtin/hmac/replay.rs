//! Who has seen a nonce: this process, and with Redis all gateways.
//!
//! This process is asked first: what it has no room for is not noted anywhere, and may be sent again. Then Redis is: what is not
//! taken for its sake is forgotten here, so that nobody fills this memory with what others have seen.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::refusal::SignatureRefusal;
use crate::{
    auth::{Nonces, Noted, SharedSecret},
    message::reason::Reason,
    store::{RedisStore, SharedNonces},
};

/// Where nonces are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NonceSync {
    /// In this process.
    Local,
    /// In Redis, too, with a call for every signed request.
    Strict,
}

/// What happens while Redis does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum NoncesDown {
    /// What this process remembers counts.
    #[default]
    Local,
    /// Nothing that is signed passes: 503.
    Deny,
}

/// The longest `max_age`.
pub(super) const MAX_AGE: Duration = Duration::from_secs(300);

/// For how long Redis remembers a nonce: whoever else has the secret may take it for the longest `max_age` that there is.
const WINDOW: Duration = window(MAX_AGE);

/// From the first moment in which a signature is taken to the last: it may be from the future, by our clock.
pub(super) const fn window(max_age: Duration) -> Duration {
    max_age.saturating_mul(2).saturating_add(Duration::from_secs(1))
}

/// A secret, and what has been used of it wherever it counts.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) shared: SharedSecret,
    pub(super) nonces: Nonces,
}

/// What must not come twice.
#[derive(Debug)]
pub(super) struct Replay {
    shared: Option<SharedNonces>,
    on_store_down: NoncesDown,
}

impl Replay {
    /// Nonces that `redis`, if any, remembers.
    pub(super) fn new(redis: Option<Arc<RedisStore>>, on_store_down: NoncesDown) -> Self {
        let policy = match on_store_down {
            NoncesDown::Local => "local",
            NoncesDown::Deny => "deny",
        };
        Self { shared: redis.map(|store| SharedNonces::new(store, policy)), on_store_down }
    }

    /// Notes a nonce that `secret` has signed, at `now`: an error unless this is the first time.
    pub(super) async fn first(&self, secret: &Secret, nonce: &str, now: Duration) -> Result<(), SignatureRefusal> {
        let used = SignatureRefusal(Reason::SignatureReplayed, "the signature was used before");
        match secret.nonces.note(nonce, now) {
            Noted::Fresh => {}
            Noted::Used => return Err(used),
            Noted::Full => {
                return Err(SignatureRefusal(Reason::NoncesFull, "there are too many signed requests: try again"));
            }
        }
        let Some(shared) = &self.shared else { return Ok(()) };
        let name = secret.shared.name_of(nonce);
        let refusal = match shared.note(&name, WINDOW).await {
            Ok(true) => return Ok(()),
            Err(_) if self.on_store_down == NoncesDown::Local => {
                shared.note_later(name, WINDOW);
                return Ok(());
            }
            Ok(false) => used,
            Err(_) => {
                // A call that is late may still be carried out, and cannot be taken back.
                let detail = "signed requests cannot be checked at the moment: sign the request anew and try again";
                SignatureRefusal(Reason::NonceStoreDown, detail)
            }
        };
        secret.nonces.take_back(nonce);
        Err(refusal)
    }
}
