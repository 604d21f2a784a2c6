//! `redis:` in the YAML.

use std::{fmt, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{FileRef, SecretRef, Span};

/// `redis:` in the YAML.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// One server: `redis://host:6379/0`, `rediss://…` with TLS, `unix:///run/redis.sock`. There must be one of `url`,
    /// `sentinel` and `cluster`, or `REDIS_URL` in the environment, which is a `url`.
    pub url: Option<String>,
    /// The primary that Sentinels name.
    pub sentinel: Option<SentinelConfig>,
    /// Some nodes of a cluster, as `host:port`.
    pub cluster: Vec<String>,
    /// Speak TLS.
    pub tls: Option<RedisTls>,
    /// The user (Redis 6 ACL), who has a password. Default: the URL's, else Redis' default user.
    pub username: Option<String>,
    /// Its password. Default: the URL's.
    pub password: Option<SecretRef>,
    /// How long a request waits for an answer. Default 20ms.
    pub timeout: Span,
}

/// `redis.sentinel` in the YAML.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentinelConfig {
    /// The Sentinels, as `host:port`.
    pub addresses: Vec<String>,
    /// The name of what they watch.
    pub name: String,
}

/// `redis.tls` in the YAML.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTls {
    /// Certificates of the authorities to trust, as a PEM file. Default: the system's.
    pub ca: Option<FileRef>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            sentinel: None,
            cluster: Vec::new(),
            tls: None,
            username: None,
            password: None,
            timeout: Span(Duration::from_millis(20)),
        }
    }
}

// A URL may hold a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
