//! Any backend, by weight: what balancers fall back to.

use std::sync::Arc;

use super::Accept;
use crate::upstream::backend::Backend;

/// Any backend, by weight.
pub(super) fn by_chance(all: &[Arc<Backend>], accept: &Accept<'_>) -> Option<Arc<Backend>> {
    let usable = || all.iter().filter(|backend| accept(backend));
    let weight: usize = usable().map(|backend| backend.weight).sum();
    let mut drawn = fastrand::usize(..weight.max(1));
    let chosen = usable().find(|backend| {
        let hit = drawn < backend.weight;
        drawn = drawn.saturating_sub(backend.weight);
        hit
    });
    chosen.cloned()
}
