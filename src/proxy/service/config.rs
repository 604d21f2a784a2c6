//! `services:` in the YAML.

use std::{fmt, net::IpAddr, str::FromStr};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::units::{Span, tree::At};

/// One service: the backends that can answer for it, and how they are used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Backends: `http://host:port`, `https://host:port`, or `{ url: ..., weight: 3 }`.
    pub urls: Vec<At<BackendUrl>>,
    /// How a backend is chosen. Default `round_robin`.
    #[serde(default)]
    pub balance: Balance,
    /// Active health checks. Without them every backend counts as healthy.
    #[serde(default)]
    pub health_check: Option<HealthCheckConfig>,
    /// When no backend is healthy: answer 503 (`fail`, the default), or try one all the same (`any`).
    #[serde(default)]
    pub when_all_unhealthy: AllUnhealthy,
    /// Further backends to try when one cannot be reached; nothing of the request has left by then. Default 2.
    #[serde(default = "default_connect_retries")]
    pub connect_retries: u32,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Readiness (`/health/ready`) needs a healthy backend of this service. Default false.
    #[serde(default)]
    pub required: bool,
    /// For `https` backends.
    #[serde(default)]
    pub tls: UpstreamTls,
}

fn default_connect_retries() -> u32 {
    2
}

/// Time limits towards backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the connection (with TLS, if any) stands. Default 3s; then 504.
    pub connect: Span,
    /// Between two reads from the backend. Default 60s; then 504.
    pub read: Span,
    /// For one write to the backend. Default 60s; then 504.
    pub write: Span,
    /// An unused connection is kept this long. Default 55s, just below what common backends keep it for.
    pub idle: Span,
    /// From the request's head to the end of the answer, over all attempts. Default: no limit.
    pub total: Option<Span>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |n| Span(std::time::Duration::from_secs(n));
        Self { connect: seconds(3), read: seconds(60), write: seconds(60), idle: seconds(55), total: None }
    }
}

/// TLS towards backends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Check the backend's certificate and its name. Default true.
    pub verify: bool,
    /// The name to ask for and to check. Default: the URL's host.
    pub server_name: Option<String>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, server_name: None }
    }
}

/// What to do without a healthy backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllUnhealthy {
    /// 503 with `Retry-After`.
    #[default]
    Fail,
    /// Use one as if it were healthy.
    Any,
}

/// How a backend is chosen among the healthy ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in turn, by weight.
    #[default]
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The one with the fewest requests under way, relative to its weight.
    LeastConnections,
    /// The same one for the same key (ketama): `consistent_hash: client_ip | header:NAME | cookie:NAME | path`.
    ConsistentHash(HashBy),
}

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

/// Active health checks of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheckConfig {
    /// Ask for this path over HTTP. Without it, a TCP (or TLS) connection is proof enough.
    pub path: Option<String>,
    /// Time between two checks of a backend. Default 5s.
    pub every: Span,
    /// Time for one check. Default 1s.
    pub timeout: Span,
    /// Statuses that count as healthy. Default `[200]`.
    pub expect: Vec<u16>,
    /// Checks in a row that must succeed before a backend is used again. Default 1.
    pub healthy_after: usize,
    /// Checks in a row that must fail before a backend is used no more. Default 3.
    pub unhealthy_after: usize,
    /// The `Host` of the check. Default: the URL's host.
    pub host: Option<String>,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        let seconds = |n| Span(std::time::Duration::from_secs(n));
        Self {
            path: None,
            every: seconds(5),
            timeout: seconds(1),
            expect: vec![200],
            healthy_after: 1,
            unhealthy_after: 3,
            host: None,
        }
    }
}

/// A backend's URL and weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl {
    /// `https`.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Share of traffic relative to the others, 1 to 1000.
    pub weight: usize,
}

impl BackendUrl {
    /// `host:port`, as in URLs.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address, when the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("'{text}' is not a backend: {why}; write it like http://127.0.0.1:8081");
        let uri: http::Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(wrong("the scheme is neither http nor https")),
            None => return Err(wrong("the scheme is missing")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("credentials do not belong into it"));
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("it has a path (a route's 'rewrite' changes paths)"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| wrong("the port is not a number"))?,
            // The port does not fit a port's range, and `http` gives none then.
            None if authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                return Err(wrong("the port is not a number from 1 to 65535"));
            }
            None if tls => 443,
            None => 80,
        };
        if port == 0 {
            return Err(wrong("port 0 is nobody's"));
        }
        Ok(Self { tls, host, port, weight: 1 })
    }
}

impl<'de> Deserialize<'de> for BackendUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Weighted {
            url: String,
            weight: usize,
        }

        impl<'de> Visitor<'de> for Either {
            type Value = BackendUrl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL or { url, weight }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendUrl, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendUrl, A::Error> {
                let Weighted { url, weight } = Weighted::deserialize(MapAccessDeserializer::new(map))?;
                if !(1..=1000).contains(&weight) {
                    return Err(de::Error::custom(format!("{weight} is not a weight from 1 to 1000")));
                }
                let url: BackendUrl = url.parse().map_err(de::Error::custom)?;
                Ok(BackendUrl { weight, ..url })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for BackendUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BackendUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let url = json_schema!({ "type": "string", "pattern": "^https?://[^/]+/?$" });
        json_schema!({ "anyOf": [url, {
            "type": "object", "additionalProperties": false, "required": ["url", "weight"],
            "properties": { "url": url, "weight": { "type": "integer", "minimum": 1, "maximum": 1000 } }
        }] })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn reads_urls() {
        let url: BackendUrl = "http://127.0.0.1:8081".parse().unwrap();
        assert_eq!((url.tls, url.authority().as_str(), url.address().is_some()), (false, "127.0.0.1:8081", true));
        assert_eq!("https://api.example/".parse::<BackendUrl>().unwrap().port, 443);
        assert_eq!("http://[::1]:80".parse::<BackendUrl>().unwrap().authority(), "[::1]:80");
        for wrong in
            ["127.0.0.1:80", "ftp://x", "http://", "http://x/api", "http://u:p@x", "http://x:0", "http://x:99999"]
        {
            assert!(wrong.parse::<BackendUrl>().is_err(), "{wrong}");
        }
    }
}
