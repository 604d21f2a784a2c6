//! API keys from the configuration: which of them, if any, was presented.
//!
//! Only digests are kept. The lookup by digest may take a time that depends on the digest, which nobody can steer without
//! inverting SHA-256; the final comparison does not. A key may end at a given second, so that a rotation needs no second reload.
//!
//! It does not create keys (see [`generate_key`](super::generate_key)), and keys that are managed at run time live elsewhere.

use std::{collections::HashMap, fmt, sync::Arc};

use ahash::RandomState;

use super::{Digest, Identity};

/// The longest credential worth hashing; ours are 58 bytes, and the longest known to us elsewhere is below 300.
const LONGEST: usize = 512;

/// One key: what it hashes to, and who holds it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The digest of the key.
    pub digest: Digest,
    /// Who presents it.
    pub identity: Identity,
    /// From this second on (Unix time) it is refused.
    pub not_after: Option<u64>,
}

/// Two entries have the same digest, so that it would be open who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateKey(pub Digest);

impl fmt::Display for DuplicateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two entries have the same key: {:?}", self.0)
    }
}

impl std::error::Error for DuplicateKey {}

/// Why a presented key was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such key.
    Unknown,
    /// The key was good until its `not_after`.
    Expired,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the key is not known",
            Self::Expired => "the key has expired",
        })
    }
}

impl std::error::Error for Refusal {}

#[derive(Debug)]
struct Held {
    digest: Digest,
    identity: Arc<Identity>,
    not_after: u64,
}

/// All keys that are accepted.
#[derive(Debug, Default)]
pub struct Keys(HashMap<Digest, Held, RandomState>);

impl Keys {
    /// The keys of `entries`.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Result<Self, DuplicateKey> {
        let mut keys = Self::default();
        for Entry { digest, identity, not_after } in entries {
            let held = Held { digest, identity: Arc::new(identity), not_after: not_after.unwrap_or(u64::MAX) };
            if keys.0.insert(digest, held).is_some() {
                return Err(DuplicateKey(digest));
            }
        }
        Ok(keys)
    }

    /// Who holds the presented key, at `now_unix`.
    pub fn find(&self, presented: &[u8], now_unix: u64) -> Result<&Arc<Identity>, Refusal> {
        if presented.len() > LONGEST {
            return Err(Refusal::Unknown);
        }
        self.find_digest(&Digest::of(presented), now_unix)
    }

    /// Like [`find`](Self::find), for a caller that has the digest already.
    pub fn find_digest(&self, digest: &Digest, now_unix: u64) -> Result<&Arc<Identity>, Refusal> {
        let held = self.0.get(digest).filter(|held| held.digest.matches(digest)).ok_or(Refusal::Unknown)?;
        if now_unix >= held.not_after { Err(Refusal::Expired) } else { Ok(&held.identity) }
    }

    /// Whoever holds a key, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.0.values().map(|held| held.identity.as_ref())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no key is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::Map;

    use super::{super::Method, *};

    fn entry(secret: &str, subject: &str, not_after: Option<u64>) -> Entry {
        let subject = subject.to_owned();
        let identity = Identity { subject, method: Method::ApiKey, scopes: vec![], claims: Map::new(), key_id: None };
        Entry { digest: Digest::of(secret.as_bytes()), identity, not_after }
    }

    #[test]
    fn a_known_key_names_its_holder() {
        let keys = Keys::new([entry("secret-a", "alice", None), entry("secret-b", "bob", None)]).unwrap();
        assert_eq!(keys.find(b"secret-a", 0).unwrap().subject, "alice");
        assert_eq!(keys.find(b"secret-b", u64::MAX - 1).unwrap().subject, "bob");
        for wrong in ["", "secret-", "secret-c", "SECRET-A", "secret-a "] {
            assert_eq!(keys.find(wrong.as_bytes(), 0), Err(Refusal::Unknown), "{wrong}");
        }
        assert_eq!((keys.len(), keys.is_empty()), (2, false));
    }

    #[test]
    fn a_key_ends_at_its_second() {
        let keys = Keys::new([entry("secret", "alice", Some(1_000))]).unwrap();
        assert!(keys.find(b"secret", 999).is_ok());
        assert_eq!(keys.find(b"secret", 1_000), Err(Refusal::Expired));
    }

    #[test]
    fn what_is_too_long_is_not_hashed() {
        let long = "x".repeat(513);
        let keys = Keys::new([entry(&long, "alice", None), entry(&long[1..], "bob", None)]).unwrap();
        assert_eq!(keys.find(long.as_bytes(), 0), Err(Refusal::Unknown));
        assert!(keys.find(&long.as_bytes()[1..], 0).is_ok());
    }

    #[test]
    fn one_key_has_one_holder() {
        let twice = Keys::new([entry("secret", "alice", None), entry("secret", "bob", None)]);
        assert_eq!(twice.err(), Some(DuplicateKey(Digest::of(b"secret"))));
        assert!(!DuplicateKey(Digest::of(b"secret")).to_string().contains(&Digest::of(b"secret").to_string()));
    }
}
