//! What is said of a shared limit.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::limit::Quota;

/// Where a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// In this process: each gateway has a limit of its own.
    Local,
    /// In Redis, with a call for every request.
    Strict,
    /// In Redis, with tokens taken ahead: most requests make no call.
    Lease,
}

/// What a shared limit does while Redis does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreDown {
    /// Each gateway lets its share of the limit pass: the limit divided by the gateways seen lately.
    #[default]
    LocalShare,
    /// Everything passes.
    Allow,
    /// Nothing passes: 503.
    Deny,
}

impl OnStoreDown {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::LocalShare => "local_share",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What is said of several shared limits at once.
#[derive(Debug, Clone)]
pub struct SharedSettings {
    /// While the store does not answer.
    pub on_store_down: OnStoreDown,
    /// Their name: the same on every gateway.
    pub scope: String,
    /// How many clients to remember here.
    pub capacity: usize,
    /// How many bits of an IPv6 address make one client.
    pub ipv6_prefix: u8,
}

/// What a shared limit is made of.
#[derive(Debug, Clone)]
pub struct SharedLimits {
    /// How much is allowed, over all gateways.
    pub quota: Quota,
    /// By a call for every request, instead of tokens taken ahead.
    pub strict: bool,
    /// While the store does not answer.
    pub on_store_down: OnStoreDown,
    /// The limit's name: the same on every gateway.
    pub scope: String,
    /// How many clients to remember here.
    pub capacity: usize,
    /// How many bits of an IPv6 address make one client.
    pub ipv6_prefix: u8,
}
