//! Keys of clients, as every gateway makes them.

use sha2::{Digest as _, Sha256};

use crate::limit::{KeyBytes, KeyParts};

/// The digest of `parts`, with IPv6 addresses cut to `ipv6_prefix` bits: of one length however long they are, and no client's
/// address or name.
pub(super) fn of(parts: &dyn KeyParts, ipv6_prefix: u8) -> u128 {
    let mut bytes = KeyBytes::new(ipv6_prefix);
    parts.write(&mut bytes);
    Sha256::digest(bytes.as_bytes()).iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}
