//! `client_cert`: who may pass, by the certificate of the TLS connection (`mtls:` of the listener verified it).
//!
//! YAML: `client_cert` or `client_cert: { allow: [billing.internal, "spiffe://acme/billing"] }`. A name in `allow` may be
//! the whole subject, its common name, or a subject alternative name. The backend learns the identity (the first
//! alternative name, else the common name) from `identity_header`; limits by `api_key` count per identity. A certificate without a
//! name that a field can carry passes nowhere.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, StatusCode};
use pingora::http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{field_names::FieldNames, identity_field};
use crate::{
    auth::{Identity, Method},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
};

/// Settings of `client_cert`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ClientCertSettings")]
pub(crate) struct Config {
    /// Names that may pass. Empty: every verified certificate.
    allow: Vec<String>,
    /// Tells the backend who it is; a client's own header of that name is dropped. Default `X-Auth-Subject`.
    identity_header: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { allow: Vec::new(), identity_header: "X-Auth-Subject".into() }
    }
}

#[derive(Debug)]
pub(crate) struct ClientCert {
    allow: Vec<String>,
    identity: HeaderName,
}

impl Configure for ClientCert {
    const NAME: &'static str = "client_cert";
    const SAMPLES: [&'static str; 2] =
        ["{ allow: [a], identity_header: X-Cert-a }", "{ allow: [b], identity_header: X-Cert-b }"];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let identity = FieldNames::new(&mut invalid).told("identity_header", &config.identity_header);
        invalid.into_result()?;
        Ok(Self { allow: config.allow, identity })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for ClientCert {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let Some(certificate) = exchange.state.certificate.clone() else {
            return Ok(Reply::problem(StatusCode::FORBIDDEN, "a client certificate is required")
                .because(Reason::CredentialsMissing)
                .into());
        };
        // What backends could not be told is nobody's name.
        let name = certificate.identity();
        let listed = self.allow.is_empty() || self.allow.iter().any(|name| certificate.is(name));
        let allowed = listed && name.is_some();
        // Noted even when it is not allowed: the log names it.
        exchange.state.identities.note(Arc::new(Identity {
            subject: name.unwrap_or_default().to_owned(),
            method: Method::Certificate,
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
            key_id: Some(certificate.fingerprint.clone()),
        }));
        if allowed {
            return Ok(Flow::Next);
        }
        let reply = Reply::problem(StatusCode::FORBIDDEN, "this client certificate may not do this");
        Ok(reply.because(Reason::CertificateNotAllowed).into())
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(Vec::new())
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        vec![self.identity.clone()]
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        identity_field::tell(head, &self.identity, state, Method::Certificate)
    }
}
