//! `round_robin`: each in turn, by weight. The turn is Pingora's; it knows nothing of ejection, breakers or what a request
//! has tried, so that comes in with `accept`.

use std::sync::Arc;

use pingora_load_balancing::{Backends, selection};

use super::{
    Accept, Balancer,
    chance::by_chance,
    pingora::{Bookkeeping, Turns},
};
use crate::upstream::{backend::Backend, backend_list::BackendList, choice::Choice};

pub(crate) struct RoundRobin(Turns<selection::RoundRobin>);

impl RoundRobin {
    pub(super) fn new(backends: Backends) -> Self {
        Self(Turns::new(backends))
    }
}

impl Balancer for RoundRobin {
    fn books(&self) -> Option<&dyn Bookkeeping> {
        Some(&self.0)
    }

    fn choose(&self, all: &BackendList, choice: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        // A further attempt takes no turn: with one of two backends down, every attempt that fails would take the
        // good one's, and every request would begin at the bad one.
        if !choice.tried.is_empty() {
            return by_chance(all, accept);
        }
        // One step: beyond it, Pingora's selectors forget weights, and a small backend would drown when a big one fails.
        self.0.next(all, accept).or_else(|| by_chance(all, accept))
    }
}
