//! `Config` to `Runtime`: every validation that needs more than one value, every problem at once. Opens no socket,
//! resolves no name, needs nothing to be up.

use std::{collections::BTreeMap, sync::Arc};

use super::{Config, Plan, api_keys::api_keys, caching, filters, plan::plan, shared_store};
use crate::{
    auth::Keys,
    config::{listener_names::numbered, route_ids::ids},
    downstream::ListenerConfig,
    filter::{Env, Invalid, KeySetsDraft, Members, Registry},
    limit::TablesDraft,
    message::{forwarded::TrustedProxies, reserved::ReservedHeaders, target},
    routing::{
        action::{Action, Rewrite},
        destination::Forward,
        readings::PathsConfig,
        route::{Route, RouteConfig},
        router::{ListenerSet, Matcher, Router},
        shadow::Shadows,
    },
    runtime::{Runtime, Shared},
    store::RedisStore,
    units::{Problem, Problems, nearest},
    upstream::{ConcurrencyLimit, Service, Surroundings, outbound::OutboundSender},
    yaml::{Location, Node, Short, Spanned},
};

/// Builds everything. The result is only good for traffic when `problems` stays empty.
pub(super) fn build(
    config: Config,
    root: &Node,
    registry: &Registry,
    shared: &Shared,
    problems: &mut Problems,
) -> (Runtime, Plan) {
    let keys = Arc::new(api_keys(&config.api_keys, root, problems));
    let mut plan = plan(&config, root, problems);
    let readers: Arc<[u32]> = plan.pingora.readers().into();
    let services = services(&config, root, &readers, shared, problems);
    plan.pingora.size_pool(services.values().map(|service| service.pool.expected()).sum());
    let (listeners, paths, via) = (&config.listeners, config.paths, config.via.0);
    let tables = Arc::new(shared.tables.draft());
    let redis = shared_store::store(config.redis.as_ref(), &readers, root, shared, problems);
    let key_sets = Arc::new(shared.key_sets.draft());
    let outbound = Arc::new(shared.outbound());
    let builder = Builder {
        root,
        registry,
        shared,
        keys,
        tables: &tables,
        redis: redis.as_ref(),
        key_sets: &key_sets,
        outbound: outbound.clone(),
        members: Arc::new(registry.clone()),
        services: &services,
        listeners,
        paths,
        via,
        readers,
    };
    let router = builder.router(&config.routes, problems);
    let cache_queries = caching::queries(&router);
    let compresses = |route: &Route| route.cache.is_some() && route.chain.names().any(|name| name == "compression");
    let cache_codes = router.routes().any(|(_, route)| compresses(route));
    let reserved = ReservedHeaders::new(router.routes().flat_map(|(_, route)| route.chain.tells_backends()));
    let from = [&config.pingora.client_bind_to_ipv4, &config.pingora.client_bind_to_ipv6];
    let made_by = (&config.services, via, paths, config.header_names, &reserved, from);
    let cache_tier = caching::tier(&config.cache, (&made_by, &cache_queries), redis.as_ref(), shared, root, problems);
    let cache_settings = caching::settings(&(&made_by, &config.trusted_proxies, &config.pingora.ca_file));
    let sends = !cache_queries.is_empty() || outbound.is_wanted() || sends(&config);
    let runtime = Runtime {
        reserved,
        router,
        services,
        trusted: TrustedProxies(config.trusted_proxies),
        limits: config.limits,
        header_names: config.header_names,
        access: config.access_log,
        publish: config.admin.publish,
        sends,
        cache_queries,
        redis,
        cache_memory: caching::memory(&config.cache, root, problems),
        cache_codes,
        cache_settings,
        cache_tier,
        cache_disk: caching::disk(&config.cache, shared, root, problems),
        key_sets,
        tables,
    };
    (runtime, plan)
}

