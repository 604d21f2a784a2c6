//! Where the frames of a WebSocket end, on their way to the client: one of our own can be said only between two of them
//! (RFC 6455 §5.2).

/// How far what was written has come; it begins with the head of the answer that switched protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentFrames {
    /// In the head; so many bytes of the empty line that ends it have come.
    Head(usize),
    /// In a frame's own head: so many bytes of it, and its length as far as it is known.
    Frame {
        /// Bytes of the head so far.
        seen: u8,
        /// Bytes of the head that say the length.
        extended: u8,
        /// The length.
        length: u64,
    },
    /// In a frame's data.
    Data(u64),
}

const BETWEEN: SentFrames = SentFrames::Frame { seen: 0, extended: 0, length: 0 };

/// `1001`, going away (RFC 6455 §7.4.1).
pub(super) const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];

impl SentFrames {
    /// Before the first byte.
    pub(super) fn new() -> Self {
        Self::Head(0)
    }

    /// True between two frames.
    pub(super) fn is_between(self) -> bool {
        self == BETWEEN
    }

    /// These bytes have been written.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            *self = match *self {
                Self::Head(found) => match (found, byte) {
                    (0 | 2, b'\r') | (1, b'\n') => Self::Head(found + 1),
                    (3, b'\n') => BETWEEN,
                    (_, b'\r') => Self::Head(1),
                    _ => Self::Head(0),
                },
                Self::Frame { seen: 0, .. } => Self::Frame { seen: 1, extended: 0, length: 0 },
                Self::Frame { seen: 1, .. } => match byte & 0x7f {
                    126 => Self::Frame { seen: 2, extended: 2, length: 0 },
                    127 => Self::Frame { seen: 2, extended: 8, length: 0 },
                    short => Self::data(short.into()),
                },
                Self::Frame { seen, extended, length } => {
                    let length = length << 8 | u64::from(byte);
                    if seen + 1 == 2 + extended {
                        Self::data(length)
                    } else {
                        Self::Frame { seen: seen + 1, extended, length }
                    }
                }
                Self::Data(left) => {
                    let skipped = left.saturating_sub(1).min(tail.len() as u64);
                    rest = usize::try_from(skipped).ok().and_then(|skipped| tail.get(skipped..)).unwrap_or_default();
                    Self::data(left.saturating_sub(1 + skipped))
                }
            };
        }
    }

    fn data(length: u64) -> Self {
        if length == 0 { BETWEEN } else { Self::Data(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_they_end_however_they_are_cut() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        let long = [&[0x82, 126, 0x01, 0x00][..], &[7; 256]].concat();
        let longer = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![7; 65_536]].concat();
        let frames = [head, vec![0x81, 2, b'h', b'i'], vec![0x89, 0], long, longer];
        for cut in [1, 2, 3, 7, 1000, 100_000] {
            let mut sent = SentFrames::new();
            for frame in &frames {
                assert!(frame[0] == b'H' || sent.is_between());
                let (before, last) = frame.split_at(frame.len() - 1);
                before.chunks(cut).for_each(|part| sent.note(part));
                assert!(!sent.is_between());
                sent.note(last);
                assert!(sent.is_between(), "{} bytes by {cut}", frame.len());
            }
        }
    }
}
