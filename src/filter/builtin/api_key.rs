//! `api_key`: who may pass, by a key in a header.
//!
//! YAML: `api_key` or `api_key: { header: X-API-KEY, bearer: true, scopes: [orders:read], allow: [acme] }`.
//! Keys stand in `api_keys:` as SHA-256 digests (`tollgate hash-key` makes one). The credential is hidden from the
//! backend, which learns the key's owner or id from `identity_header` instead. Keys are never read from the URL: URLs are
//! logged everywhere. Unknown, malformed and disabled keys get the same answer.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{field_names::FieldNames, identity_field};
use crate::{
    auth::{Identity, Keys, Method, Refusal},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
};

/// Settings of `api_key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ApiKeySettings")]
pub(crate) struct Config {
    /// The header that carries the key. Default `X-API-KEY`.
    header: String,
    /// Also take the key from `Authorization: Bearer`. Default false.
    bearer: bool,
    /// Pass the credential on to the backend. Default false.
    forward: bool,
    /// Tells the backend the key's owner, or its id where it has none; a client's own header of that name is dropped. Default `X-Consumer-ID`.
    identity_header: String,
    /// Ids of the keys that may pass. Empty: every key.
    allow: Vec<String>,
    /// Scopes that a key must have, all of them.
    scopes: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "X-API-KEY".into(),
            bearer: false,
            forward: false,
            identity_header: "X-Consumer-ID".into(),
            allow: Vec::new(),
            scopes: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ApiKey {
    header: HeaderName,
    bearer: bool,
    forward: bool,
    identity: HeaderName,
    allow: Vec<String>,
    scopes: Vec<String>,
    keys: Arc<Keys>,
    challenge: HeaderValue,
}

impl Configure for ApiKey {
    const NAME: &'static str = "api_key";
    const SAMPLES: [&'static str; 2] = [
        "{ header: X-Key, bearer: true, forward: true, identity_header: X-Who, allow: [a], scopes: [read] }",
        "{ header: X-Key2, bearer: false, forward: false, identity_header: X-Who2, allow: [b], scopes: [write] \
         }",
    ];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let mut names = FieldNames::new(&mut invalid);
        let header = names.credential("header", &config.header);
        let identity = names.told("identity_header", &config.identity_header);
        if env.keys.is_empty() {
            invalid.push("", "there are no keys: list some under 'api_keys:', or nobody can pass");
        }
        for (i, id) in config.allow.iter().enumerate() {
            let mut known = env.keys.identities().filter_map(|identity| identity.key_id.as_deref());
            if !known.any(|known| known == id) {
                let known = env.keys.identities().filter_map(|identity| identity.key_id.as_deref());
                let near = crate::units::nearest(id, known);
                let near = near.map(|near| format!(" (did you mean '{near}'?)")).unwrap_or_default();
                invalid.push(format!("allow[{i}]"), format!("no key has the id '{id}'{near}"));
            }
        }
        // What would have to be escaped in a quoted string is left out.
        let realm = env.route.replace(['"', '\\'], "");
        let challenge = HeaderValue::try_from(format!("ApiKey realm=\"{realm}\", header=\"{header}\""));
        let challenge = challenge.unwrap_or_else(|_| HeaderValue::from_static("ApiKey"));
        invalid.into_result()?;
        let Config { bearer, forward, allow, scopes, .. } = config;
        Ok(Self { header, bearer, forward, identity, allow, scopes, keys: env.keys.clone(), challenge })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

/// The token of `Authorization: Bearer`; the scheme's name is case-insensitive (RFC 9110 §11.1).
pub(crate) fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// What a request carries.
enum Presented<'h> {
    Nothing,
    Key(&'h [u8]),
    /// Lines of which nobody knows which one counts.
    Several,
}

impl ApiKey {
    fn presented<'h>(&self, exchange: &'h Exchange<'_>) -> Presented<'h> {
        let headers = &exchange.request.headers;
        let mut values = headers.get_all(&self.header).iter();
        if let Some(value) = values.next() {
            let key = Presented::Key(value.as_bytes());
            return if values.next().is_some() { Presented::Several } else { key };
        }
        if !self.bearer {
            return Presented::Nothing;
        }
        let lines = headers.get_all(header::AUTHORIZATION);
        match (lines.iter().find_map(bearer), lines.iter().count()) {
            (None, _) => Presented::Nothing,
            (Some(key), 1) => Presented::Key(key.as_bytes()),
            (Some(_), _) => Presented::Several,
        }
    }

    fn refuse(&self, detail: &'static str, reason: Reason) -> Flow {
        Reply::unauthorized(self.challenge.clone(), detail).because(reason).into()
    }
}

#[async_trait]
impl Filter for ApiKey {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let key = match self.presented(exchange) {
            Presented::Key(key) => key,
            Presented::Nothing => return Ok(self.refuse("an API key is required", Reason::CredentialsMissing)),
            Presented::Several => return Ok(self.refuse("the API key is not valid", Reason::KeyUnknown)),
        };
        let identity = match self.keys.find(key, exchange.now.unix) {
            Ok(identity) => identity,
            // The client is told the same: which keys there were is nobody's business.
            Err(Refusal::Unknown) => return Ok(self.refuse("the API key is not valid", Reason::KeyUnknown)),
            Err(Refusal::Expired) => return Ok(self.refuse("the API key is not valid", Reason::KeyExpired)),
        };
        // Noted even when it is not allowed: the log names it.
        exchange.state.identities.note(identity.clone());
        let allowed = self.allow.is_empty() || identity.key_id.as_ref().is_some_and(|id| self.allow.contains(id));
        let granted = self.scopes.iter().all(|scope| identity.has_scope(scope));
        if !allowed || !granted {
            let reason = if allowed { Reason::ScopeMissing } else { Reason::KeyNotAllowed };
            return Ok(Reply::problem(StatusCode::FORBIDDEN, "the API key may not do this").because(reason).into());
        }
        Ok(Flow::Next)
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(std::iter::once(self.header.clone()).chain(self.bearer.then_some(header::AUTHORIZATION)).collect())
    }

    fn reads(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        *name == self.header || !headers.contains_key(&self.header)
    }

    fn sole_methods(&self) -> Vec<Method> {
        vec![Method::ApiKey]
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        vec![self.identity.clone()]
    }

    fn known_names(&self) -> Vec<(HeaderName, String)> {
        let may_pass = |identity: &&Identity| {
            self.allow.is_empty() || identity.key_id.as_ref().is_some_and(|id| self.allow.contains(id))
        };
        let all = self.keys.identities().filter(may_pass);
        all.map(|identity| (self.identity.clone(), identity.subject.clone())).collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        if !self.forward {
            head.remove_header(&self.header);
            if self.bearer {
                head.remove_header(&header::AUTHORIZATION);
            }
        }
        identity_field::tell(head, &self.identity, state, Method::ApiKey)
    }
}
