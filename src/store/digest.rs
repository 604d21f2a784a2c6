//! Keys of clients, as every gateway makes them.

use crate::{
    limit::{KeyBytes, KeyHasher, KeyParts},
    units::sha256,
};

/// A client's key, in Redis and in the tables of this process.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) shared: u128,
    pub(super) local: u64,
}

impl Keys {
    /// Those of the client with this digest.
    pub(super) fn new(shared: u128, hasher: &KeyHasher) -> Self {
        // The tables' own keys must not be foreseeable; the lower half is as good as all of it.
        let low = u64::try_from(shared & u128::from(u64::MAX)).unwrap_or(0);
        Self { shared, local: hasher.key("").number(low).finish() }
    }

    /// The name in Redis: limits that count by the same have one slot, and so one server of a cluster.
    pub(super) fn name(self, suffix: &str) -> String {
        format!("tollgate:{{{:032x}}}:{suffix}", self.shared)
    }
}

/// The digest of `parts`, with IPv6 addresses cut to `ipv6_prefix` bits: of one length however long they are, and no client's
/// address or name.
pub(super) fn of(parts: &dyn KeyParts, ipv6_prefix: u8) -> u128 {
    let mut bytes = KeyBytes::new(ipv6_prefix);
    parts.write(&mut bytes);
    sha256(bytes.as_bytes()).iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
