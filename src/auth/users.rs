//! Users with passwords, as the filter `basic` knows them: who has presented a name and a password, if anybody.
//!
//! A name that nobody has costs as much as one that somebody has: the password is checked against the hash of another user, and the
//! result is thrown away. It is the same one each time, wherever the same users are known: hashes may differ in their costs, and a
//! name whose time differs from one place to the next would be nobody's.

use std::{collections::HashMap, fmt, sync::Arc};

use ahash::RandomState;
use aws_lc_rs::hmac;

use super::{Digest, Identity, PasswordHash};

/// One user.
#[derive(Clone, Debug)]
pub struct User {
    /// Who it is; the subject is the name that is presented.
    pub identity: Arc<Identity>,
    /// The hash of the password.
    pub hash: PasswordHash,
}

/// All users that are accepted.
#[derive(Clone)]
pub struct Users {
    all: Vec<User>,
    by_name: HashMap<String, usize, RandomState>,
    /// Who stands in for a name that nobody has: drawn with this key, which nobody can reckon with who does not know the hashes,
    /// of these places, whose order is the same wherever the users are listed.
    stand_in: hmac::Key,
    order: Vec<usize>,
}

impl Users {
    /// These users; nothing when there are none.
    ///
    /// # Errors
    /// The name that two of them have.
    pub fn new(all: Vec<User>) -> Result<Option<Self>, String> {
        let mut by_name = HashMap::with_capacity_and_hasher(all.len(), RandomState::new());
        for (place, user) in all.iter().enumerate() {
            let name = user.identity.subject.clone();
            if by_name.insert(name.clone(), place).is_some() {
                return Err(name);
            }
        }
        let mut stamps: Vec<(Digest, usize)> =
            all.iter().enumerate().map(|(place, user)| (user.hash.stamp(), place)).collect();
        stamps.sort_unstable();
        let order = stamps.iter().map(|(_, place)| *place).collect();
        let stamps: Vec<u8> = stamps.iter().flat_map(|(stamp, _)| *stamp.as_bytes()).collect();
        let stand_in = hmac::Key::new(hmac::HMAC_SHA256, &stamps);
        Ok((!all.is_empty()).then_some(Self { all, by_name, stand_in, order }))
    }

    /// The names of all, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Who has this name and this password. Takes as long for a name that nobody has; it blocks.
    pub fn check(&self, name: &str, password: &[u8]) -> Option<&Arc<Identity>> {
        let known = self.by_name.get(name).copied();
        let user = self.all.get(known.unwrap_or_else(|| self.other(name)))?;
        let right = user.hash.is_of(password);
        (right && known.is_some()).then_some(&user.identity)
    }

    /// The user whose hash is checked for a name that nobody has.
    fn other(&self, name: &str) -> usize {
        let drawn = hmac::sign(&self.stand_in, name.as_bytes());
        let drawn = drawn.as_ref().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let place = usize::try_from(drawn % self.order.len().max(1) as u64).unwrap_or(0);
        self.order.get(place).copied().unwrap_or(0)
    }

    /// The user of this name, if that has the same password in `before`.
    pub fn unchanged(&self, before: &Self, name: &str) -> Option<&User> {
        let of = |users: &Self| users.by_name.get(name).copied();
        let (now, then) = (self.all.get(of(self)?)?, before.all.get(of(before)?)?);
        (now.hash.stamp() == then.hash.stamp()).then_some(now)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}

/// A key of this process, by which it knows a name with its password again without keeping either.
pub struct CredentialKey(hmac::Key);

impl CredentialKey {
    /// A fresh one.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn generate() -> Result<Self, super::NoEntropy> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| super::NoEntropy)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// What stands for these parts, in this order.
    pub fn digest<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // Where one part ends and the next begins counts, too.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&context.sign().as_ref()[..32]);
        Digest::from_bytes(bytes)
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::Map;

    use super::{super::Method, *};

    fn user(name: &str, password: &str) -> User {
        let hash = bcrypt::hash(password, 4).unwrap();
        let identity = Identity {
            subject: name.to_owned(),
            method: Method::Basic,
            scopes: vec![],
            claims: Map::new(),
            key_id: None,
        };
        User { identity: Arc::new(identity), hash: PasswordHash::read(&hash).unwrap() }
    }

    #[test]
    fn a_name_and_its_password_belong_together() {
        let users = Users::new(vec![user("alice", "a"), user("bob", "b")]).unwrap().unwrap();
        assert_eq!(users.check("alice", b"a").unwrap().subject, "alice");
        assert_eq!(users.check("bob", b"b").unwrap().subject, "bob");
        for (name, password) in [("alice", "b"), ("bob", "a"), ("alice", ""), ("", "a"), ("Alice", "a"), ("eve", "a")] {
            assert!(users.check(name, password.as_bytes()).is_none(), "{name} {password}");
        }
        // Whoever stands in for a name that nobody has must not be taken for it.
        assert!((0..50).all(|n| users.check(&format!("nobody{n}"), b"a").is_none()));
        assert_eq!(Users::new(vec![user("a", "a"), user("a", "b")]).unwrap_err(), "a");
        assert!(Users::new(vec![]).unwrap().is_none());
    }

    #[test]
    fn the_same_users_stand_in_wherever_they_are_listed() {
        let all: Vec<User> = ["a", "b", "c", "d"].iter().map(|name| user(name, name)).collect();
        let mut turned = all.clone();
        turned.reverse();
        let (one, two) = (Users::new(all.clone()).unwrap().unwrap(), Users::new(turned).unwrap().unwrap());
        let of = |users: &Users, name: &str| users.all[users.other(name)].identity.subject.clone();
        let drawn: Vec<String> = (0..50).map(|n| of(&one, &format!("n{n}"))).collect();
        assert_eq!(drawn, (0..50).map(|n| of(&two, &format!("n{n}"))).collect::<Vec<_>>());
        assert!(all.iter().all(|user| drawn.contains(&user.identity.subject)), "{drawn:?}");
        let mut changed = all;
        changed[0] = user("a", "x");
        changed.pop();
        let changed = Users::new(changed).unwrap().unwrap();
        let is_kept = |name: &str| changed.unchanged(&one, name).is_some();
        assert!(!is_kept("a") && is_kept("b") && !is_kept("d") && !is_kept("e"));
    }

    #[test]
    fn a_digest_tells_where_the_name_ends() {
        let key = CredentialKey::generate().unwrap();
        let of = |parts: [&str; 2]| key.digest(parts.map(str::as_bytes));
        assert_eq!(of(["a", "bc"]), of(["a", "bc"]));
        assert_ne!(of(["a", "bc"]), of(["ab", "c"]));
        assert_ne!(of(["a", "bc"]), CredentialKey::generate().unwrap().digest(["a", "bc"].map(str::as_bytes)));
    }
}
