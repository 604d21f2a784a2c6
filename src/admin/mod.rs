//! The admin listener. Health, statistics and metrics, on loopback unless told otherwise.
//!
//! Routing is axum's; the listener is Pingora's, so that an upgrade hands its socket over like any other. A group of
//! pages is one file with a function `router()`; `router.rs` puts them together.

mod answer;
mod app;
mod cache;
mod index;
mod jwks;
mod metrics;
mod router;
mod stats;
mod status;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::downstream::address;

pub use self::{app::AdminApp, router::published};

/// `admin:` in the YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Have an admin listener. Default true.
    pub enabled: bool,
    /// Where it listens. Default `127.0.0.1:9090`.
    #[serde(deserialize_with = "address")]
    pub address: String,
    /// Allow an address that others can reach. Default false.
    pub allow_remote: bool,
    /// Serve `/gateway/health`, `/gateway/stats` and `/gateway/metrics` on the ordinary listeners too. Default false.
    pub publish: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { enabled: true, address: "127.0.0.1:9090".into(), allow_remote: false, publish: false }
    }
}
