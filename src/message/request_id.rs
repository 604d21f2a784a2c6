//! The name of a request.

use std::{fmt, sync::Arc};

/// The name of a request in logs, problems and headers.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// Made here; written out only when somebody asks.
    Own(u128),
    /// The client's, checked by the `request_id` filter.
    Given(Arc<str>),
}

impl RequestId {
    /// A new one. Random, not secret: it names, it does not protect.
    pub fn fresh() -> Self {
        Self::Own(fastrand::u128(..))
    }

    /// Writes it to memory.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Own(number) => out.extend_from_slice(&hexadecimal(*number)),
            Self::Given(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(number) => f.write_str(std::str::from_utf8(&hexadecimal(*number)).unwrap_or_default()),
            Self::Given(text) => f.write_str(text),
        }
    }
}

/// All 32 digits, several times faster than the general formatting: every line of the access log has one.
fn hexadecimal(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
}
