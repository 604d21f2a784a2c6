//! Which service a forwarded request goes to: the route's own, one of several by weight, or the canary.

use std::sync::{Arc, atomic::AtomicUsize};

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    filter::Invalid,
    units::{Share, Size},
    upstream::Service,
};

/// One entry of `split:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// A service.
    pub service: String,
    /// Its part of the requests, relative to the others. 0 is none.
    pub weight: u32,
}

/// `canary:` of a route: requests that try another service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryConfig {
    /// The other service.
    pub service: String,
    /// Requests with this header go there.
    #[serde(default)]
    pub header: Option<String>,
    /// Only when the header has this value.
    #[serde(default)]
    pub value: Option<String>,
    /// This share of the others goes there too. Default 0%.
    #[serde(default = "nothing")]
    pub share: Share,
}

fn nothing() -> Share {
    Share(0.0)
}

/// `mirror:` of a route: copies of requests go to another service, whose answers are thrown away. Nobody waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The other service.
    pub service: String,
    /// The share of requests that is copied. Default 100%.
    #[serde(default = "everything")]
    pub share: Share,
    /// Requests with more body than this are not copied. Default 64KiB.
    #[serde(default = "max_body")]
    pub max_body: Size,
}

fn everything() -> Share {
    Share(1.0)
}

fn max_body() -> Size {
    Size(64 << 10)
}

/// A service as the end of a route, with counters for the two.
#[derive(Debug)]
pub struct Destination {
    /// The service.
    pub service: Arc<Service>,
    /// Counters.
    pub metrics: super::metrics::RouteMetrics,
}

/// Where a route leads.
#[derive(Debug)]
pub struct Forward {
    /// With the sum of weights up to and including it.
    targets: Vec<(Arc<Destination>, u32)>,
    canary: Option<Canary>,
    /// Copies.
    pub mirror: Option<Mirror>,
}

#[derive(Debug)]
struct Canary {
    target: Arc<Destination>,
    header: Option<(HeaderName, Option<HeaderValue>)>,
    share: f64,
}

/// Where copies go.
#[derive(Debug)]
pub struct Mirror {
    /// The service.
    pub service: Arc<Service>,
    /// The share of requests.
    pub share: f64,
    /// The most body.
    pub max_body: usize,
    /// Copies that have not been answered yet.
    pub under_way: Arc<AtomicUsize>,
}

/// Services by name; without one, what to say, unless that has been said elsewhere.
pub(crate) type Known<'a> = dyn Fn(&str) -> Result<Arc<Service>, Option<String>> + 'a;

/// The keys of a route that say where it leads.
#[derive(Debug, Clone, Copy)]
pub struct ForwardKeys<'a> {
    /// `service:`.
    pub service: Option<&'a str>,
    /// `split:`.
    pub split: &'a [SplitConfig],
    /// `canary:`.
    pub canary: Option<&'a CanaryConfig>,
    /// `mirror:`.
    pub mirror: Option<&'a MirrorConfig>,
}

impl Forward {
    /// Builds it for the route `id`; mistakes go to `wrong`. `known` answers a service by its name, or what to say when
    /// there is none.
    pub fn build(
        keys: ForwardKeys<'_>,
        id: &str,
        known: &Known<'_>,
        metrics: &super::metrics::RequestMetrics,
        wrong: &mut Invalid,
    ) -> Option<Self> {
        let mut find = |key: String, name: &str| match known(name) {
            Ok(service) => Some(service),
            Err(message) => {
                if let Some(message) = message {
                    wrong.push(key, message);
                }
                None
            }
        };
        let target = |service: Arc<Service>| {
            let metrics = metrics.route(id, &service.name);
            Arc::new(Destination { service, metrics })
        };
        let mut targets = Vec::new();
        if let Some(name) = keys.service {
            targets.push((target(find("service".into(), name)?), 1));
        }
        let mut sum = 0u32;
        for (i, part) in keys.split.iter().enumerate() {
            let service = find(format!("split[{i}].service"), &part.service)?;
            sum = sum.saturating_add(part.weight);
            targets.push((target(service), sum));
        }
        let canary_service = keys.canary.map(|canary| find("canary.service".into(), &canary.service));
        let mirror_service = keys.mirror.map(|mirror| find("mirror.service".into(), &mirror.service));
        if !keys.split.is_empty() && sum == 0 {
            wrong.push("split", "every weight is 0: nobody would get a request");
        }
        let canary = match (keys.canary, canary_service.flatten()) {
            (Some(config), Some(service)) => Some(Canary::build(config, target(service), wrong)),
            _ => None,
        };
        let mirror = keys.mirror.zip(mirror_service.flatten()).map(|(config, service)| Mirror {
            service,
            share: config.share.0,
            max_body: usize::try_from(config.max_body.0).unwrap_or(usize::MAX),
            under_way: Arc::default(),
        });
        Some(Self { targets, canary, mirror })
    }

    /// The service for a request.
    pub fn pick(&self, headers: &HeaderMap) -> Option<&Arc<Destination>> {
        if let Some(canary) = self.canary.as_ref().filter(|canary| canary.takes(headers)) {
            return Some(&canary.target);
        }
        match self.targets.as_slice() {
            [(only, _)] => Some(only),
            several => {
                let drawn = fastrand::u32(..several.last()?.1.max(1));
                several.iter().find(|(_, upto)| drawn < *upto).map(|(target, _)| target)
            }
        }
    }

    /// The services that a request may come to, in the order of the file, the canary last.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let canary = self.canary.iter().map(|canary| &canary.target);
        self.targets.iter().map(|(target, _)| target).chain(canary).map(|target| &*target.service.name)
    }

    /// True when a request may come to this service, by chance or otherwise.
    pub fn may_reach(&self, service: &str) -> bool {
        self.services().any(|known| known == service)
    }
}

impl Canary {
    fn build(config: &CanaryConfig, target: Arc<Destination>, wrong: &mut Invalid) -> Self {
        if config.header.is_none() && config.share.0 <= 0.0 {
            wrong.push("canary", "nothing goes there: set 'header' or 'share'");
        }
        if config.header.is_none() && config.value.is_some() {
            wrong.push("canary.value", "has no effect without 'header'");
        }
        let value = config.value.as_deref().map(HeaderValue::try_from).transpose().unwrap_or_else(|_| {
            wrong.push("canary.value", "not a value that a header can carry");
            None
        });
        let header = config.header.as_deref().and_then(|name| {
            let parsed = name.parse().ok();
            if parsed.is_none() {
                wrong.push("canary.header", format!("'{name}' is not a header name"));
            }
            Some((parsed?, value))
        });
        Self { target, header, share: config.share.0 }
    }

    fn takes(&self, headers: &HeaderMap) -> bool {
        let asked = self.header.as_ref().is_some_and(|(name, wanted)| {
            headers.get_all(name).iter().any(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        });
        asked || self.share > 0.0 && fastrand::f64() < self.share
    }
}
