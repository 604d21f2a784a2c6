//! Keys of clients, as every gateway makes them.

use crate::{
    limit::{KeyBytes, KeyParts},
    units::sha256,
};

/// The digest of `parts`, with IPv6 addresses cut to `ipv6_prefix` bits: of one length however long they are, and no client's
/// address or name.
pub(super) fn of(parts: &dyn KeyParts, ipv6_prefix: u8) -> u128 {
    let mut bytes = KeyBytes::new(ipv6_prefix);
    parts.write(&mut bytes);
    sha256(bytes.as_bytes()).iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
