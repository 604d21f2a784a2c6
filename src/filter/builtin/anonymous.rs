//! `anonymous`: a name, and a tier, for whoever is not known.
//!
//! YAML: `anonymous: { tier: free }`, as the last of `any_of`, or below `jwt: { optional: true }`. It refuses nobody; limits by
//! `claim:tier` and `acl` see the tier. A client that is known keeps its own name.

use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Map;

use crate::{
    auth::{Identity, Method},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, env::schema_of},
};

/// Settings of `anonymous`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AnonymousSettings")]
pub(crate) struct Config {
    /// What logs and `acl` call the client. Default `anonymous`.
    subject: String,
    /// What the client is to `acl` and to limits by `claim:tier`. Default: none.
    tier: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { subject: "anonymous".into(), tier: None }
    }
}

#[derive(Debug)]
pub(crate) struct Anonymous(Arc<Identity>);

impl Configure for Anonymous {
    const NAME: &'static str = "anonymous";
    const SAMPLES: [&'static str; 2] = ["{ subject: a, tier: a }", "{ subject: b, tier: b }"];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        for (path, text) in [("subject", Some(&config.subject)), ("tier", config.tier.as_ref())] {
            if text.is_some_and(|text| text.trim() != text || text.is_empty() || text.contains(char::is_control)) {
                invalid.push(path, "must not be empty, nor have control characters or spaces around it");
            }
        }
        invalid.into_result()?;
        let mut claims = Map::new();
        claims.extend(config.tier.map(|tier| ("tier".to_owned(), tier.into())));
        let identity =
            Identity { subject: config.subject, method: Method::Anonymous, scopes: Vec::new(), claims, key_id: None };
        Ok(Self(Arc::new(identity)))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for Anonymous {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        if exchange.state.identities.last().is_none() {
            exchange.state.identities.note(self.0.clone());
        }
        Ok(Flow::Next)
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(Vec::new())
    }
}
