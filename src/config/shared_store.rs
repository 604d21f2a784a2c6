//! `redis:`, to the store that gateways share. Nothing is asked of it.

use std::{env, sync::Arc};

use crate::{
    runtime::Shared,
    store::{NO_PASSWORD, REDIS_URL, RedisConfig, RedisSettings, RedisStore},
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
    let of_environment = config.and_then(of_environment);
    let config = of_environment.as_ref().or(config);
    let settings = config.map(|config| RedisSettings::new(config, readers));
    let settings = match settings {
        Some(Ok(settings)) => settings.by_environment(of_environment.is_some()),
        wrong => {
            // A password that stands there and is no secret has been told of already.
            let stands = config.is_some_and(|config| config.password.is_none())
                && node.get("password").is_some_and(|password| !password.is_null());
            let wrong = wrong.and_then(Result::err).into_iter().flatten();
            for (key, message) in wrong.filter(|(_, message)| !stands || message != NO_PASSWORD) {
                let Location { line, column, .. } = *node.at(&key).place();
                let path = match key.as_str() {
                    "" => "redis".to_owned(),
                    "url" if of_environment.is_some() => format!("redis ({REDIS_URL} of the environment)"),
                    key => format!("redis.{key}"),
                };
                problems.push(Problem { line, column, path, message });
            }
            // It is there all the same: limits that want one are not wrong.
            RedisSettings::nowhere()
        }
    };
    let kept = shared.redis.load_full().filter(|store| *store.settings() == settings);
    Some(kept.unwrap_or_else(|| RedisStore::new(settings, shared.metrics.store.clone())))
}

/// What the environment says where the store is, if the file wants one and does not say. A file without `redis` has none, whatever the
/// environment says: limits would mean something else because of a variable that may be another program's.
fn of_environment(config: &RedisConfig) -> Option<RedisConfig> {
    let said = config.url.is_some() || config.sentinel.is_some() || !config.cluster.is_empty();
    let url = env::var(REDIS_URL).ok().filter(|url| !said && !url.is_empty())?;
    Some(RedisConfig { url: Some(url), ..config.clone() })
}
