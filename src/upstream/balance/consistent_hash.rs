//! `consistent_hash`: the same backend for the same key. The ring is ketama's, Pingora's own.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use http::HeaderName;
use pingora_load_balancing::{Backends, LoadBalancer, selection::Consistent};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{
    Accept, Balancer,
    pingora::{Bookkeeping, select},
};
use crate::{
    message::fields,
    upstream::{backend::Backend, backend_list::BackendList, choice::Choice},
};

/// So many candidates ketama looks at before giving up; it may need several steps per backend.
const STEPS: usize = 256;

/// What `consistent_hash` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    ClientIp,
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The path.
    Path,
}

impl FromStr for HashBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client_ip" => Ok(Self::ClientIp),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("'{name}' is not a header name"))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("unknown value '{text}' (known: client_ip, path, header:NAME, cookie:NAME)")),
        }
    }
}

impl<'de> Deserialize<'de> for HashBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for HashBy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HashBy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(client_ip|path|header:.+|cookie:.+)$" })
    }
}

pub(crate) struct ConsistentHash {
    ring: LoadBalancer<Consistent>,
    by: HashBy,
}

impl ConsistentHash {
    pub(super) fn new(backends: Backends, by: HashBy) -> Self {
        Self { ring: LoadBalancer::from_backends(backends), by }
    }
}

impl Balancer for ConsistentHash {
    fn books(&self) -> Option<&dyn Bookkeeping> {
        Some(&self.ring)
    }

    fn choose(&self, all: &BackendList, choice: &Choice<'_>, accept: &Accept<'_>) -> Option<Arc<Backend>> {
        with_key(&self.by, choice, |key| {
            select(&self.ring, key, STEPS, all, accept).or_else(|| by_key(all, accept, key))
        })
    }
}

/// The backend that a key falls to when the ring has shown none in so many steps, because a heavy backend that is away
/// holds most of it: by rendezvous hashing, so that it is the same one for the same key in every process.
fn by_key(all: &BackendList, accept: &Accept<'_>, key: &[u8]) -> Option<Arc<Backend>> {
    let score = |backend: &Backend| {
        let mut hasher = DefaultHasher::new();
        (key, backend.address).hash(&mut hasher);
        // A number between 0 and 1, never 0 itself; divided by it, the weight gives each backend its share of the keys.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are plenty")]
        let drawn = ((hasher.finish() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        #[expect(clippy::cast_precision_loss, reason = "a weight is at most 1000")]
        let weight = backend.weight as f64;
        -drawn.ln() / weight
    };
    let usable = all.iter().filter(|backend| accept(backend));
    usable.min_by(|one, other| score(one).total_cmp(&score(other))).cloned()
}

/// Calls `with` with what `by` looks at; a request that lacks it hashes as empty.
fn with_key<R>(by: &HashBy, choice: &Choice<'_>, with: impl FnOnce(&[u8]) -> R) -> R {
    match by {
        HashBy::ClientIp => match choice.client {
            IpAddr::V4(address) => with(&address.octets()),
            IpAddr::V6(address) => with(&address.octets()),
        },
        HashBy::Header(name) => with(choice.headers.get(name).map_or(b"", |value| value.as_bytes())),
        HashBy::Cookie(name) => with(fields::cookie(choice.headers, name).unwrap_or_default()),
        HashBy::Path => with(choice.path.as_bytes()),
    }
}
