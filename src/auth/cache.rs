//! Tokens that were found good a short while ago, so that a signature is checked once and not with every request.
//!
//! The key is the SHA-256 of the whole token, signature included: whoever finds a cached entry has presented the very same bytes.
//! An entry is used only inside the window in which the token is valid, and for at most five minutes. Refusals are not kept;
//! otherwise garbage could push out what is good.
//!
//! The cache belongs to one verifier and dies with it: new keys or a new policy begin with an empty one.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;

use super::{Digest, Identity, claims::Window};

/// The longest that a verification counts, in seconds: a bound for what a withdrawn key can still do.
const LONGEST: u64 = 300;

#[derive(Clone)]
struct Verified {
    identity: Arc<Identity>,
    window: Window,
}

/// A bounded memory of good tokens.
pub struct VerifiedTokens(Cache<Digest, Verified>);

impl VerifiedTokens {
    /// Room for `capacity` tokens; the ones used least are forgotten first.
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// Who presented the token with this digest, if it is known to be good at `now`.
    pub(super) fn get(&self, token: &Digest, now: u64) -> Option<Arc<Identity>> {
        self.0.get(token).filter(|verified| verified.window.check(now).is_ok()).map(|verified| verified.identity)
    }

    /// Remembers a token that was verified at `now`.
    pub(super) fn insert(&self, token: Digest, identity: Arc<Identity>, window: Window, now: u64) {
        let window = Window { until: window.until.min(now.saturating_add(LONGEST)), ..window };
        self.0.insert(token, Verified { identity, window });
    }

    /// How many tokens are remembered, good or outdated.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no token is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedTokens({} of {})", self.len(), self.0.capacity())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::{super::Method, *};

    fn alice() -> Arc<Identity> {
        let subject = "alice".to_owned();
        Arc::new(Identity { subject, method: Method::Jwt, scopes: vec![], claims: Map::new(), key_id: None })
    }

    #[test]
    fn a_token_is_known_inside_its_window_only() {
        let cache = VerifiedTokens::new(10);
        let token = Digest::of(b"token");
        cache.insert(token, alice(), Window { from: 100, until: 200 }, 150);
        assert!([100, 150, 199].iter().all(|&now| cache.get(&token, now).is_some()));
        assert!([0, 99, 200, u64::MAX].iter().all(|&now| cache.get(&token, now).is_none()));
        assert!(cache.get(&Digest::of(b"other"), 150).is_none());
    }

    #[test]
    fn a_verification_counts_for_five_minutes() {
        let cache = VerifiedTokens::new(10);
        let token = Digest::of(b"token");
        cache.insert(token, alice(), Window { from: 0, until: u64::MAX }, 1_000);
        assert!(cache.get(&token, 1_299).is_some());
        assert!(cache.get(&token, 1_300).is_none());
        cache.insert(token, alice(), Window { from: 0, until: u64::MAX }, 1_300);
        assert!(cache.get(&token, 1_300).is_some());
    }

    #[test]
    fn it_does_not_grow() {
        let cache = VerifiedTokens::new(100);
        for number in 0..10_000u32 {
            cache.insert(Digest::of(&number.to_be_bytes()), alice(), Window { from: 0, until: u64::MAX }, 0);
        }
        assert!(cache.len() <= 100, "{}", cache.len());
    }
}
