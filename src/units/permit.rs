//! One more of something that is counted, for as long as a permit lives. What is special about a limit (who waits for it,
//! what it shows) is the counter's own; counting up and down stands here, once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What permits are counted in.
pub(crate) trait Counter {
    /// How many permits there are.
    fn count(&self) -> &AtomicUsize;

    /// One more has been taken.
    fn taken(&self) {}

    /// One has been given back, and so many are left.
    fn given_back(&self, left: usize) {
        let _ = left;
    }
}

impl Counter for AtomicUsize {
    fn count(&self) -> &AtomicUsize {
        self
    }
}

/// For a permit that ends before what it is counted in.
impl<C: Counter + ?Sized> Counter for &C {
    fn count(&self) -> &AtomicUsize {
        (**self).count()
    }

    fn taken(&self) {
        (**self).taken();
    }

    fn given_back(&self, left: usize) {
        (**self).given_back(left);
    }
}

impl<C: Counter + ?Sized> Counter for Arc<C> {
    fn count(&self) -> &AtomicUsize {
        (**self).count()
    }

    fn taken(&self) {
        (**self).taken();
    }

    fn given_back(&self, left: usize) {
        (**self).given_back(left);
    }
}

/// One of what `C` counts; given back on drop.
#[derive(Debug)]
pub(crate) struct CountPermit<C: Counter>(C);

impl<C: Counter> CountPermit<C> {
    /// One more, whatever their number.
    pub(crate) fn take(of: C) -> Self {
        of.count().fetch_add(1, Relaxed);
        of.taken();
        Self(of)
    }

    /// One more, unless there are `most` already.
    pub(crate) fn within(of: C, most: usize) -> Option<Self> {
        let before = of.count().fetch_add(1, Relaxed);
        of.taken();
        let permit = Self(of);
        (before < most).then_some(permit)
    }
}

impl<C: Counter> Drop for CountPermit<C> {
    fn drop(&mut self) {
        let before = self.0.count().fetch_sub(1, Relaxed);
        self.0.given_back(before - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_there_may_be_and_all_come_back() {
        let count = Arc::new(AtomicUsize::new(0));
        let first = CountPermit::within(count.clone(), 1);
        assert!(first.is_some() && CountPermit::within(count.clone(), 1).is_none());
        let more = CountPermit::take(count.clone());
        assert_eq!(count.load(Relaxed), 2);
        drop((first, more));
        assert_eq!(count.load(Relaxed), 0);
    }
}
