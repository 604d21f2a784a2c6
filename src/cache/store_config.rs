//! `cache:` at the root: how much room the answers of all routes have together.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{disk_config::DiskConfig, shared::USUAL_BUDGET, tier_config::TierConfig};
use crate::units::Size;

/// With less, hardly any answer would fit in.
const LEAST: u64 = 1 << 20;

/// `cache:` at the root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// The memory that kept answers may take, with their keys, header fields and places in the index; at least 1MiB.
    /// Default 64MiB.
    pub memory: Size,
    /// Answers that are kept for all clients are kept in the Redis of `redis:` too, for all gateways with the same `services`.
    /// Default: they are not.
    pub redis: Option<TierConfig>,
    /// Answers that memory has no room for are kept in files. Default: they are not.
    pub disk: Option<DiskConfig>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { memory: Size(USUAL_BUDGET), redis: None, disk: None }
    }
}

impl StoreConfig {
    /// What is wrong with `memory`.
    pub fn mistake(&self) -> Option<String> {
        match self.memory.0 {
            0 => Some(
                "0 would keep nothing: leave 'cache' out of the routes for that, or give it 1MiB or more".to_owned(),
            ),
            bytes if bytes < LEAST => {
                Some(format!("{bytes} bytes would keep hardly anything: give it 1MiB or more (default 64MiB)"))
            }
            _ => None,
        }
    }
}
