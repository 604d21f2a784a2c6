//! The root of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{PingoraConfig, TestConfig};
use crate::{
    admin::AdminConfig,
    cache::store_config::StoreConfig,
    downstream::{ListenerConfig, h1::head::HeaderNames, limits::ClientLimits},
    routing::{readings::PathsConfig, route::RouteConfig},
    store::RedisConfig,
    telemetry::{LogConfig, access_log::config::AccessConfig},
    units::{Cidr, Span},
    upstream::settings::service::ServiceConfig,
    yaml::{Short, Spanned},
};

/// A whole configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tollgate configuration")]
pub struct Config {
    /// The engine: threads, sockets for upgrades, grace period. Names are Pingora's.
    pub pingora: PingoraConfig,
    /// Where clients connect: an address, or a mapping.
    pub listeners: Vec<Spanned<Short<ListenerConfig>>>,
    /// Health, statistics and metrics, on a listener of their own.
    pub admin: AdminConfig,
    /// One line per request.
    pub access_log: AccessConfig,
    /// Diagnostics.
    pub log: LogConfig,
    /// How the process leaves.
    pub shutdown: ShutdownConfig,
    /// Networks of load balancers whose `X-Forwarded-*` is believed. Default: none.
    pub trusted_proxies: Vec<Cidr>,
    /// What a client may ask for.
    pub limits: ClientLimits,
    /// Add this hop to the `Via` that backends see (RFC 9110 §7.6.3). Default true.
    pub via: Via,
    /// How names of header fields are handed on over HTTP/1, to backends and to clients.
    pub header_names: HeaderNames,
    /// How paths are read that backends may read differently.
    pub paths: PathsConfig,
    /// The room for answers that routes with a `cache` keep.
    pub cache: StoreConfig,
    /// The Redis in which gateways count limits together.
    pub redis: Option<RedisConfig>,
    /// API keys, as digests.
    pub api_keys: Vec<Spanned<ApiKeyConfig>>,
    /// Services by name.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Routes. The most specific one that matches is taken; the order breaks ties.
    pub routes: Vec<Spanned<RouteConfig>>,
    /// Requests with their expected outcome; run by `-t` and before every start.
    pub tests: Vec<Spanned<TestConfig>>,
}

/// `via:` in the YAML.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(transparent)]
pub struct Via(pub bool);

impl Default for Via {
    fn default() -> Self {
        Self(true)
    }
}

/// `shutdown:` in the YAML.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// After SIGTERM: how long to go on accepting while `/health/ready` says 503, so that load balancers notice.
    /// Default 1s.
    pub delay: Span,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { delay: Span(std::time::Duration::from_secs(1)) }
    }
}

/// One entry of `api_keys:`.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// A name for logs and for `allow:` lists; never the key.
    pub id: String,
    /// SHA-256 of the key, in hex; `tollgate hash-key` prints it.
    pub sha256: String,
    /// Whoever holds the key: limits by `api_key` count per owner. Default: the id.
    #[serde(default)]
    pub owner: Option<String>,
    /// What the key may do.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What its holder is to `acl` and to limits by `claim:tier`.
    #[serde(default)]
    pub tier: Option<String>,
    /// When it stops working: an RFC 3339 time.
    #[serde(default)]
    pub expires: Option<String>,
}
