//! `body_limit`: the largest request body that a route takes.
//!
//! YAML: `body_limit: 10MiB` or `body_limit: { max: 10MiB }`. A length that is announced is judged before the backend hears of the request;
//! a body without one is counted as it passes, and cut with 413.

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Body, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
    units::Size,
    yaml::{FromShort, Short},
};

/// Settings of `body_limit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BodyLimitSettings")]
pub(crate) struct Config {
    /// The most bytes of a request's body.
    max: Size,
}

impl FromShort for Config {
    const EXPECTED: &'static str = "a size like 10MiB, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { max: text.parse()? })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Size>()
    }
}

#[derive(Debug)]
pub(crate) struct BodyLimit {
    max: u64,
}

impl Configure for BodyLimit {
    const NAME: &'static str = "body_limit";
    const SAMPLES: [&'static str; 2] = ["{ max: '1KiB' }", "{ max: '2KiB' }"];
    type Config = Short<Config>;

    fn configure(Short(config): Short<Config>, _: &Env) -> Result<Self, Invalid> {
        Ok(Self { max: config.max.0 })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Short<Config>>(generator)
    }
}

impl BodyLimit {
    fn refusal(&self) -> Flow {
        let detail = format!("the body is larger than the {} bytes that are allowed here", self.max);
        // What is left of the body will not be read: the connection cannot be used again.
        Reply::problem(StatusCode::PAYLOAD_TOO_LARGE, detail).because(Reason::BodyTooLarge).closing().into()
    }
}

#[async_trait]
impl Filter for BodyLimit {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let length = exchange.request.headers.get(header::CONTENT_LENGTH);
        let announced = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        Ok(if announced.is_some_and(|bytes| bytes > self.max) { self.refusal() } else { Flow::Next })
    }

    fn body(&self) -> Body {
        Body::Request
    }

    fn request_body(&self, _: &mut Option<Bytes>, _: bool, state: &mut State) -> Result<Flow, Fault> {
        Ok(if state.body_seen > self.max { self.refusal() } else { Flow::Next })
    }
}
