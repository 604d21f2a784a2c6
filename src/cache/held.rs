//! What kept bodies take, as long as somebody has them: whoever is slow to read one holds it beyond the time that it is kept.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;

use super::allocated::allocated;

/// The bytes of memory that bodies take, kept or not; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<AtomicU64>);

/// A piece of a body, which is counted until the last view of it is gone.
struct Piece {
    bytes: Vec<u8>,
    held: Held,
}

/// What a piece takes beside its bytes.
pub(super) const OVERHEAD: usize = 48;

impl Held {
    /// A piece that is counted.
    pub(super) fn piece(&self, bytes: Vec<u8>) -> Bytes {
        self.0.fetch_add(allocated(bytes.len()) as u64, Relaxed);
        Bytes::from_owner(Piece { bytes, held: self.clone() })
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.0.fetch_sub(allocated(self.bytes.len()) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_counts_until_its_last_view_is_gone() {
        let held = Held::default();
        let piece = held.piece(vec![7; 1000]);
        let view = piece.slice(10..20);
        drop(piece);
        assert_eq!((held.bytes(), &view[..]), (1024, &[7; 10][..]));
        drop(view);
        assert_eq!(held.bytes(), 0);
    }
}