fn services(
    config: &Config,
    root: &Node,
    readers: &[u32],
    shared: &Shared,
    problems: &mut Problems,
) -> BTreeMap<Arc<str>, Arc<Service>> {
    let ca_file = config.pingora.ca_file.as_deref();
    let built = config.services.iter().map(|(name, service)| {
        let node = root.at("services").get(name).unwrap_or(root);
        let before = shared.service(name);
        let around = Surroundings { ca_file, readers, metrics: &shared.metrics.upstream, before: before.as_ref() };
        (Arc::from(name.as_str()), Service::build(name, service, node, around, problems))
    });
    built.collect()
}

/// Some route mirrors, or some service hedges.
fn sends(config: &Config) -> bool {
    let mirrors = config.routes.iter().any(|route| route.mirror.is_some());
    mirrors || config.services.values().any(|service| service.hedge.is_some())
}

/// Keys that would have no effect.
fn idle(config: &RouteConfig, wrong: &mut Invalid) {
    if config.forwards() {
        return;
    }
    for (key, set) in [
        ("canary", config.canary.is_some()),
        ("mirror", config.mirror.is_some()),
        ("retry", config.retry.is_some()),
        ("in_flight", config.in_flight.is_some()),
        ("cache", config.cache.is_some()),
        ("strip_prefix", config.strip_prefix.is_some()),
        ("rewrite", config.rewrite.is_some()),
        ("host", config.host.is_some()),
    ] {
        if set {
            wrong.push(key, "has no effect without 'service' or 'split'");
        }
    }
}

struct Builder<'a> {
    root: &'a Node,
    registry: &'a Registry,
    shared: &'a Shared,
    keys: Arc<Keys>,
    tables: &'a Arc<TablesDraft>,
    redis: Option<&'a Arc<RedisStore>>,
    key_sets: &'a Arc<KeySetsDraft>,
    outbound: Arc<OutboundSender>,
    members: Arc<dyn Members>,
    services: &'a BTreeMap<Arc<str>, Arc<Service>>,
    listeners: &'a [Spanned<Short<ListenerConfig>>],
    paths: PathsConfig,
    via: bool,
    /// Groups that may read files with secrets.
    readers: Arc<[u32]>,
}

