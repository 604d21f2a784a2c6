//! `in_flight`: how many requests of one client (or key, or all) may be under way at the same time.
//!
//! YAML: `in_flight: { max: 10, by: api_key }`. A request beyond that gets 429 at once. Counting is pingora-limits'
//! `Inflight`: a sketch of fixed size, which can only count too high, and only when several subjects share all four of
//! its slots.

use std::fmt;

use async_trait::async_trait;
use http::StatusCode;
use pingora_limits::inflight::Inflight;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{
        Configure, Env, Exchange, Fault, Filter, Flow, Invalid,
        env::schema_of,
        subject::{KeyPart, Subject},
    },
    limit::{KeyHasher, KeyParts as _},
    message::{reason::Reason, reply::Reply},
};

/// Settings of `in_flight`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InFlightSettings")]
pub(crate) struct Config {
    /// The most requests under way.
    max: u32,
    /// Of whom: as in `rate_limit`. Default `client_ip`.
    #[serde(default)]
    by: Vec<KeyPart>,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight {{ max: {}, by: {:?} }}", self.max, self.by)
    }
}

pub(crate) struct InFlight {
    max: isize,
    by: Vec<KeyPart>,
    hasher: KeyHasher,
    counts: Inflight,
}

impl Configure for InFlight {
    const NAME: &'static str = "in_flight";
    const SAMPLES: [&'static str; 2] = ["{ max: 7, by: api_key }", "{ max: 8, by: path }"];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        if config.max == 0 {
            return Err(Invalid::at("max", "0 would refuse every request"));
        }
        let by = if config.by.is_empty() { vec![KeyPart::ClientIp] } else { config.by };
        let max = isize::try_from(config.max).unwrap_or(isize::MAX);
        Ok(Self { max, by, hasher: env.tables.hasher().clone(), counts: Inflight::new() })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for InFlight {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let mut key = self.hasher.key("");
        Subject { parts: &self.by, exchange }.write(&mut key);
        let (guard, count) = self.counts.incr(key.finish(), 1);
        if count > self.max {
            let detail = "too many requests at the same time";
            let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, detail).because(Reason::TooManyAtOnce);
            return Ok(reply.retry_after(std::time::Duration::from_secs(1)).into());
        }
        // The place is given back when the request's state is dropped, however the request ends.
        exchange.state.hold(Box::new(guard));
        Ok(Flow::Next)
    }
}
