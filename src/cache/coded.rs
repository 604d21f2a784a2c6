//! Bodies in codings that clients take: made once of a body that is kept, and given to all who take the same.
//!
//! They are found by the body that they are made of, which never changes: what is purged or replaced is not asked for any more, and is
//! pushed out by others.

use std::fmt;

use quick_cache::{Weighter, sync::Cache};

use super::body::Body;
use crate::message::content_coding::ContentCoding;

/// A coded body takes about so many bytes.
const USUAL: u64 = 4096;
/// What one takes beside its pieces.
const OVERHEAD: u64 = 128;
/// Larger bodies are coded anew for each client, piece by piece: making one must not take long.
const LARGEST: usize = 1 << 20;

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

impl Form {
    /// That of this body; nothing for one that is not to be kept coded.
    pub fn of(body: &Body, coding: ContentCoding, level: u32) -> Option<Self> {
        (1..=LARGEST).contains(&body.len()).then(|| body.number()).flatten().map(|body| Self { body, coding, level })
    }
}

/// Coded bodies, as many as there is room for.
pub struct CodedBodies(Cache<Form, Body, Weight>);

impl CodedBodies {
    /// Room for so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter(usize::try_from(bytes / USUAL).unwrap_or(usize::MAX).max(1), bytes, Weight))
    }

    /// The body in this form, if somebody has taken it so before.
    pub fn get(&self, form: &Form) -> Option<Body> {
        self.0.get(form)
    }

    /// Keeps one for the next clients.
    pub fn keep(&self, form: Form, coded: &Body) {
        self.0.insert(form, coded.clone());
    }

    /// Bytes that are taken, and how many bodies there are.
    pub fn stats(&self) -> (u64, usize) {
        (self.0.weight(), self.0.len())
    }

    /// The most bytes.
    pub fn budget(&self) -> u64 {
        self.0.capacity()
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

    use super::{super::held::Held, *};

    #[test]
    fn a_form_is_that_of_one_body() {
        let held = Held::default();
        let body = |len: usize| Body::copied(&[vec![7; len]], &held);
        let (one, same) = (body(100), body(100));
        let form = |body: &Body| Form::of(body, ContentCoding::Gzip, 5);
        assert!(form(&one) == form(&one.clone()) && form(&one) != form(&same));
        assert_ne!(form(&one), Form::of(&one, ContentCoding::Gzip, 6));
        assert_ne!(form(&one), Form::of(&one, ContentCoding::Zstd, 5));
        assert!(form(&body(LARGEST + 1)).is_none() && form(&body(0)).is_none() && form(&Body::to_come(5)).is_none());

        let coded = CodedBodies::new(1 << 20);
        coded.keep(form(&one).unwrap(), &same);
        assert_eq!(coded.get(&form(&one).unwrap()).unwrap().len(), 100);
        assert!(coded.get(&form(&same).unwrap()).is_none());
        for _ in 0..100 {
            coded.keep(form(&body(10)).unwrap(), &body(100_000));
        }
        assert!(coded.stats().0 <= 1 << 20 && coded.stats().1 < 12);
        let none = CodedBodies::new(0);
        none.keep(form(&one).unwrap(), &same);
        assert_eq!((none.stats(), none.budget()), ((0, 0), 0));
    }
}
