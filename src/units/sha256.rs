//! SHA-256, by the library that TLS has: it uses what the processor knows of it.

use aws_lc_rs::digest::{self, Context, SHA256};

/// That of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    fixed(digest::digest(&SHA256, bytes))
}

/// That of bytes which come in parts.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes in the next part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// That of all parts.
    pub fn finish(self) -> [u8; 32] {
        fixed(self.0.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

fn fixed(digest: digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    #[test]
    fn agrees_with_another_library_in_one_piece_and_in_parts() {
        for length in [0, 1, 55, 56, 63, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            let expected: [u8; 32] = sha2::Sha256::digest(&bytes).into();
            assert_eq!(sha256(&bytes), expected);
            let mut parts = Sha256::new();
            bytes.chunks(7).for_each(|part| parts.update(part));
            assert_eq!(parts.finish(), expected);
        }
    }
}
