//! Where that goes which memory has no room for.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;

use super::variants::Variants;

/// Takes what is pushed out; it must not wait for anything.
pub type Sink = dyn Fn(&Arc<Variants>) + Send + Sync;

/// Nowhere, until somebody takes it.
#[derive(Default)]
pub struct Overflow(ArcSwapOption<Box<Sink>>);

impl Overflow {
    /// From now on it goes there.
    pub fn set(&self, sink: Option<Box<Sink>>) {
        self.0.store(sink.map(Arc::new));
    }

    pub(super) fn take(&self, pushed: &Arc<Variants>) {
        if let Some(sink) = self.0.load().as_ref() {
            sink(pushed);
        }
    }
}

impl fmt::Debug for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overflow")
    }
}
