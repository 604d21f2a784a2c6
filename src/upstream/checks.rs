//! What active health checks have found of one backend.
//!
//! Thresholds are counted here and not by Pingora: it knows backends by address and weight, so that a backend which has
//! taken another's address would inherit its state; and it takes a backend for well until several checks have failed,
//! which after every reload would send requests to one that is known to be ill.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use crate::resilience::Note;

/// The state of one backend. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ill: AtomicBool,
    /// There has been a check, whatever it found.
    any: AtomicBool,
    /// Checks in a row that contradict the state.
    row: AtomicUsize,
    /// Why and since when the state is what it is.
    changed: Note,
}

impl Checks {
    /// The same for clones, and for no others that are there at the same time.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// True until checks say otherwise.
    pub(crate) fn healthy(&self) -> bool {
        !self.0.ill.load(Relaxed)
    }

    /// Why and since when the state is what it is.
    pub(crate) fn changed(&self) -> &Note {
        &self.0.changed
    }

    /// True when there has been a check.
    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Relaxed)
    }

    /// Sets the state without a check, and begins to count anew.
    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.0.ill.store(!healthy, Relaxed);
        self.0.row.store(0, Relaxed);
    }

    /// Takes in a check. So many in a row must succeed, or fail, before the state changes; the very first one decides
    /// alone. Answers the new state, when it has changed. One check runs at a time.
    pub(crate) fn record(&self, good: bool, healthy_after: usize, unhealthy_after: usize) -> Option<bool> {
        let first = !self.0.any.swap(true, Relaxed);
        if good == self.healthy() {
            self.0.row.store(0, Relaxed);
            return None;
        }
        let row = self.0.row.fetch_add(1, Relaxed) + 1;
        let needed = match (good, first) {
            (true, _) => healthy_after,
            (false, true) => 1,
            (false, false) => unhealthy_after,
        };
        (row >= needed).then(|| {
            self.set_healthy(good);
            good
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_check_decides_and_later_ones_in_a_row() {
        let checks = Checks::default();
        assert!(checks.healthy() && !checks.any());
        assert_eq!(checks.record(false, 2, 3), Some(false));
        assert!(checks.any());
        assert_eq!([true, false, true, true].map(|good| checks.record(good, 2, 3)), [None, None, None, Some(true)]);
        let row = [false, false, true, false, false, false];
        assert_eq!(row.map(|good| checks.record(good, 2, 3)), [None, None, None, None, None, Some(false)]);
        assert!(!checks.clone().healthy());
    }
}
