//! `random`: by chance, by weight.

use std::sync::Arc;

use pingora_load_balancing::{Backends, LoadBalancer, selection};

use super::{
    Accept, Balancer,
    chance::by_chance,
    pingora::{accepted, find},
};
use crate::upstream::{backend::Backend, choice::Choice};

pub(crate) struct Random(LoadBalancer<selection::Random>);

impl Random {
    pub(super) fn new(backends: Backends) -> Self {
        Self(LoadBalancer::from_backends(backends))
    }
}

#[async_trait::async_trait]
impl Balancer for Random {
    fn view(&self) -> &Backends {
        self.0.backends()
    }

    async fn update(&self) -> pingora::Result<()> {
        self.0.update().await
    }

    fn choose(&self, all: &[Arc<Backend>], _: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        // One step: beyond it, Pingora's selectors forget weights.
        let chosen = self.0.select_with(b"", 1, |candidate, _| accepted(all, accept, candidate));
        chosen.and_then(|chosen| find(all, &chosen).cloned()).or_else(|| by_chance(all, accept))
    }
}
