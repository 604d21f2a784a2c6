//! `redis:`, to the store that gateways share. Nothing is asked of it.

use std::sync::Arc;

use crate::{
    runtime::Shared,
    store::{RedisConfig, RedisSettings, RedisStore},
    units::{Problem, Problems},
    yaml::{Location, Node},
};

/// The store of a configuration that has one: the one that serves, when that is meant still.
pub(super) fn store(
    config: Option<&RedisConfig>,
    readers: &[u32],
    root: &Node,
    shared: &Shared,
    problems: &mut Problems,
) -> Option<Arc<RedisStore>> {
    let node = root.get("redis").filter(|node| !node.is_null())?;
    let settings = config.map(|config| RedisSettings::new(config, readers));
    let settings = match settings {
        Some(Ok(settings)) => settings,
        wrong => {
            for (key, message) in wrong.and_then(Result::err).into_iter().flatten() {
                let Location { line, column, .. } = *node.at(&key).place();
                let path = if key.is_empty() { "redis".to_owned() } else { format!("redis.{key}") };
                problems.push(Problem { line, column, path, message });
            }
            // It is there all the same: limits that want one are not wrong.
            RedisSettings::nowhere()
        }
    };
    let kept = shared.redis.load_full().filter(|store| *store.settings() == settings);
    Some(kept.unwrap_or_else(|| RedisStore::new(settings, shared.metrics.store.clone())))
}
