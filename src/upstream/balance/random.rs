//! `random`: by chance, by weight.

use std::sync::Arc;

use pingora_load_balancing::{Backends, selection};

use super::{
    Accept, Balancer,
    chance::by_chance,
    pingora::{Bookkeeping, Turns},
};
use crate::upstream::{backend::Backend, backend_list::BackendList, choice::Choice};

pub(crate) struct Random(Turns<selection::Random>);

impl Random {
    pub(super) fn new(backends: Backends) -> Self {
        Self(Turns::new(backends))
    }
}

impl Balancer for Random {
    fn books(&self) -> Option<&dyn Bookkeeping> {
        Some(&self.0)
    }

    fn choose(&self, all: &BackendList, _: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        // One step: beyond it, Pingora's selectors forget weights.
        self.0.next(all, accept).or_else(|| by_chance(all, accept))
    }
}
