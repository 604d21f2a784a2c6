//! Keys of clients, as every gateway makes them.

use sha2::{Digest as _, Sha256};

use crate::limit::{KeyParts, KeySink, PartKind};

/// The digest of `parts`, with IPv6 addresses cut to `ipv6_prefix` bits.
pub(super) fn of(parts: &dyn KeyParts, ipv6_prefix: u8) -> u128 {
    let ipv6_mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
    let mut digester = Digester { digest: Sha256::new(), ipv6_mask };
    parts.write(&mut digester);
    first_bytes(&digester.digest.finalize())
}

/// The digest of a text.
pub(super) fn of_text(text: &str) -> u128 {
    first_bytes(&Sha256::digest(text))
}

fn first_bytes(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}

/// The digest of a key's parts: of one length however long they are, and no client's address or name.
struct Digester {
    digest: Sha256,
    ipv6_mask: u128,
}

impl KeySink for Digester {
    fn part(&mut self, kind: PartKind, part: &[u8]) {
        self.digest.update([kind as u8]);
        self.digest.update((part.len() as u64).to_be_bytes());
        self.digest.update(part);
    }

    fn ipv6_mask(&self) -> u128 {
        self.ipv6_mask
    }
}
