//! `listeners:` in the YAML: an address and how clients speak there.

use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use crate::{
    tls::server::{TlsConfig, TlsFront},
    yaml::FromShort,
};

/// One entry of `listeners:`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// A name, for `listeners:` of routes and `listener:` of tests.
    #[serde(default)]
    pub name: Option<String>,
    /// `127.0.0.1:8080`, `0.0.0.0:80`, `[::]:80`. `[::]` takes IPv4 as well, unless another listener has the port there.
    /// `:80` is `0.0.0.0:80`, and `localhost:8080` is `127.0.0.1:8080`.
    #[serde(deserialize_with = "address")]
    pub address: String,
    /// Speak TLS.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Without TLS: take HTTP/2 too, from clients that begin with it (RFC 9113 §3.3). Default false.
    #[serde(default)]
    pub h2c: bool,
    /// Connections from `trusted_proxies` begin with the PROXY protocol, version 1 or 2. Default false.
    #[serde(default)]
    pub proxy_protocol: bool,
}

impl FromShort for ListenerConfig {
    const EXPECTED: &'static str = "an address like 127.0.0.1:8080, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { name: None, address: long(text), tls: None, h2c: false, proxy_protocol: false })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }
}

/// Reads an address to listen on.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| long(&text))
}

/// Names no resolver is asked for: a configuration means the same on every machine, and needs nothing to be up.
fn long(text: &str) -> String {
    match text.rsplit_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => text.to_owned(),
    }
}

/// One address to listen on, ready for connections.
#[derive(Debug, Clone)]
pub struct Listener {
    /// As in the YAML.
    pub address: String,
    /// Its name in the YAML, else its address.
    pub name: Arc<str>,
    /// TLS.
    pub tls: Option<TlsFront>,
    /// HTTP/2 without TLS.
    pub h2c: bool,
    /// The PROXY protocol.
    pub proxy_protocol: bool,
}

impl Listener {
    /// HTTP/1 without TLS.
    pub fn plain(address: &str) -> Self {
        Self { address: address.to_owned(), name: address.into(), tls: None, h2c: false, proxy_protocol: false }
    }
}
