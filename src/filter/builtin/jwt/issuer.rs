//! The tokens of one issuer, or of those that share keys: a verifier that follows the key sets it is made of.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use futures_util::future::join_all;

use super::key_source::Keys;
use crate::{
    auth::{Algorithm, Identity, JwtError, KeyError, Policy, Verifier},
    clock::Now,
};

/// Why a token was not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is not good.
    Token(JwtError),
    /// Nobody knows: keys that could verify it have never been fetched yet.
    NoKeysYet,
}

/// A verifier, and the generations of the sets that it was made of.
struct Current {
    generations: Vec<u64>,
    verifier: Verifier,
}

/// Whose tokens are verified together.
pub(super) struct Issuer {
    policy: Policy,
    keys: Keys,
    cache: usize,
    current: ArcSwap<Current>,
}

impl Issuer {
    /// # Errors
    /// No key fits, and none can come.
    pub(super) fn new(policy: Policy, keys: Keys, cache: usize) -> Result<Self, KeyError> {
        // A set that is fetched has public keys alone: secrets in it do not count.
        let of_secrets =
            |algorithm: &Algorithm| matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        if keys.sets.is_empty() || policy.algorithms.iter().all(of_secrets) {
            Verifier::new(policy.clone(), keys.fixed.clone())?;
        }
        let current = ArcSwap::from_pointee(make(&policy, &keys, cache));
        Ok(Self { policy, keys, cache, current })
    }

    /// True when it accepts tokens of the issuer `name`.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.policy.issuers.is_empty() || self.policy.issuers.iter().any(|known| known == name)
    }

    /// Whether a token that is valid has the claims and the scopes that the route asks for.
    pub(super) fn allows(&self, identity: &Identity) -> Result<(), JwtError> {
        self.current.load().verifier.allows(identity)
    }

    /// Who presented `token`. One that names a key which is not known waits for a fetch, when there may be one now.
    pub(super) async fn authenticate(&self, token: &str, now: Now) -> Result<Arc<Identity>, Denied> {
        self.refresh();
        let (error, lacks_key) = {
            let current = self.current.load();
            match current.verifier.authenticate(token, now.unix) {
                Ok(identity) => return Ok(identity),
                Err(error) if is_about_keys(&error) => (error, current.verifier.lacks_key_of(token)),
                Err(error) => return Err(Denied::Token(error)),
            }
        };
        if self.keys.sets.is_empty() || !lacks_key && self.are_loaded() {
            return Err(Denied::Token(error));
        }
        join_all(self.keys.sets.iter().map(|set| set.look_again(now.since_start))).await;
        self.refresh();
        match self.current.load().verifier.authenticate(token, now.unix) {
            Err(error) if is_about_keys(&error) && !self.are_loaded() => Err(Denied::NoKeysYet),
            other => other.map_err(Denied::Token),
        }
    }

    fn are_loaded(&self) -> bool {
        self.keys.sets.iter().all(|set| set.is_loaded())
    }

    /// Makes another verifier when a set has changed. Several requests may do so at once; each makes one that is new enough.
    fn refresh(&self) {
        let current = self.current.load();
        let same =
            self.keys.sets.iter().zip(&current.generations).all(|(set, generation)| set.generation() == *generation);
        if !same {
            self.current.store(Arc::new(make(&self.policy, &self.keys, self.cache)));
        }
    }
}

fn is_about_keys(error: &JwtError) -> bool {
    matches!(error, JwtError::UnknownKey | JwtError::NoKeyNamed | JwtError::Signature)
}

fn make(policy: &Policy, keys: &Keys, cache: usize) -> Current {
    let generations = keys.sets.iter().map(|set| set.generation()).collect();
    let known = keys.sets.iter().fold(keys.fixed.clone(), |known, set| known.and(set.known().keys.clone()));
    let verifier = Verifier::so_far(policy.clone(), known);
    let verifier = if cache > 0 { verifier.with_cache(cache) } else { verifier };
    Current { generations, verifier }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, keys, cache, .. } = self;
        // What has been fetched is no setting.
        write!(f, "Issuer({policy:?}, {:?}, {:?}, cache {cache})", keys.fixed, keys.sets)
    }
}
