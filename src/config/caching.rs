//! `cache:` of a route: its rules, checked.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{
    cache::shared::CachePlan,
    routing::route::RouteConfig,
    units::Problems,
    yaml::{Node, Spanned},
};

/// The cache of a route that has one.
pub(super) fn plan(route: &Spanned<RouteConfig>, root: &Node, problems: &mut Problems) -> Option<Arc<CachePlan>> {
    let cache = route.cache.as_ref()?;
    let place = |key: &str| root.at(&format!("{}.cache{key}", route.place.path)).place().clone();
    if route.service.is_none() && route.split.is_empty() {
        problems.push(place("").problem("this route asks no backend, so there is nothing to keep: leave 'cache' out"));
    }
    match cache.policy() {
        // Whatever is said of the route may change its answers.
        Ok(policy) => Some(Arc::new(CachePlan { policy, route: fingerprint(&format!("{:?}", route.value)) })),
        Err(mistakes) => {
            for (key, message) in mistakes {
                problems.push(place(&format!(".{key}")).problem(message));
            }
            None
        }
    }
}

/// The same for the same text.
fn fingerprint(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}
