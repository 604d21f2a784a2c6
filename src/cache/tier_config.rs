//! `cache.redis:`, the answers that gateways keep together.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{Size, Span};

/// `cache.redis:`: answers that are kept for all clients are kept in the Redis of `redis:` too, for all gateways with the same
/// `services`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheRedisConfig")]
pub struct TierConfig {
    /// The longest that a request waits for it, before it asks a backend. Default 50ms, at most 5s.
    pub timeout: Span,
    /// Answers with a larger body stay in memory. Default 1MiB.
    pub max_object: Size,
    /// No answer is kept there for longer. Default 1d.
    pub ttl: Span,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            timeout: Span(Duration::from_millis(50)),
            max_object: Size(1 << 20),
            ttl: Span(Duration::from_secs(24 * 3600)),
        }
    }
}

impl TierConfig {
    /// What is wrong with it: key and message.
    pub fn mistakes(self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if self.timeout.0 < Duration::from_millis(1) || self.timeout.0 > Duration::from_secs(5) {
            mistakes.push(("timeout", format!("{} is not from 1ms to 5s", self.timeout)));
        }
        if self.max_object.0 == 0 {
            mistakes.push(("max_object", "0 would keep nothing: leave 'redis' out of 'cache' for that".to_owned()));
        }
        if self.ttl.0 < Duration::from_secs(1) || self.ttl.0 > Duration::from_secs(30 * 24 * 3600) {
            mistakes.push(("ttl", format!("{} is not from 1s to 30d", self.ttl)));
        }
        mistakes
    }
}
