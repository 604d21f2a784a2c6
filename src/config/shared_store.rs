//! `redis:`, to the store that gateways share. Nothing is asked of it.

use std::sync::Arc;

use crate::{
    runtime::Shared,
    store::{NO_PASSWORD, RedisConfig, RedisSettings, RedisStore},
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
            // A password that stands there and is no secret has been told of already.
            let stands = config.is_some_and(|config| config.password.is_none())
                && node.get("password").is_some_and(|password| !password.is_null());
            let wrong = wrong.and_then(Result::err).into_iter().flatten();
            for (key, message) in wrong.filter(|(_, message)| !stands || message != NO_PASSWORD) {
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
