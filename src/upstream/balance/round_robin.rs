//! `round_robin`: each in turn, by weight. The turn is Pingora's; it knows nothing of ejection, breakers or what a request
//! has tried, so that comes in by its `select_with` predicate.

use std::sync::Arc;

use pingora_load_balancing::{Backends, LoadBalancer, selection};

use super::{
    Accept, Balancer,
    chance::by_chance,
    pingora::{Bookkeeping, select},
};
use crate::upstream::{backend::Backend, backend_list::BackendList, choice::Choice};

pub(crate) struct RoundRobin(LoadBalancer<selection::RoundRobin>);

impl RoundRobin {
    pub(super) fn new(backends: Backends) -> Self {
        Self(LoadBalancer::from_backends(backends))
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
        select(&self.0, b"", 1, all, accept).or_else(|| by_chance(all, accept))
    }
}
