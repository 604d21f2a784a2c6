//! From "this client on that route" to the `u64` that a [`Table`](super::Table) counts by.
//!
//! Each part is written with its kind and length, so that `("ab", "c")` and `("a", "bc")` are two keys and the text `"1"` is not
//! the number 1. The hash is seeded per process: who does not know the seed cannot choose a key that shares another client's
//! bucket. An IPv6 client owns at least a /64, so that addresses are cut to that prefix; otherwise one client could have 2^64 buckets.
//!
//! It does not make keys that two processes agree on; a shared store needs the parts themselves.

use std::{
    hash::{BuildHasher, Hasher},
    net::{IpAddr, Ipv6Addr},
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

    /// Starts a key within `domain`, for instance the name of the limit: equal parts in two domains are two keys.
    pub fn key(&self, domain: &str) -> Key {
        Key { hasher: self.state.build_hasher(), ipv6_mask: self.ipv6_mask }.text(domain)
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(u32::from(bits))).unwrap_or(0)
}

/// A key in the making: add its parts, then [`finish`](Self::finish).
#[must_use]
pub struct Key {
    hasher: AHasher,
    ipv6_mask: u128,
}

impl Key {
    /// Adds a text, for instance a subject, a route or a claim.
    pub fn text(self, part: &str) -> Self {
        self.bytes_as(1, part.as_bytes())
    }

    /// Adds raw bytes, for instance a key digest.
    pub fn bytes(self, part: &[u8]) -> Self {
        self.bytes_as(2, part)
    }

    /// Adds a number, for instance a row id.
    pub fn number(mut self, part: u64) -> Self {
        self.hasher.write_u8(3);
        self.hasher.write_u64(part);
        self
    }

    /// Adds a client address: IPv4 whole (also when written as IPv6, `::ffff:192.0.2.1`), IPv6 cut to its prefix.
    pub fn ip(mut self, part: IpAddr) -> Self {
        match part.to_canonical() {
            IpAddr::V4(address) => {
                self.hasher.write_u8(4);
                self.hasher.write_u32(address.to_bits());
            }
            IpAddr::V6(address) => {
                self.hasher.write_u8(6);
                self.hasher.write_u128(Ipv6Addr::to_bits(address) & self.ipv6_mask);
            }
        }
        self
    }

    /// Adds nothing, but differently from any other part: "there is no user" is not the user with the empty name.
    pub fn absent(mut self) -> Self {
        self.hasher.write_u8(0);
        self
    }

    /// The key.
    pub fn finish(self) -> u64 {
        self.hasher.finish()
    }

    fn bytes_as(mut self, kind: u8, part: &[u8]) -> Self {
        self.hasher.write_u8(kind);
        // The length goes in by itself: a hasher may treat two writes as one.
        self.hasher.write_u64(part.len() as u64);
        self.hasher.write(part);
        self
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> u64 {
        KeyHasher::with_seed(1).key("ip").ip(text.parse().unwrap()).finish()
    }

    #[test]
    fn parts_do_not_run_together() {
        let hasher = KeyHasher::with_seed(1);
        let keys = [
            hasher.key("ab").text("c").finish(),
            hasher.key("a").text("bc").finish(),
            hasher.key("abc").finish(),
            hasher.key("abc").text("").finish(),
            hasher.key("abc").absent().finish(),
            hasher.key("ab").bytes(b"c").finish(),
            hasher.key("ab").number(u64::from(b'c')).finish(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], hasher.key("ab").text("c").finish());
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
        let at =
            |bits, text: &str| KeyHasher::with_seed(1).ipv6_prefix(bits).key("").ip(text.parse().unwrap()).finish();
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
            let key = |(x, y): &(String, String)| KeyHasher::with_seed(7).key(x).text(y).finish();
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
