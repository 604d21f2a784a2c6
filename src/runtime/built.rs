//! A configuration that has been built.

use std::{collections::BTreeMap, sync::Arc};

use super::{cache_disk::CacheDisk, cache_tier::CacheTier};
use crate::{
    cache::query::QueryRule,
    downstream::{h1::head::HeaderNames, limits::ClientLimits},
    filter::KeySetsDraft,
    limit::TablesDraft,
    message::{forwarded::TrustedProxies, reserved::ReservedHeaders},
    routing::{route::Route, router::Router},
    store::RedisStore,
    telemetry::access_log::config::AccessConfig,
    upstream::Service,
};

/// One configuration, ready for traffic. It has touched nothing that is alive, and may be dropped instead of being
/// committed ([`Live::commit`](super::Live::commit)).
#[derive(Debug)]
pub struct Runtime {
    /// Its routes, ready to be matched.
    pub router: Router<Arc<Route>>,
    /// Fields that no client may send.
    pub reserved: ReservedHeaders,
    /// Services by name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Proxies whose word is taken about the client.
    pub trusted: TrustedProxies,
    /// The limits on what a client may ask for.
    pub limits: ClientLimits,
    /// How names of fields are handed on.
    pub header_names: HeaderNames,
    /// Settings of the access log.
    pub access: AccessConfig,
    /// Serve `/gateway/*` on ordinary listeners too.
    pub publish: bool,
    /// Some route mirrors, some service hedges, or some filter asks another service: the gateway sends requests by itself.
    pub sends: bool,
    /// Which parts of queries count for the caches of routes, each rule once; empty when no route has one.
    pub cache_queries: Vec<QueryRule>,
    /// Bytes of memory for the answers that it keeps.
    pub cache_memory: u64,
    /// Some of it is compressed.
    pub cache_codes: bool,
    /// Differs between configurations whose services may answer in another way.
    pub cache_settings: u64,
    /// The answers that gateways keep together, if they do.
    pub cache_tier: Option<Arc<CacheTier>>,
    /// Files for answers that memory has no room for.
    pub cache_disk: Option<Arc<CacheDisk>>,
    /// The store that gateways share, if there is one.
    pub redis: Option<Arc<RedisStore>>,
    /// The key sets of its filters.
    pub key_sets: Arc<KeySetsDraft>,
    /// The tables of its rate limits.
    pub tables: Arc<TablesDraft>,
}
