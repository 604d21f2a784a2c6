//! What bounds the requests that are under way in one service: made by its settings, and kept over a reload that does not
//! change those.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::sync::Notify;

use super::{concurrency::ConcurrencyLimit, settings::resilience::InFlightConfig};
use crate::resilience::Gradient;

/// What counts requests under way.
pub(super) struct ServiceLimits {
    pub(super) concurrency: Option<Arc<ConcurrencyLimit>>,
    /// Moves the limit, when it is adaptive.
    pub(super) gradient: Option<Arc<Gradient>>,
    /// Told whenever a backend has room again.
    pub(super) freed: Arc<Notify>,
    /// How many requests wait for room.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl ServiceLimits {
    pub(super) fn new(in_flight: Option<&InFlightConfig>) -> Self {
        let adaptive = in_flight.and_then(|limits| Some((limits.adaptive?, limits.max)));
        let gradient = adaptive.map(|(adaptive, most)| Arc::new(Gradient::new(adaptive.policy(most))));
        let concurrency = in_flight.filter(|limits| limits.max > 0).map(|limits| {
            let first = gradient.as_ref().map_or(limits.max, |gradient| gradient.limit());
            ConcurrencyLimit::new(first, limits.queue, limits.wait.0)
        });
        let waiting = concurrency.as_ref().map_or_else(Arc::default, |concurrency| concurrency.queued());
        Self { concurrency, gradient, freed: Arc::default(), waiting }
    }
}
