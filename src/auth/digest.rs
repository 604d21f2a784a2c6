//! The SHA-256 of a credential: what may be stored, compared and written into a configuration in its place.
//!
//! A fast hash is right here: it stands for 256 random bits, which no guessing reaches. It would be wrong for passwords.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq;

use crate::units::sha256;

/// The SHA-256 of a credential.
///
/// `==` and hashing are for lookup, and take a time that depends on the digests; see [`matches`](Self::matches).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The text is not 64 hexadecimal digits, with or without `sha256:` before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is 64 hexadecimal digits, with or without 'sha256:' before them")
    }
}

impl std::error::Error for InvalidDigest {}

impl Digest {
    /// The digest of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        Self(sha256(secret))
    }

    /// A digest from its bytes, as a database column holds it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in a time that does not depend on where the two differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if hex.len() != 64 {
            return Err(InvalidDigest);
        }
        let digit =
            |byte: u8| (byte as char).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(InvalidDigest);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Only the first 8 digits: enough to tell two keys apart in a log, too little to look one up in somebody else's list.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From FIPS 180-4's examples.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn text_and_digest_are_the_same() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
        assert_eq!(format!("sha256:{}", ABC.to_uppercase()).parse(), Ok(Digest::of(b"abc")));
        for wrong in [
            "",
            "sha256:",
            &ABC[1..],
            &format!("{ABC}0"),
            &ABC.replace('b', "g"),
            &format!("sha512:{ABC}"),
            &"é".repeat(32),
        ] {
            assert_eq!(wrong.parse::<Digest>(), Err(InvalidDigest), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_too_little_to_use() {
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "Digest(ba7816bf..)");
    }

    #[test]
    fn matches_is_equality() {
        assert!(Digest::of(b"abc").matches(&Digest::of(b"abc")));
        assert!(!Digest::of(b"abc").matches(&Digest::of(b"abd")));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_undoes_display(text: String, bytes: [u8; 32]) {
            let _ = text.parse::<Digest>();
            prop_assert_eq!(Digest::from_bytes(bytes).to_string().parse(), Ok(Digest::from_bytes(bytes)));
        }
    }
}
