//! A route: what it matches, what its chain does, where it leads.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{
    action::{Action, RedirectConfig, RespondConfig, Rewrite},
    destination::{CanaryConfig, Forward, ForwardKeys, MirrorConfig, SplitConfig},
    pattern::PathPattern,
    readings::{EncodedSlashes, PathsConfig},
    router::Matcher,
};
use crate::{
    cache::{config::CacheConfig, shared::CachePlan},
    filter::{Chain, Invalid},
    upstream::{
        ConcurrencyLimit,
        settings::resilience::{GateConfig, RetryConfig},
    },
    yaml::{Node, Short, Spanned},
};

/// One entry of `routes:`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// A name for logs, metrics and `tests:`. Default: made of host, path and methods.
    #[serde(default)]
    pub id: Option<String>,
    /// Which requests take this route.
    #[serde(rename = "match")]
    pub matches: Matches,
    /// Listeners that it is there on, by name; one or several. Elsewhere the next route that matches is taken. Default: all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Forward to this service.
    #[serde(default)]
    pub service: Option<String>,
    /// Forward to several services, by weight.
    #[serde(default)]
    pub split: Vec<SplitConfig>,
    /// Forward some requests to another service.
    #[serde(default)]
    pub canary: Option<CanaryConfig>,
    /// Send copies of requests to another service.
    #[serde(default)]
    pub mirror: Option<MirrorConfig>,
    /// What is tried again, instead of what the service says.
    #[serde(default)]
    pub retry: Option<RetryConfig>,
    /// How much may be under way on this route. Default: no limit.
    #[serde(default)]
    pub in_flight: Option<GateConfig>,
    /// Keep answers, and give them to others, as RFC 9111 says. `{}`: for as long as the backend says. A duration alone is
    /// its `ttl`.
    #[serde(default, deserialize_with = "written")]
    #[schemars(with = "Short<CacheConfig>")]
    pub cache: Option<Short<CacheConfig>>,
    /// Send the client elsewhere: the new location, or a mapping.
    #[serde(default)]
    pub redirect: Option<Short<RedirectConfig>>,
    /// Answer without a backend.
    #[serde(default)]
    pub respond: Option<RespondConfig>,
    /// How paths with encoded slashes are taken. Default: as `paths:` at the root says.
    #[serde(default)]
    pub paths: PathsConfig,
    /// Take this prefix off the path before the backend sees it.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// Replace the path; `{name}` and `{rest}` come from the path pattern.
    #[serde(default)]
    pub rewrite: Option<String>,
    /// The `Host` that the backend sees. Default: the client's.
    #[serde(default)]
    pub host: Option<String>,
    /// Steps, in this order: a name, or `name: settings`, and `on_fault: refuse | pass` beside it.
    #[serde(default)]
    #[schemars(schema_with = "filters_schema")]
    pub filters: Vec<Spanned<Node>>,
}

/// A setting of which all has a default: who writes its name alone has forgotten the `{}`.
fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn filters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "array", "items": { "$ref": "#/$defs/Filter" } })
}

/// `match:` of a route. Everything given must hold.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// `api.example`, or `*.example` for every host below it; one or several. Default: any.
    #[serde(default)]
    pub host: Vec<String>,
    /// `/users`, `/users/*`, `/users/{id}`; one or several.
    pub path: Vec<PathPattern>,
    /// Methods; one or several. GET takes HEAD along. Default: any.
    #[serde(default)]
    pub method: Vec<String>,
    /// Headers that must be there; with a value, that must be equal to it.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<String>>,
}

/// A route, ready for traffic.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub id: Arc<str>,
    /// Its steps.
    pub chain: Chain,
    /// Where it leads.
    pub action: Action,
    /// How the path changes.
    pub rewrite: Option<Rewrite>,
    /// The `Host` that the backend sees.
    pub host: Option<HeaderValue>,
    /// What is tried again, when the route says so.
    pub retry: Option<RetryConfig>,
    /// Its cache.
    pub cache: Option<Arc<CachePlan>>,
    /// A limit on what is under way.
    pub concurrency: Option<Arc<ConcurrencyLimit>>,
    /// What becomes of paths with encoded slashes.
    pub encoded_slashes: EncodedSlashes,
    /// The methods that it is for; empty: any.
    pub methods: Vec<Method>,
    /// Backends are told of this hop.
    pub via: bool,
    /// Its counters, for requests that go to no service.
    pub metrics: super::metrics::RouteMetrics,
}

impl Route {
    /// It asks no backend.
    pub fn answers(&self) -> bool {
        !matches!(self.action, Action::Forward(_))
    }

    /// Where it leads, when that is a service.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(..) | Action::Respond(_) => None,
        }
    }
}

impl RouteConfig {
    /// True when it leads to a service.
    pub fn forwards(&self) -> bool {
        self.service.is_some() || !self.split.is_empty()
    }

    /// The keys that say where.
    pub fn forward_keys(&self) -> ForwardKeys<'_> {
        ForwardKeys {
            service: self.service.as_deref(),
            split: &self.split,
            canary: self.canary.as_ref(),
            mirror: self.mirror.as_ref(),
        }
    }
}

impl Matches {
    /// What the router compares with; mistakes go to `wrong`, with paths below the route.
    pub fn build(&self, preflight: bool, wrong: &mut Invalid) -> Matcher {
        if self.path.is_empty() {
            wrong.push("match.path", "a route needs at least one path");
        }
        let mut matcher = Matcher { paths: self.path.clone(), preflight, ..Matcher::default() };
        for host in &self.host {
            match host_pattern(host) {
                Ok(host) => matcher.hosts.push(host),
                Err(message) => wrong.push("match.host", message),
            }
        }
        for method in &self.method {
            match Method::from_bytes(method.as_bytes()) {
                Ok(parsed) if *method == method.to_ascii_uppercase() => matcher.methods.push(parsed),
                // Methods are case-sensitive (RFC 9110 §9.1): `get` would never match a browser's GET.
                Ok(_) => wrong.push(
                    "match.method",
                    format!("did you mean '{}'? methods are upper-case", method.to_ascii_uppercase()),
                ),
                Err(_) => wrong.push("match.method", format!("'{method}' is not a method")),
            }
        }
        for (name, value) in &self.headers {
            let value = value.as_deref().map(HeaderValue::try_from).transpose();
            match (name.parse::<HeaderName>(), value) {
                (Ok(name), Ok(value)) => matcher.headers.push((name, value)),
                _ => {
                    wrong
                        .push(format!("match.headers.{name}"), "not a header name with a value that headers can carry");
                }
            }
        }
        matcher
    }

    /// A name for a route that was not given one.
    pub fn name(&self) -> String {
        let mut words: Vec<String> = self.method.clone();
        let host = self.host.first().map_or("", String::as_str);
        let path = self.path.first().map_or("", PathPattern::as_str);
        words.push(format!("{host}{path}"));
        words.extend(self.headers.keys().cloned());
        words.join(" ")
    }
}

fn host_pattern(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let good = bracketed || !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if good {
        Ok(text.to_ascii_lowercase())
    } else if name.contains(':') {
        Err(format!("'{text}': a host is matched without its port"))
    } else {
        Err(format!("'{text}' is not a host: write it like api.example or \"*.example\""))
    }
}
