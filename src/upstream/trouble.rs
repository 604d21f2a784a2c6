//! Why connections to a backend do not come about, for the log: a line when that changes, not one for every request.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::message::reason::Reason;

/// The least time between two lines, in milliseconds: connections may fail and come about in turn.
const PAUSE: u64 = 1000;

/// What is known of one backend.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What was said last: the reason's place in the list, counted from 1; 0 while all is well.
    said: AtomicUsize,
    /// When, in milliseconds since the process began.
    at: AtomicU64,
}

impl Trouble {
    /// What was said last; `None` while all is well.
    pub(crate) fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(self.said.load(Relaxed).checked_sub(1)?).copied()
    }

    /// Takes in how an attempt to connect ended; true when that is to be said.
    pub(crate) fn changes(&self, reason: Option<Reason>, millis: u64) -> bool {
        let state = reason.map_or(0, |reason| reason as usize + 1);
        let (said, at) = (self.said.load(Relaxed), self.at.load(Relaxed));
        if state == said || said != 0 && millis < at.saturating_add(PAUSE) {
            return false;
        }
        // Of several who find out at once, one says it.
        let mine = self.said.compare_exchange(said, state, Relaxed, Relaxed).is_ok();
        if mine {
            self.at.store(millis, Relaxed);
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_said_once_and_not_too_often() {
        let trouble = Trouble::default();
        let refused = Some(Reason::ConnectRefused);
        assert!(!trouble.changes(None, 0));
        assert!(trouble.changes(refused, 5) && !trouble.changes(refused, 6));
        assert!(!trouble.changes(None, 7), "too soon");
        assert!(trouble.changes(None, 1005) && !trouble.changes(None, 1006));
        assert!(trouble.changes(Some(Reason::TlsName), 1007));
        assert_eq!(trouble.reason(), Some(Reason::TlsName));
        assert!(trouble.changes(Some(Reason::TlsExpired), 2007));
    }
}
