//! From "this client on that route" to the `u64` that a [`Table`](super::Table) counts by.
//!
//! Each part is written with its kind and length, so that `("ab", "c")` and `("a", "bc")` are two keys and the text `"1"` is not
//! the number 1. The hash is seeded per process: who does not know the seed cannot choose a key that shares another client's
//! bucket. An IPv6 client owns at least a /64, so that addresses are cut to that prefix; otherwise one client could have 2^64 buckets.
//!
//! A hash is this process's own. Processes that share a store agree on [`KeyBytes`], which hold the parts themselves.

use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
};

use ahash::{AHasher, RandomState};

/// Makes keys; one per process, or at least one per table.
#[derive(Clone, Debug)]
pub struct KeyHasher {
    state: RandomState,
    ipv6_mask: u128,
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyHasher {
    /// A hasher with random seeds.
    pub fn new() -> Self {
        Self { state: RandomState::new(), ipv6_mask: mask(64) }
    }

    /// A hasher with a known seed, for tests and benchmarks that must repeat.
    pub fn with_seed(seed: u64) -> Self {
        Self { state: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x746f_6c6c), ipv6_mask: mask(64) }
    }

    /// Cuts IPv6 addresses to `bits` instead of 64; more than 128 is 128.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_mask = mask(bits);
        self
    }

    /// How many bits of an IPv6 address are looked at.
    pub fn ipv6_bits(&self) -> u32 {
        self.ipv6_mask.leading_ones()
    }

    /// Starts a key within `domain`, for instance the name of the limit: equal parts in two domains are two keys.
    pub fn key(&self, domain: &str) -> Key {
        Key { hasher: self.state.build_hasher(), ipv6_mask: self.ipv6_mask }.with(domain)
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(u32::from(bits))).unwrap_or(0)
}

/// Where the parts of a key go: into a hash ([`Key`]), or, for a store that others share, into bytes ([`KeyBytes`]).
pub trait KeySink {
    /// Takes a part with its kind and its length.
    fn part(&mut self, kind: PartKind, part: &[u8]);

    /// Which bits of an IPv6 address make one client.
    fn ipv6_mask(&self) -> u128;

    /// Adds a text, for instance a subject, a route or a claim.
    fn text(&mut self, part: &str) {
        self.part(PartKind::Text, part.as_bytes());
    }

    /// Adds raw bytes, for instance a header's value.
    fn bytes(&mut self, part: &[u8]) {
        self.part(PartKind::Bytes, part);
    }

    /// Adds a client address: IPv4 whole (also when written as IPv6, `::ffff:192.0.2.1`), IPv6 cut to its prefix.
    fn ip(&mut self, part: IpAddr) {
        match part.to_canonical() {
            IpAddr::V4(address) => self.part(PartKind::V4, &address.octets()),
            IpAddr::V6(address) => {
                let network = address.to_bits() & self.ipv6_mask();
                self.part(PartKind::V6, &network.to_be_bytes());
            }
        }
    }

    /// Adds nothing, but differently from any other part: "there is no user" is not the user with the empty name.
    fn absent(&mut self) {
        self.part(PartKind::Absent, b"");
    }
}

/// What a limit counts by: it writes its parts, always the same ones in the same order for the same request.
pub trait KeyParts: Sync {
    /// Writes the parts.
    fn write(&self, sink: &mut dyn KeySink);
}

/// What marks a part, so that no part can be taken for one of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// There is no such part.
    Absent,
    /// A text.
    Text,
    /// Raw bytes.
    Bytes,
    /// A number.
    Number,
    /// An IPv4 address.
    V4,
    /// An IPv6 network.
    V6,
}

/// A key in the making: add its parts, then [`finish`](Self::finish).
#[must_use]
pub struct Key {
    hasher: AHasher,
    ipv6_mask: u128,
}

impl Key {
    /// This key with a text added.
    pub fn with(mut self, part: &str) -> Self {
        self.text(part);
        self
    }

    /// This key with a number added, for instance a row id.
    pub fn number(mut self, part: u64) -> Self {
        self.part(PartKind::Number, &part.to_be_bytes());
        self
    }

