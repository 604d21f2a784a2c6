//! A stored body: pieces of memory that belong to nothing else, and how they are filled.
//!
//! What is small is on the heap. Large pieces are pages of their own, which go back to the system when nobody has them any more: on the
//! heap they would leave holes, and the allocator would have to give back at once what it is better off keeping for the buffers
//! of requests.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::{
    allocated::allocated,
    held::{self, Block, HEAP, Held},
};

/// A piece has at most this many bytes.
const PIECE: usize = 1 << 20;

/// Of a piece that is being filled, at most so many bytes are copied at once: each of those who follow has such a copy until it is written.
const COPIED: usize = 16 << 10;

/// A complete body, in pieces that belong to nothing else.
#[derive(Debug, Clone, Default)]
pub struct Body {
    parts: Arc<[Bytes]>,
    len: usize,
    /// See [`Self::number`].
    number: u64,
}

impl Body {
    /// A copy of what was received. What came from a connection is a view of a buffer that may be much larger, and that
    /// nobody would count. Its pieces are counted in `held`.
    pub fn copied<P: AsRef<[u8]>>(received: &[P], held: &Held) -> Self {
        let len = received.iter().map(|part| part.as_ref().len()).sum::<usize>();
        let mut filling = Filling::new(Some(len as u64), held);
        for part in received {
            filling.extend(part.as_ref());
        }
        filling.finish()
    }

    /// A body of this length whose bytes are to come, by another way.
    pub fn to_come(len: usize) -> Self {
        Self { parts: Arc::default(), len, number: 0 }
    }

    /// Tells it from all others, and is that of its clones; nothing for one that is to come, or empty.
    pub fn number(&self) -> Option<u64> {
        (self.number > 0).then_some(self.number)
    }

    /// What there is from this place on, to the end of its piece.
    pub fn from(&self, place: usize) -> Bytes {
        self.slice(place..self.len).next().unwrap_or_default()
    }

    /// The pieces; cloning one copies nothing.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces of a part of it; nothing is copied. What is outside of it is left out.
    pub fn slice(&self, range: Range<usize>) -> impl Iterator<Item = Bytes> + '_ {
        slice(&self.parts, range)
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> usize {
        let pieces = self.parts.iter().map(|part| held::taken(part.len())).sum::<usize>();
        pieces + allocated(16 + self.parts.len() * size_of::<Bytes>()) + self.parts.len() * held::OVERHEAD
    }
}

/// The pieces of a part of what these pieces are together.
fn slice(parts: &[Bytes], range: Range<usize>) -> impl Iterator<Item = Bytes> + '_ {
    let mut start = 0usize;
    parts.iter().filter_map(move |part| {
        let (from, to) = (range.start.max(start), range.end.min(start + part.len()));
        let slice = (from < to).then(|| part.slice(from - start..to - start));
        start += part.len();
        slice
    })
}

/// A body on its way.
#[derive(Debug)]
pub struct Filling {
    parts: Vec<Bytes>,
    /// Bytes in `parts`.
    full: usize,
    piece: Block,
    /// What is to come still, as far as that was said.
    expected: usize,
    held: Held,
}

impl Filling {
    /// Room for a body of which this length was said. On trust, no more is taken than a piece.
    pub fn new(length: Option<u64>, held: &Held) -> Self {
        let expected = length.and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        Self { parts: Vec::new(), full: 0, piece: held.block(expected.min(PIECE)), expected, held: held.clone() }
    }

    /// How many bytes have come.
    pub fn len(&self) -> usize {
        self.full + self.piece.len()
    }

    /// True when none have.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has come from this place on, or some of it: a view of a piece that is full, or a copy of one that is not.
    pub fn from(&self, place: usize) -> Bytes {
        let Some(within) = place.checked_sub(self.full) else {
            return slice(&self.parts, place..self.full).next().unwrap_or_default();
        };
        let come = self.piece.filled().get(within..).unwrap_or_default();
        Bytes::copy_from_slice(&come[..come.len().min(COPIED)])
    }

    /// More of it.
    pub fn extend(&mut self, part: &[u8]) {
        let mut part = part;
        while !part.is_empty() {
            part = self.piece.fill(part);
            if !part.is_empty() {
                self.next(part.len());
            }
        }
    }

    /// Goes on when the piece is full: as much is said to come, or `least`.
    fn next(&mut self, least: usize) {
        let len = self.len();
        if self.piece.is_heap() && len < HEAP {
            // More than was said, or nothing was.
            return self.piece.grow(least.max(len).min(HEAP - len));
        }
        let left = self.expected.saturating_sub(len);
        let room = if left == 0 { PIECE } else { left.min(PIECE) };
        let full = std::mem::replace(&mut self.piece, self.held.block(room));
        self.full += full.len();
        self.parts.extend((full.len() > 0).then(|| self.held.keep(full)));
    }

    /// The body, now that all of it has come.
    pub fn finish(self) -> Body {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (len, mut parts, number) = (self.len(), self.parts, NEXT.fetch_add(1, Relaxed));
        if self.piece.len() > 0 {
            let last = self.held.keep(self.piece.shrunk());
            if parts.is_empty() {
                return Body { parts: Arc::new([last]), len, number };
            }
            parts.push(last);
        }
        Body { parts: parts.into(), len, number }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_body_is_what_was_received(parts in proptest::collection::vec(0usize..900_000, 0..6), said in proptest::option::of(0u64..3_000_000), from in 0usize..2_000_000, length in 0usize..2_000_000) {
            let received: Vec<Vec<u8>> = parts.iter().enumerate().map(|(at, len)| {
                (0..*len).map(|byte| u8::try_from((byte * 7 + at) % 251).unwrap_or(0)).collect()
            }).collect();
            let (held, whole) = (Held::default(), received.concat());
            let mut filling = Filling::new(said, &held);
            let mut followed = Vec::new();
            for part in &received {
                filling.extend(part);
                prop_assert!(from < filling.len() || filling.from(from).is_empty());
                while followed.len() < filling.len() {
                    let next = filling.from(followed.len());
                    prop_assert!(!next.is_empty());
                    followed.extend_from_slice(&next);
                }
            }
            prop_assert!(followed == whole);
            prop_assert_eq!(filling.len(), whole.len());
            for body in [filling.finish(), Body::copied(&received, &held)] {
                prop_assert_eq!(body.len(), whole.len());
                prop_assert!(body.parts().concat() == whole);
                prop_assert!(body.parts().iter().all(|part| !part.is_empty() && part.len() <= PIECE));
                let end = from.saturating_add(length);
                let expected = whole.get(from.min(whole.len())..end.min(whole.len())).unwrap_or_default();
                prop_assert!(body.slice(from..end).collect::<Vec<_>>().concat() == expected);
                prop_assert!(whole.get(from..).unwrap_or_default().starts_with(&body.from(from)));
                prop_assert_eq!(body.from(from).is_empty(), from >= whole.len());
                prop_assert!(body.weight() >= body.len());
            }
            prop_assert_eq!(held.bytes(), 0);
        }
    }
}
