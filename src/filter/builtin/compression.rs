//! `compression`: answers smaller on the wire, for clients that accept it.
//!
//! YAML: `compression` or `compression: { level: 5, min_size: 512, types: [text/*], algorithms: [zstd, br, gzip] }`. Which
//! answers are left alone say `message/coding_terms.rs` and `message/content_coding.rs`. It is done in
//! `proxy/compression.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{
        coding_terms::{CodingTerms, MediaPattern},
        content_coding::ContentCoding,
        fields,
    },
    units::Size,
};

/// Settings of `compression`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CompressionSettings")]
pub(crate) struct Config {
    /// 1 (fast) to 9 (small). Default 5.
    level: Option<u32>,
    /// Answers that are known to be shorter stay as they are. Default 512.
    min_size: Option<Size>,
    /// Media types: `application/json`, `text/*`, `*+json`. Default: text and what is made of text.
    types: Option<Vec<String>>,
    /// Codings, the best first. Default zstd, br, gzip.
    algorithms: Option<Vec<ContentCoding>>,
}

#[derive(Debug)]
pub(crate) struct Compression(Arc<CodingTerms>);

impl Configure for Compression {
    const NAME: &'static str = "compression";
    const SAMPLES: [&'static str; 2] = [
        "{ level: 3, min_size: 1KiB, types: [text/*], algorithms: [gzip] }",
        "{ level: 4, min_size: 2KiB, types: [a/b], algorithms: [br, gzip] }",
    ];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let mut terms = CodingTerms::default();
        if let Some(level) = config.level {
            if !(1..=9).contains(&level) {
                return Err(Invalid::at("level", format!("{level} is not a level from 1 to 9")));
            }
            terms.level = level;
        }
        if let Some(size) = config.min_size {
            terms.min_size = size.0;
        }
        if let Some(types) = config.types {
            let known = |text: &String| {
                let why = || Invalid::at("types", format!("'{text}' is not a media type, 'text/*' or '*+json'"));
                MediaPattern::parse(text).ok_or_else(why)
            };
            terms.types = types.iter().map(known).collect::<Result<_, _>>()?;
        }
        if let Some(algorithms) = config.algorithms {
            if algorithms.is_empty() {
                return Err(Invalid::at("algorithms", "without any, nothing is compressed: leave the filter out"));
            }
            terms.algorithms = algorithms;
        }
        Ok(Self(terms.into()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for Compression {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        exchange.state.compress = Some(self.0.clone());
        Ok(Flow::Next)
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        // A 304 says nothing of what it stands for. A part is not coded, and has the fields of the whole (RFC 9110 §15.3.7).
        if head.status != StatusCode::NOT_MODIFIED && !self.0.cover(head) {
            state.compress = None;
            if !self.0.cover_whole_of(head) {
                return Ok(());
            }
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