    /// The key.
    pub fn finish(self) -> u64 {
        self.hasher.finish()
    }
}

impl KeySink for Key {
    fn part(&mut self, kind: PartKind, part: &[u8]) {
        self.hasher.write_u8(kind as u8);
        // The length goes in by itself: a hasher may treat two writes as one.
        self.hasher.write_u64(part.len() as u64);
        self.hasher.write(part);
    }

    fn ipv6_mask(&self) -> u128 {
        self.ipv6_mask
    }
}

/// A key as bytes that every process makes alike, for a store that several share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBytes {
    bytes: Vec<u8>,
    ipv6_mask: u128,
}

impl KeyBytes {
    /// An empty key, whose IPv6 addresses are cut to `ipv6_prefix` bits.
    pub fn new(ipv6_prefix: u8) -> Self {
        Self { bytes: Vec::with_capacity(64), ipv6_mask: mask(ipv6_prefix) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl KeySink for KeyBytes {
    fn part(&mut self, kind: PartKind, part: &[u8]) {
        self.bytes.push(kind as u8);
        self.bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.bytes.extend_from_slice(part);
    }

    fn ipv6_mask(&self) -> u128 {
        self.ipv6_mask
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn address(mut key: Key, text: &str) -> u64 {
        key.ip(text.parse().unwrap());
        key.finish()
    }

    fn ip(text: &str) -> u64 {
        address(KeyHasher::with_seed(1).key("ip"), text)
    }

    #[test]
    fn parts_do_not_run_together() {
        let hasher = KeyHasher::with_seed(1);
        let keys = [
            hasher.key("ab").with("c").finish(),
            hasher.key("a").with("bc").finish(),
            hasher.key("abc").finish(),
            hasher.key("abc").with("").finish(),
            made(hasher.key("abc"), &KeySink::absent).finish(),
            made(hasher.key("ab"), &|key| key.bytes(b"c")).finish(),
            hasher.key("ab").number(u64::from(b'c')).finish(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], hasher.key("ab").with("c").finish());
    }

    fn made<K: KeySink>(mut key: K, add: &dyn Fn(&mut K)) -> K {
        add(&mut key);
        key
    }

    #[test]
    fn bytes_for_a_shared_store_keep_parts_apart_too() {
        let of = |add: &dyn Fn(&mut KeyBytes)| made(KeyBytes::new(64), add);
        let two = |one: &'static str, other: &'static str| {
            of(&move |key| {
                key.text(one);
                key.text(other);
            })
        };
        let keys = [two("ab", "c"), two("a", "bc"), two("abc", ""), of(&|key| key.bytes(b"abc")), of(&KeySink::absent)];
        let distinct: std::collections::HashSet<_> = keys.iter().map(KeyBytes::as_bytes).collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(two("ab", "c"), two("ab", "c"), "every process makes the same");
        let ip = |text: &'static str| of(&move |key| key.ip(text.parse().unwrap()));
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
    }

    #[test]
    fn an_ipv6_client_is_its_prefix() {
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
        assert_ne!(ip("0.0.0.0"), ip("::"));
    }

    #[test]
    fn the_prefix_is_a_choice() {
        let at = |bits, text: &str| address(KeyHasher::with_seed(1).ipv6_prefix(bits).key(""), text);
        assert_eq!(at(48, "2001:db8:1:2::1"), at(48, "2001:db8:1:3::1"));
        assert_ne!(at(128, "2001:db8:1:2::1"), at(128, "2001:db8:1:2::2"));
        assert_ne!(at(200, "2001:db8:1:2::1"), at(200, "2001:db8:1:2::2"));
        assert_eq!(at(0, "2001:db8::"), at(0, "fe80::"));
    }

    #[test]
    fn seeds_differ_between_hashers() {
        assert_ne!(KeyHasher::new().key("a").finish(), KeyHasher::new().key("a").finish());
    }

    proptest! {
        #[test]
        fn different_parts_are_different_keys(a: (String, String), b: (String, String)) {
            let key = |(x, y): &(String, String)| KeyHasher::with_seed(7).key(x).with(y).finish();
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
