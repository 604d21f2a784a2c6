//! New API keys: `tg_live_`, 32 random bytes in base62, `_`, and a checksum in base62 of all before it.
//!
//! The prefix lets a scanner find a leaked key, the checksum lets it be sure. The checksum also makes garbage cheap to refuse
//! before any lookup; it is no security, as anybody can compute it.
//!
//! It stores nothing, and the secret cannot be had a second time.

use std::fmt;

const PREFIX: &str = "tg_live_";
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits that 256 bits need in base 62.
const SECRET: usize = 43;
/// Digits that 32 bits need in base 62.
const CHECKSUM: usize = 6;

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gave no random bytes")
    }
}

impl std::error::Error for NoEntropy {}

/// A new key with 256 random bits.
pub fn generate_key() -> Result<String, NoEntropy> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| NoEntropy)?;
    Ok(format_key(secret))
}

/// Whether `text` has the form of [`generate_key`] and its checksum is right; says nothing about whether it is known.
pub fn has_checksum(text: &[u8]) -> bool {
    if text.len() != PREFIX.len() + SECRET + 1 + CHECKSUM || !text.starts_with(PREFIX.as_bytes()) {
        return false;
    }
    let (body, checksum) = text.split_at(PREFIX.len() + SECRET);
    checksum[0] == b'_' && checksum[1..] == checksum_of(body)
}

fn format_key(secret: [u8; 32]) -> String {
    let mut key = PREFIX.as_bytes().to_vec();
    key.extend(base62::<SECRET>(&secret));
    let checksum = checksum_of(&key);
    key.push(b'_');
    key.extend(checksum);
    key.iter().map(|&byte| char::from(byte)).collect()
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM] {
    base62(&crc32fast::hash(body).to_be_bytes())
}

/// `number`, big-endian, as exactly `N` digits: long division by 62, the last digit first.
fn base62<const N: usize>(number: &[u8]) -> [u8; N] {
    let mut number = number.to_vec();
    let mut digits = [DIGITS[0]; N];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        *digit = DIGITS[usize::from(rest)];
    }
    digits
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_looks_as_documented() {
        let key = generate_key().unwrap();
        assert_eq!(key.len(), 58);
        assert!(key.starts_with("tg_live_") && key.as_bytes()[51] == b'_');
        assert!(key.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
        assert!(has_checksum(key.as_bytes()));
        assert_ne!(key, generate_key().unwrap());
    }

    #[test]
    fn known_values() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926, "CRC-32 as in zip and PNG");
        assert_eq!(base62::<4>(&[0]), *b"0000");
        assert_eq!(base62::<2>(&[61]), *b"0z");
        assert_eq!(base62::<2>(&[62]), *b"10");
        assert_eq!(base62::<6>(&u32::MAX.to_be_bytes()), *b"4gfFC3");
        // The largest secret fits its 43 digits: 62^43 is just above 2^256.
        assert!(format_key([0xff; 32]) > format_key([0; 32]));
    }

    #[test]
    fn a_slip_is_noticed() {
        let key = format_key([7; 32]);
        for place in 0..key.len() {
            let mut slip = key.clone().into_bytes();
            slip[place] = if slip[place] == b'a' { b'b' } else { b'a' };
            assert!(!has_checksum(&slip), "at {place}");
        }
        assert!(!has_checksum(b"") && !has_checksum(&key.as_bytes()[1..]));
    }

    proptest! {
        #[test]
        fn different_secrets_are_different_keys(a: [u8; 32], b: [u8; 32]) {
            prop_assert!(has_checksum(format_key(a).as_bytes()));
            prop_assert_eq!(a == b, format_key(a) == format_key(b));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            prop_assert!(!has_checksum(&bytes));
        }
    }
}
