//! The memory of bodies, and how much of it there is, as long as somebody has it: whoever is slow to read one holds it beyond the
//! time that it is kept.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use memmap2::MmapMut;

use super::allocated::allocated;
use crate::units::CountPermit;

/// What is larger than this is in pages of its own.
pub(super) const HEAP: usize = 64 << 10;
/// What a piece takes beside its bytes.
pub(super) const OVERHEAD: usize = 48;
/// Where there are no pages to be had, a piece is at most so large.
const HEAP_PIECE: usize = 128 << 10;
/// Memory is given out in pages of this size.
const PAGE: usize = 4 << 10;
/// The most pieces in pages of their own: a system allows a process so many mappings (65530 by default), and others need some.
const MOST_MAPPED: usize = 16_384;

/// The bytes of memory that bodies take, kept or not; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Held {
    bytes: Arc<AtomicU64>,
    mapped: Arc<AtomicUsize>,
}

/// Memory for a piece, filled so far.
#[derive(Debug)]
pub(super) struct Block {
    room: Room,
    len: usize,
}

enum Room {
    Heap(Vec<u8>),
    Mapped(MmapMut, #[expect(dead_code, reason = "counted until it is dropped")] CountPermit<Arc<AtomicUsize>>),
}

/// A piece of a body, which is counted until the last view of it is gone.
struct Piece {
    block: Block,
    held: Held,
}

/// What a piece of this length takes.
pub(super) fn taken(len: usize) -> usize {
    if len > HEAP { len.next_multiple_of(PAGE) } else { allocated(len) }
}

impl Held {
    /// Memory for a piece of `room` bytes, or for the beginning of it.
    pub(super) fn block(&self, room: usize) -> Block {
        let mapped = || {
            let permit = CountPermit::within(self.mapped.clone(), MOST_MAPPED)?;
            Some(Room::Mapped(MmapMut::map_anon(room).ok()?, permit))
        };
        let mapped = if room > HEAP { mapped() } else { None };
        Block { room: mapped.unwrap_or_else(|| Room::Heap(Vec::with_capacity(room.min(HEAP_PIECE)))), len: 0 }
    }

    /// A piece that is counted.
    pub(super) fn keep(&self, block: Block) -> Bytes {
        self.bytes.fetch_add(taken(block.len) as u64, Relaxed);
        Bytes::from_owner(Piece { block, held: self.clone() })
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What has come of it.
    pub(super) fn filled(&self) -> &[u8] {
        match &self.room {
            Room::Heap(bytes) => bytes,
            Room::Mapped(map, _) => &map[..self.len],
        }
    }

    pub(super) fn is_heap(&self) -> bool {
        matches!(self.room, Room::Heap(_))
    }

    /// Takes what there is room for, and gives back the rest.
    pub(super) fn fill<'p>(&mut self, part: &'p [u8]) -> &'p [u8] {
        let room = match &self.room {
            Room::Heap(bytes) => bytes.capacity(),
            Room::Mapped(map, _) => map.len(),
        };
        let (now, later) = part.split_at(part.len().min(room - self.len));
        match &mut self.room {
            Room::Heap(bytes) => bytes.extend_from_slice(now),
            Room::Mapped(map, _) => map[self.len..self.len + now.len()].copy_from_slice(now),
        }
        self.len += now.len();
        later
    }

    /// Room for so many more bytes on the heap.
    pub(super) fn grow(&mut self, more: usize) {
        if let Room::Heap(bytes) = &mut self.room {
            bytes.reserve_exact(more);
        }
    }

    /// The same in no more memory than it needs.
    pub(super) fn shrunk(mut self) -> Self {
        if let Room::Heap(bytes) = &mut self.room {
            bytes.shrink_to_fit();
        }
        self
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Heap(_)) { "Heap" } else { "Mapped" })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.block.filled()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(taken(self.block.len) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_counts_until_its_last_view_is_gone() {
        let held = Held::default();
        for (len, counts, mapped) in [(1000, 1024, 0), (70_000, 73_728, 1)] {
            let mut block = held.block(len);
            assert_eq!(block.fill(&vec![7; len + 3]).len(), 3);
            let piece = held.keep(block);
            let view = piece.slice(10..20);
            drop(piece);
            assert_eq!((held.bytes(), &view[..]), (counts, &[7; 10][..]));
            assert_eq!(held.mapped.load(Relaxed), mapped);
            drop(view);
            assert_eq!((held.bytes(), held.mapped.load(Relaxed)), (0, 0));
        }
    }

    #[test]
    fn without_pages_it_is_the_heap() {
        let held = Held::default();
        held.mapped.store(MOST_MAPPED, Relaxed);
        let mut block = held.block(1 << 20);
        assert_eq!(block.fill(&vec![7; 1 << 20]).len(), (1 << 20) - HEAP_PIECE);
        assert_eq!(block.len(), HEAP_PIECE);
        let body = super::super::body::Body::copied(&[vec![7; 1 << 20]], &held);
        assert!(body.parts().len() == 8 && body.parts().concat() == vec![7; 1 << 20]);
    }
}
