//! What is kept of a request's body, in case another attempt is made.

use bytes::BytesMut;

/// The most of a body that is kept for another attempt, as Pingora keeps of HTTP/1's (v1/common.rs).
const MOST_KEPT: usize = 64 << 10;

/// What is kept of a body.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Nobody has asked for it.
    Nothing,
    /// All that has come.
    Bytes(BytesMut),
    /// More has come than is kept.
    TooMuch,
}

impl Kept {
    /// Takes in a part of the body that is handed on.
    pub(crate) fn take_in(&mut self, data: &[u8]) {
        let Self::Bytes(bytes) = self else { return };
        if bytes.len() + data.len() <= MOST_KEPT {
            bytes.extend_from_slice(data);
        } else {
            *self = Self::TooMuch;
        }
    }
}
