//! Bodies in codings that clients take: made once of a body that is kept, and given to all who take the same.
//!
//! They are found by the body that they are made of, which never changes: what is purged or replaced is not asked for any more, and is
//! pushed out by others. Those that clients are still given then take as much again at most; whoever comes when that is taken has its
//! answer coded as it is written, and so has who asks for one that is too large to be kept.

use std::fmt;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use super::{
    body::{Body, Filling},
    held::Held,
};
use crate::message::content_coding::ContentCoding;

/// A coded body takes about so many bytes.
const USUAL: u64 = 4096;
/// What one takes beside its pieces.
const OVERHEAD: u64 = 128;
/// Larger bodies are coded anew for each client, piece by piece: making one must not take long.
const LARGEST: usize = 1 << 20;
/// A shard has room for so many of the largest.
const LARGEST_PER_SHARD: u64 = 2;
/// The most shards, each of which has a lock.
const MOST_SHARDS: u64 = 64;

/// What a coded body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// `Body::number` of what it is made of.
    body: u64,
    /// Its coding.
    pub coding: ContentCoding,
    /// How hard it is tried to make it small.
    pub level: u32,
}

/// Coded bodies, as many as there is room for.
pub struct CodedBodies {
    bodies: Cache<Form, Body, Weight>,
    /// What all of them take, and those that clients have still.
    held: Held,
    budget: u64,
    /// The largest body that is kept coded.
    largest: usize,
}

impl CodedBodies {
    /// Room for so many bytes; the bytes of all bodies are counted in `held`.
    pub fn new(bytes: u64, held: Held) -> Self {
        let shards = (bytes / (LARGEST as u64 * LARGEST_PER_SHARD)).clamp(1, MOST_SHARDS);
        let usual = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX).max(1);
        let mut options = OptionsBuilder::new();
        options.shards(1 << shards.ilog2()).estimated_items_capacity(usual).weight_capacity(bytes);
        let bodies = match options.build() {
            Ok(options) => {
                Cache::with_options(options, Weight, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            // It only fails when one of the two is not set.
            Err(_) => Cache::with_weighter(usual, bytes, Weight),
        };
        let largest = usize::try_from(bodies.shard_capacity() / LARGEST_PER_SHARD).unwrap_or(usize::MAX).min(LARGEST);
        Self { bodies, held, budget: bytes, largest }
    }

    /// Which form of this body would be kept; nothing for one that is too large.
    pub fn form(&self, body: &Body, coding: ContentCoding, level: u32) -> Option<Form> {
        let fits = (1..=self.largest).contains(&body.len());
        Some(Form { body: fits.then(|| body.number()).flatten()?, coding, level })
    }

    /// The body in this form, if somebody has taken it so before.
    pub fn get(&self, form: &Form) -> Option<Body> {
        self.bodies.get(form)
    }

    /// What a body of this length is to be coded into; nothing when clients hold too many by now.
    pub fn filling(&self, length: usize) -> Option<Filling> {
        let most = self.budget.saturating_mul(2);
        (self.held.bytes().saturating_add(length as u64) <= most).then(|| Filling::new(None, &self.held))
    }

    /// Keeps one for the next clients.
    pub fn keep(&self, form: Form, coded: &Body) {
        self.bodies.insert(form, coded.clone());
    }

    /// Bytes that are taken, and how many bodies there are.
    pub fn stats(&self) -> (u64, usize) {
        (self.bodies.weight(), self.bodies.len())
    }

    /// Bytes of those that are kept no longer, and that clients are still given.
    pub fn held_beyond(&self) -> u64 {
        self.held.bytes().saturating_sub(self.bodies.weight())
    }

    /// The most bytes that are kept.
    pub fn budget(&self) -> u64 {
        self.budget
    }
}

impl fmt::Debug for CodedBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodedBodies({:?})", self.stats())
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Form, Body> for Weight {
    fn weight(&self, _: &Form, coded: &Body) -> u64 {
        coded.weight() as u64 + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn body(len: usize) -> Body {
        Body::copied(&[vec![7; len]], &Held::default())
    }

    /// As a body that is coded is made.
    fn coded(bodies: &CodedBodies, len: usize) -> Option<Body> {
        let mut filling = bodies.filling(len)?;
        filling.extend(&vec![7; len]);
        Some(filling.finish())
    }

    #[test]
    fn a_form_is_that_of_one_body() {
        let bodies = CodedBodies::new(1 << 20, Held::default());
        let (one, same) = (body(100), body(100));
        let form = |body: &Body| bodies.form(body, ContentCoding::Gzip, 5);
        assert!(form(&one) == form(&one.clone()) && form(&one) != form(&same));
        assert_ne!(form(&one), bodies.form(&one, ContentCoding::Gzip, 6));
        assert_ne!(form(&one), bodies.form(&one, ContentCoding::Zstd, 5));
        assert!(form(&body(LARGEST)).is_none() && form(&body(0)).is_none() && form(&Body::to_come(5)).is_none());

        bodies.keep(form(&one).unwrap(), &coded(&bodies, 100).unwrap());
        assert_eq!(bodies.get(&form(&one).unwrap()).unwrap().len(), 100);
        assert!(bodies.get(&form(&same).unwrap()).is_none());
        for _ in 0..100 {
            bodies.keep(form(&body(10)).unwrap(), &coded(&bodies, 100_000).unwrap());
        }
        assert!(bodies.stats().0 <= 1 << 20 && bodies.stats().1 < 12);
        let none = CodedBodies::new(0, Held::default());
        assert!(none.form(&one, ContentCoding::Gzip, 5).is_none());
        assert_eq!((none.stats(), none.budget()), ((0, 0), 0));
    }

    #[test]
    fn what_may_be_kept_has_room() {
        for budget in [64 << 10, 1 << 20, 8 << 20, 100 << 20] {
            let bodies = CodedBodies::new(budget, Held::default());
            let largest = body(bodies.largest);
            let form = bodies.form(&largest, ContentCoding::Gzip, 5).unwrap();
            bodies.keep(form, &coded(&bodies, bodies.largest).unwrap());
            assert!(bodies.get(&form).is_some(), "{budget}");
            assert!(bodies.form(&body(bodies.largest + 1), ContentCoding::Gzip, 5).is_none());
        }
        assert_eq!(CodedBodies::new(8 << 20, Held::default()).largest, LARGEST);
    }

    #[test]
    fn what_clients_hold_is_as_much_again_at_most() {
        let bodies = CodedBodies::new(1 << 20, Held::default());
        let given: Vec<Body> = std::iter::from_fn(|| coded(&bodies, 100_000)).take(100).collect();
        assert!((17..=20).contains(&given.len()) && bodies.held_beyond() >= 1_900_000);
        drop(given);
        assert!(coded(&bodies, 100_000).is_some() && bodies.held_beyond() == 0);
    }
}
