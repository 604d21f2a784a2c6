//! `compression`: answers smaller on the wire, for clients that accept it.
//!
//! YAML: `compression` or `compression: { level: 5 }` (1 fast to 9 small). gzip, brotli and zstd by
//! `Accept-Encoding`; which answers are left alone says `message/content_coding.rs`. It is done in `proxy/compression.rs`.

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{content_coding::may_be_coded, fields},
};

/// Settings of `compression`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// 1 (fast) to 9 (small). Default 5.
    level: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: 5 }
    }
}

#[derive(Debug)]
pub(crate) struct Compression {
    level: u32,
}

impl Configure for Compression {
    const NAME: &'static str = "compression";
    const SAMPLES: [&'static str; 2] = ["{ level: 3 }", "{ level: 4 }"];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        if !(1..=9).contains(&config.level) {
            return Err(Invalid::at("level", format!("{} is not a level from 1 to 9", config.level)));
        }
        Ok(Self { level: config.level })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for Compression {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        exchange.state.compress = Some(self.level);
        Ok(Flow::Next)
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        // A 304 says nothing of what it stands for.
        if head.status != StatusCode::NOT_MODIFIED && !may_be_coded(head) {
            state.compress = None;
            return Ok(());
        }
        // Whatever this client gets, a cache on the way must not hand it to one that accepts less (RFC 9110 §12.5.5).
        vary(head, "Accept-Encoding", &HeaderValue::from_static("Accept-Encoding"))
    }
}

/// Adds a field name to `Vary` unless it stands there already.
pub(crate) fn vary(head: &mut ResponseHeader, name: &str, value: &HeaderValue) -> Result<(), Fault> {
    let listed = |item: &[u8]| item == b"*" || item.eq_ignore_ascii_case(name.as_bytes());
    if fields::has(&head.headers, &header::VARY, listed) {
        return Ok(());
    }
    head.append_header(header::VARY, value.clone()).map(|_| ()).map_err(|e| Fault(e.to_string()))
}
