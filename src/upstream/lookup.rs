//! What name servers are asked, and what they answer.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::url::{BackendScheme, BackendUrl};

/// A kind of DNS record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dns {
    /// Addresses (A, AAAA).
    #[default]
    A,
    /// Services (RFC 2782).
    Srv,
}

/// What is asked about a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Its addresses, or its services.
    pub(crate) kind: Dns,
    /// With a final dot when it is absolute, as those in records are: no search list is for them.
    pub(crate) name: String,
}

impl Question {
    pub(super) fn addresses(target: &Target) -> Self {
        Self { kind: Dns::A, name: target.host.clone() }
    }
}

/// What is known of a name, and until when that holds.
pub(crate) struct Lookup {
    pub(crate) answer: Answer,
    pub(crate) until: Option<Instant>,
    /// Parts of the answer that are of no use, and why.
    pub(crate) useless: Vec<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    Services(Vec<Target>),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Addresses(Vec::new())
    }
}

/// A backend that an SRV record names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// With a final dot: names in records are absolute.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) weight: usize,
}

impl Target {
    /// The name without the final dot.
    pub(super) fn shown(&self) -> &str {
        self.host.trim_end_matches('.')
    }

    /// The address, when the host is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.shown().parse().ok()
    }

    /// True when both are the same backend; how much goes there is another question.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }

    pub(crate) fn url(&self, scheme: BackendScheme) -> BackendUrl {
        BackendUrl { scheme, host: self.shown().to_owned(), port: self.port, weight: self.weight }
    }
}
