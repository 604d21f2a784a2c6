//! `least_connections`: the one with the fewest requests under way, relative to its weight.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pingora_load_balancing::Backends;

use super::{Accept, Balancer};
use crate::upstream::{backend::Backend, backend_list::BackendList, choice::Choice};

pub(crate) struct LeastConnections {
    turn: AtomicUsize,
}

impl LeastConnections {
    pub(super) fn new(_: Backends) -> Self {
        Self { turn: AtomicUsize::new(0) }
    }
}

impl Balancer for LeastConnections {
    fn choose(&self, all: &BackendList, _: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        least(all, self.turn.fetch_add(1, Ordering::Relaxed), accept)
    }
}

/// The backend with the fewest requests per weight; `turn` decides between equals, or an idle service would send
/// everything to the first one.
fn least(all: &[Arc<Backend>], turn: usize, accept: &Accept<'_>) -> Option<Arc<Backend>> {
    let start = turn % all.len().max(1);
    let (later, first) = all.split_at(start);
    // load/weight compared without division: a/wa < b/wb <=> a*wb < b*wa.
    let best = first.iter().chain(later).filter(|backend| accept(backend)).reduce(|best, next| {
        if (next.in_flight() + 1) * best.weight < (best.in_flight() + 1) * next.weight { next } else { best }
    });
    best.cloned()
}
