//! `request_id`: names every request, for logs on both sides of the gateway.
//!
//! YAML: `request_id` or `request_id: { header: X-Request-ID, trust: false, echo: true }`.
//! Every request has an id anyway (problems and the access log carry it); this step decides whether the client may
//! choose it, and shows it to the backend and to the client.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{edit::Edit as _, fields, request_id::RequestId},
};

/// Settings of `request_id`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RequestIdSettings")]
pub(crate) struct Config {
    /// The header that carries the id, both ways. Default `X-Request-ID`.
    header: String,
    /// Keep an id that the client sent, when it is 1 to 128 letters, digits or `-_.:+/=`. Default true.
    trust: bool,
    /// Send the id back to the client. Default true.
    echo: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { header: "X-Request-ID".into(), trust: true, echo: true }
    }
}

#[derive(Debug)]
pub(crate) struct RequestIdFilter {
    header: HeaderName,
    trust: bool,
    echo: bool,
}

impl Configure for RequestIdFilter {
    const NAME: &'static str = "request_id";
    const SAMPLES: [&'static str; 2] =
        ["{ header: X-Id, trust: false, echo: false }", "{ header: X-Id2, trust: true, echo: true }"];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let wrong = |_| Invalid::at("header", format!("'{}' is not a header name", config.header));
        Ok(Self { header: config.header.parse().map_err(wrong)?, trust: config.trust, echo: config.echo })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

fn acceptable(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=".contains(&b))
}

fn value(id: &RequestId) -> Result<HeaderValue, Fault> {
    HeaderValue::try_from(id.to_string()).map_err(|e| Fault(format!("request id: {e}")))
}

#[async_trait]
impl Filter for RequestIdFilter {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        if self.trust
            && let Some(id) = exchange.header(self.header.as_str()).filter(|id| acceptable(id))
        {
            let id = Arc::from(id);
            exchange.state.id = RequestId::Given(id);
        }
        Ok(Flow::Next)
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        // A backend may read `X_Request_ID` as the same field.
        for name in fields::other_spellings(&head.headers, || std::iter::once(&self.header)) {
            head.remove_header(&name);
        }
        let id = value(&state.id)?;
        head.edit(|fields| fields.insert(self.header.clone(), id)).map_err(|e| Fault(e.to_string()))
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        if !self.echo {
            return Ok(());
        }
        let id = value(&state.id)?;
        head.edit(|fields| fields.insert(self.header.clone(), id)).map_err(|e| Fault(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn takes_only_harmless_ids() {
        assert!(acceptable("4bf92f3577b34da6"));
        for wrong in ["", "a b", "a\"b", "x\u{e9}", &"a".repeat(129)] {
            assert!(!acceptable(wrong), "{wrong:?}");
        }
    }
}
