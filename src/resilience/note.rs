//! What was found last of something, why, and when: for people who ask.

use std::{fmt, time::Duration};

use parking_lot::Mutex;

/// The last change of a state. Written when something changes, read when somebody asks; never by a request that goes well.
#[derive(Default)]
pub struct Note(Mutex<Option<(Duration, String)>>);

impl Note {
    /// It has changed at `now`, for this reason.
    pub fn set(&self, now: Duration, reason: impl Into<String>) {
        *self.0.lock() = Some((now, reason.into()));
    }

    /// When it changed last, and why; `None` while it is as it was at the beginning.
    pub fn get(&self) -> Option<(Duration, String)> {
        self.0.lock().clone()
    }
}

// What has happened so far is no setting: a Runtime must look the same before and after traffic.
impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Note")
    }
}
