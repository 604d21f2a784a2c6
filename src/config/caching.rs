//! `cache:` of a route: its rules, checked. And that of the root: its room.

use std::sync::Arc;

use crate::{
    cache::{query::QueryRule, shared::CachePlan, store_config::StoreConfig},
    filter::Chain,
    routing::{
        route::{Route, RouteConfig},
        router::Router,
    },
    runtime::{Shared, cache_disk::CacheDisk, cache_tier::CacheTier},
    store::RedisStore,
    units::{Problems, fingerprint},
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

/// The answers that gateways keep together in `redis`, if they do, made by services and settings of the whole file, which are in no key.
/// `rules` are those by which parts of queries count.
pub(super) fn tier(
    config: &StoreConfig,
    (made_by, rules): (&impl std::fmt::Debug, &[QueryRule]),
    redis: Option<&Arc<RedisStore>>,
    shared: &Shared,
    root: &Node,
    problems: &mut Problems,
) -> Option<Arc<CacheTier>> {
    let tier = config.redis?;
    for (key, message) in tier.mistakes() {
        problems.push(root.at(&format!("cache.redis.{key}")).place().problem(message));
    }
    let Some(redis) = redis else {
        let message = "there is no 'redis' at the top of the file, in which answers would be kept: add it (redis: { url: \"redis://host:6379\" })";
        problems.push(root.at("cache.redis").place().problem(message));
        return None;
    };
    let (realm, before) = (settings(made_by), shared.cache_tier.load_full());
    Some(CacheTier::build(redis.settings(), tier, realm, rules, &shared.metrics.cache_tier, before))
}

/// Differs where answers may be made in another way.
pub(super) fn settings(made_by: &impl std::fmt::Debug) -> u64 {
    fingerprint(&format!("{made_by:?}"))
}

/// The bytes of memory for kept answers.
pub(super) fn memory(config: &StoreConfig, root: &Node, problems: &mut Problems) -> u64 {
    if let Some(message) = config.mistake() {
        problems.push(root.at("cache.memory").place().problem(message));
    }
    config.memory.0
}

/// The files for what memory has no room for.
pub(super) fn disk(
    config: &StoreConfig,
    shared: &Shared,
    root: &Node,
    problems: &mut Problems,
) -> Option<Arc<CacheDisk>> {
    let disk = config.disk.as_ref()?;
    for (key, message) in disk.mistakes() {
        problems.push(root.at(&format!("cache.disk.{key}")).place().problem(message));
    }
    Some(CacheDisk::build(disk, &shared.metrics.cache_disk, shared.cache_disk.load_full()))
}
