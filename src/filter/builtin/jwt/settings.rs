//! Settings of the filter `jwt`, and what is made of them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    issuer::Issuer,
    key_source::{KeySource, load},
};
use crate::{
    auth::{Algorithm, Policy},
    filter::{Env, Invalid},
    units::Span,
};

/// Settings of `jwt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JwtSettings")]
pub(crate) struct Config {
    /// Signature algorithms that are accepted: HS256/384/512, RS256/384/512, PS256/384/512, ES256/384, EdDSA.
    #[serde(default)]
    algorithms: Vec<String>,
    /// Keys that may have signed.
    #[serde(default)]
    keys: Vec<KeySource>,
    /// `iss`: one or several. Not checked when absent.
    #[serde(default)]
    issuer: Vec<String>,
    /// `aud`: the token must name one of these. Not checked when absent.
    #[serde(default)]
    audience: Vec<String>,
    /// Further issuers, each with keys of its own: the token's `iss` selects one.
    #[serde(default)]
    issuers: Vec<IssuerConfig>,
    /// Clock difference to allow for. Default 30s.
    #[serde(default = "default_leeway")]
    leeway: Span,
    /// Claims that must be there; with a value, that must be equal to it.
    #[serde(default)]
    required_claims: BTreeMap<String, serde_json::Value>,
    /// Scopes that the token must have (`scope` or `scp`), all of them; 403 otherwise.
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    /// Roles of which the token must have one; 403 otherwise.
    #[serde(default)]
    roles: Vec<String>,
    /// The claim that holds the roles, as a list or as words. Default `roles`.
    #[serde(default = "default_roles")]
    roles_claim: String,
    /// The claim that names the client. Default `sub`.
    #[serde(default = "default_subject")]
    subject_claim: String,
    /// Refuse tokens without that claim. Default false: a token need not name anybody (RFC 7519 §4.1.2).
    #[serde(default)]
    require_subject: bool,
    /// Let requests without a token pass, as nobody's; one that is not good is refused all the same. Default false.
    #[serde(default)]
    pub(super) optional: bool,
    /// The header that carries the token. Default `Authorization`, as `Bearer`; any other header holds the bare token.
    #[serde(default = "default_header")]
    pub(super) header: String,
    /// Pass the token on to the backend. Default false.
    #[serde(default)]
    pub(super) forward: bool,
    /// Tells the backend the subject; a client's own header of that name is dropped. Default `X-Auth-Subject`.
    #[serde(default = "default_identity")]
    pub(super) identity_header: String,
    /// Tells the backend claims: header name to claim path. A client's own headers of these names are dropped.
    #[serde(default)]
    pub(super) claim_headers: BTreeMap<String, String>,
    /// Verified tokens to remember, so that a signature is checked once; 0 checks every time. Default 10000.
    #[serde(default = "default_cache")]
    cache: usize,
}

/// An issuer with keys of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IssuerConfig {
    /// `iss` of its tokens.
    issuer: String,
    /// Keys that may have signed them.
    keys: Vec<KeySource>,
    /// Signature algorithms that are accepted. Default: those of the filter.
    #[serde(default)]
    algorithms: Vec<String>,
    /// `aud`: the token must name one of these. Default: those of the filter.
    #[serde(default)]
    audience: Vec<String>,
}

fn default_leeway() -> Span {
    Span(std::time::Duration::from_secs(30))
}

fn default_subject() -> String {
    "sub".into()
}

fn default_roles() -> String {
    "roles".into()
}

fn default_header() -> String {
    "Authorization".into()
}

fn default_identity() -> String {
    "X-Auth-Subject".into()
}

fn default_cache() -> usize {
    10_000
}

fn algorithms(path: &str, names: &[String], invalid: &mut Invalid) -> Vec<Algorithm> {
    if names.is_empty() {
        invalid.push(path, "name at least one algorithm");
    }
    let mut known = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match name.parse() {
            Ok(algorithm) => known.push(algorithm),
            Err(_) => {
                invalid.push(format!("{path}[{i}]"), format!("'{name}' is not a signature algorithm that is accepted"));
            }
        }
    }
    known
}

impl Config {
    /// The issuers whose tokens are accepted: those that are named by themselves come first.
    pub(super) fn issuers(&self, env: &Env, invalid: &mut Invalid) -> Vec<Issuer> {
        let mut issuers = Vec::new();
        let mut names = BTreeSet::new();
        for (i, config) in self.issuers.iter().enumerate() {
            let path = format!("issuers[{i}].");
            if !names.insert(&config.issuer) || self.issuer.contains(&config.issuer) {
                invalid.push(format!("{path}issuer"), format!("'{}' is there twice", config.issuer));
            }
            let (own, audience) = (&config.algorithms, &config.audience);
            let place = if own.is_empty() { "algorithms".to_owned() } else { format!("{path}algorithms") };
            let policy = Policy {
                issuers: vec![config.issuer.clone()],
                audiences: if audience.is_empty() { self.audience.clone() } else { audience.clone() },
                ..self.policy((&place, if own.is_empty() { &self.algorithms } else { own }), invalid)
            };
            issuers.extend(self.issuer(policy, (&path, &config.keys), env, invalid));
        }
        if self.issuers.is_empty() || !self.keys.is_empty() {
            let policy = Policy {
                issuers: self.issuer.clone(),
                audiences: self.audience.clone(),
                ..self.policy(("algorithms", &self.algorithms), invalid)
            };
            issuers.extend(self.issuer(policy, ("", &self.keys), env, invalid));
        } else if !self.issuer.is_empty() {
            invalid.push("issuer", "has no effect without 'keys': those of 'issuers' are for theirs alone");
        }
        issuers
    }

    fn policy(&self, (path, names): (&str, &[String]), invalid: &mut Invalid) -> Policy {
        let required = self.required_claims.iter();
        let required =
            required.map(|(name, value)| (name.clone(), Some(value.clone()).filter(|value| !value.is_null())));
        Policy {
            leeway: self.leeway.0,
            required: required.collect(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            roles_claim: self.roles_claim.clone(),
            subject_claim: self.subject_claim.clone(),
            require_subject: self.require_subject,
            ..Policy::new(algorithms(path, names, invalid))
        }
    }

    fn issuer(
        &self,
        policy: Policy,
        (path, sources): (&str, &[KeySource]),
        env: &Env,
        invalid: &mut Invalid,
    ) -> Option<Issuer> {
        let before = invalid.0.len();
        if sources.is_empty() {
            invalid.push(format!("{path}keys"), "give at least one key");
        }
        let keys = load(sources, env, &mut |below, message| invalid.push(format!("{path}keys{below}"), message));
        // What follows from a mistake would only repeat it.
        if invalid.0.len() > before || policy.algorithms.is_empty() {
            return None;
        }
        Issuer::new(policy, keys, self.cache).map_err(|e| invalid.push(format!("{path}keys"), e.to_string())).ok()
    }
}