impl Builder<'_> {
    fn router(&self, configs: &[Spanned<RouteConfig>], problems: &mut Problems) -> Router<Arc<Route>> {
        let mut routes: Vec<(Matcher, Route)> = Vec::new();
        let mut earlier = Shadows::default();
        let ids = ids(configs, self.root, problems);
        if configs.is_empty() && self.root.get("routes").is_none() {
            let message = "key 'routes' is missing: without a route every request is answered 404";
            problems.push(self.root.place().problem(message));
        }
        for (config, id) in configs.iter().zip(&ids) {
            let (matcher, route) = self.route(config, id, problems);
            if let Some(first) = earlier.of(&matcher) {
                let (first, place) = (&ids[first], &configs[first].place.path);
                let message = format!("never reached: {place} ('{first}') takes the same requests first");
                problems.push(config.place.problem(message));
            }
            earlier.add(matcher.clone());
            if let Some(route) = route {
                routes.push((matcher, route));
            }
        }
        Router::new(routes.into_iter().map(|(matcher, route)| (matcher, Arc::new(route))).collect())
    }

    fn route(&self, config: &Spanned<RouteConfig>, id: &Arc<str>, problems: &mut Problems) -> (Matcher, Option<Route>) {
        let mut wrong = Invalid::default();
        let mut matcher = config.matches.build(filters::need_preflight(&config.filters, self.registry), &mut wrong);
        matcher.listeners = self.listeners(config, &mut wrong);
        let action = self.action(config, id, &mut wrong);
        let rewrite =
            Rewrite::build(config.strip_prefix.as_deref(), config.rewrite.as_deref(), &matcher.paths, &mut wrong);
        idle(config, &mut wrong);
        let host = config.host.as_ref().and_then(|host| upstream_host(host, &mut wrong));
        for (path, message) in wrong.0 {
            let path =
                if path.is_empty() { config.place.path.clone() } else { format!("{}.{path}", config.place.path) };
            let Location { line, column, .. } = *self.root.at(&path).place();
            problems.push(Problem { line, column, path, message });
        }
        let limit_names = Arc::default();
        let env = |scope: String| Env {
            route: id.clone(),
            scope: format!("{id}/{scope}"),
            limit_names: Arc::clone(&limit_names),
            keys: self.keys.clone(),
            tables: self.tables.clone(),
            redis: self.redis.cloned(),
            key_sets: self.key_sets.clone(),
            nonces: self.shared.nonces.clone(),
            members: self.members.clone(),
            outbound: self.outbound.clone(),
            password_checks: self.shared.password_checks.clone(),
            readers: self.readers.clone(),
            metrics: self.shared.metrics.filters.clone(),
        };
        let chain = filters::chain(&config.filters, self.registry, &env, problems);
        let place = |key: &str| self.root.at(&format!("{}.{key}", config.place.path));
        if let Some(retry) = &config.retry {
            retry.validate(place("retry"), problems);
        }
        let concurrency = config.in_flight.as_ref().map(|limits| {
            if limits.max == 0 {
                problems.push(place("in_flight.max").place().problem("0 would refuse every request"));
            }
            ConcurrencyLimit::new(limits.max, limits.queue, limits.wait.0)
        });
        let cache = caching::plan(config, &chain, self.root, problems);
        let metrics = self.shared.metrics.requests.route(id, "");
        let retry = config.retry.clone();
        let encoded_slashes = config.paths.encoded_slashes.or(self.paths.encoded_slashes).unwrap_or_default();
        let route = action.map(|action| Route {
            id: id.clone(),
            chain,
            action,
            rewrite,
            host,
            retry,
            cache,
            concurrency,
            encoded_slashes,
            methods: matcher.methods.clone(),
            via: self.via,
            metrics,
        });
        (matcher, route)
    }

    fn listeners(&self, config: &Spanned<RouteConfig>, wrong: &mut Invalid) -> ListenerSet {
        if self.root.at(&config.place.path).get("listeners").is_none() {
            return ListenerSet::ANY;
        }
        if config.listeners.is_empty() {
            wrong.push("listeners", "a route that is there on no listener could never be taken");
        }
        let mut numbers = Vec::new();
        for name in &config.listeners {
            match numbered(self.listeners, name) {
                Ok(number) => numbers.push(number),
                Err(message) => wrong.push("listeners", message),
            }
        }
        ListenerSet::of(numbers)
    }

    fn action(&self, config: &RouteConfig, id: &str, wrong: &mut Invalid) -> Option<Action> {
        let split = !config.split.is_empty();
        let given = [config.service.is_some(), split, config.redirect.is_some(), config.respond.is_some()];
        match given.iter().filter(|set| **set).count() {
            1 => {}
            0 => {
                wrong.push("", "leads nowhere: give it a 'service', a 'redirect' or a 'respond'");
                return None;
            }
            _ => wrong
                .push("", "leads to several places: 'service', 'split', 'redirect' and 'respond' exclude each other"),
        }
        if let Some(redirect) = &config.redirect {
            return Action::redirect(redirect, &config.matches.path, wrong);
        }
        if let Some(respond) = &config.respond {
            return Action::respond(respond, wrong);
        }
        let known = |name: &str| self.service(name);
        Forward::build(config.forward_keys(), id, &known, &self.shared.metrics.requests, wrong).map(Action::Forward)
    }

    fn service(&self, name: &str) -> Result<Arc<Service>, Option<String>> {
        if let Some(service) = self.services.get(name) {
            return Ok(service.clone());
        }
        // A service that is there and wrong has been reported where it stands.
        if self.root.at("services").get(name).is_some() {
            return Err(None);
        }
        let near = nearest(name, self.services.keys().map(AsRef::as_ref));
        let hint = near.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
        Err(Some(format!("there is no service '{name}'{hint}")))
    }
}

/// `host` of a route, as backends get it.
fn upstream_host(host: &str, wrong: &mut Invalid) -> Option<http::HeaderValue> {
    let value = http::HeaderValue::try_from(host).ok().filter(|_| target::is_host(host.as_bytes()));
    if value.is_none() {
        wrong.push("host", format!("'{host}' is not a host: write it like api.example"));
    }
    value
}
