//! `cache:` of a route: its rules, checked. And that of the root: its room.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{
    cache::{query::QueryRule, shared::CachePlan, store_config::StoreConfig},
    filter::Chain,
    routing::{
        route::{Route, RouteConfig},
        router::Router,
    },
    units::Problems,
    yaml::{Node, Spanned},
};

/// The cache of a route that has one.
pub(super) fn plan(
    route: &Spanned<RouteConfig>,
    chain: &Chain,
    root: &Node,
    problems: &mut Problems,
) -> Option<Arc<CachePlan>> {
    let cache = route.cache.as_ref()?;
    let place = |key: &str| root.at(&format!("{}.cache.{key}", route.place.path)).place().clone();
    if chain.wants_response_body() {
        let message = "a step of this route looks at bodies of answers, and would not see those that are kept";
        let message = format!("{message}: leave 'cache' out");
        problems.push(root.at(&format!("{}.cache", route.place.path)).place().problem(message));
    }
    match cache.policy() {
        // Whatever is said of the route may change its answers.
        Ok(policy) => Some(Arc::new(CachePlan { policy, route: fingerprint(&format!("{:?}", route.value)) })),
        Err(mistakes) => {
            for (key, message) in mistakes {
                problems.push(place(key).problem(message));
            }
            None
        }
    }
}

/// Which parts of queries count for the caches of these routes, each rule once.
pub(super) fn queries(router: &Router<Arc<Route>>) -> Vec<QueryRule> {
    let mut rules: Vec<QueryRule> = Vec::new();
    for plan in router.routes().filter_map(|(_, route)| route.cache.as_ref()) {
        if !rules.contains(&plan.policy.query) {
            rules.push(plan.policy.query.clone());
        }
    }
    rules
}

/// The bytes of memory for kept answers.
pub(super) fn memory(config: StoreConfig, root: &Node, problems: &mut Problems) -> u64 {
    if let Some(message) = config.mistake() {
        problems.push(root.at("cache.memory").place().problem(message));
    }
    config.memory.0
}

/// The same for the same text.
fn fingerprint(text: &str) -> u64 {
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}
