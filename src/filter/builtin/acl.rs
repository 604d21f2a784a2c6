//! `acl`: who may pass, of those whom a step before it has made known.
//!
//! YAML: `acl: { allow: { roles: [admin] }, deny: { subjects: [mallory] } }`; each of the two may be a list of rules. A rule fits
//! when all of its keys do, a list of rules when one of them does. `deny` wins. Without `allow` everybody passes who is known.
//! It verifies nothing: put it below `api_key`, `jwt`, `basic` and their like. Who is not known gets 401 with the challenges of
//! the steps that would have taken a credential, or 403 where no such step has one.

use async_trait::async_trait;
use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::challenges;
use crate::{
    auth::{Certificate, Identity, Method},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, env::schema_of},
    message::{reason::Reason, reply::Reply},
};

/// Settings of `acl`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AclSettings")]
pub(crate) struct Config {
    /// Who may pass: rules of which one must fit. Default: everybody who is known.
    allow: Option<Vec<Rule>>,
    /// Who may not, whatever `allow` says.
    deny: Vec<Rule>,
    /// The claim that holds the roles, as a list or as words. Default `roles`.
    roles_claim: String,
    /// The claim that holds the tier. Default `tier`, which is also where keys and users of this file have theirs.
    tier_claim: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { allow: None, deny: Vec::new(), roles_claim: "roles".into(), tier_claim: "tier".into() }
    }
}

/// Whom a rule is about: all of its keys must fit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AclRule")]
struct Rule {
    /// Names, of which the client must have one: the owner of the key, the subject of the token, the name of the user, any name of the
    /// certificate.
    subjects: Option<Vec<String>>,
    /// Roles, of which the client must have one. Numbers are compared as they are written.
    roles: Option<Vec<String>>,
    /// Scopes that the credential must have, all of them.
    scopes: Option<Vec<String>>,
    /// Tiers, of which the client must have one.
    tiers: Option<Vec<String>>,
    /// Filters that made the client known: a name counts only if one of these has found it.
    by: Option<Vec<By>>,
}

/// A filter that makes clients known.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AclBy")]
enum By {
    ApiKey,
    Jwt,
    ClientCert,
    Hmac,
    Basic,
    ForwardAuth,
    Anonymous,
}

impl By {
    fn method(self) -> Method {
        match self {
            Self::ApiKey => Method::ApiKey,
            Self::Jwt => Method::Jwt,
            Self::ClientCert => Method::Certificate,
            Self::Hmac => Method::Signature,
            Self::Basic => Method::Basic,
            Self::ForwardAuth => Method::ForwardAuth,
            Self::Anonymous => Method::Anonymous,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Acl {
    allow: Option<Vec<Rule>>,
    deny: Vec<Rule>,
    roles_claim: String,
    tier_claim: String,
}

impl Configure for Acl {
    const NAME: &'static str = "acl";
    const SAMPLES: [&'static str; 2] = [
        "{ allow: [{ subjects: [a], roles: [a], scopes: [a], tiers: [a], by: [jwt] }], deny: [{ subjects: [m], roles: \
         [m], scopes: [m], tiers: [m], by: [jwt] }], roles_claim: r, tier_claim: t }",
        "{ allow: [{ subjects: [b], roles: [b], scopes: [b], tiers: [b], by: [hmac] }], deny: [{ subjects: [n], roles: \
         [n], scopes: [n], tiers: [n], by: [hmac] }], roles_claim: s, tier_claim: u }",
    ];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let Config { allow, deny, roles_claim, tier_claim } = config;
        if allow.as_ref().is_some_and(Vec::is_empty) {
            invalid.push("allow", "nobody could pass: name somebody, or leave it out");
        }
        for (list, rules) in [("allow", allow.iter().flatten().collect()), ("deny", deny.iter().collect::<Vec<_>>())] {
            for (i, rule) in rules.iter().enumerate() {
                rule.check(&format!("{list}[{i}]"), &mut invalid);
            }
        }
        for (path, claim) in [("roles_claim", &roles_claim), ("tier_claim", &tier_claim)] {
            if claim.is_empty() {
                invalid.push(path, "is empty: name a claim");
            }
        }
        invalid.into_result()?;
        Ok(Self { allow, deny, roles_claim, tier_claim })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

impl Rule {
    fn check(&self, path: &str, invalid: &mut Invalid) {
        let Self { subjects, roles, scopes, tiers, by } = self;
        let lengths = [("subjects", subjects), ("roles", roles), ("scopes", scopes), ("tiers", tiers)]
            .map(|(key, list)| (key, list.as_ref().map(Vec::len)));
        let lengths = lengths.into_iter().chain([("by", by.as_ref().map(Vec::len))]);
        let mut says = false;
        for (key, length) in lengths {
            says |= length.is_some();
            if length == Some(0) {
                invalid.push(format!("{path}.{key}"), "is empty: name somebody, or leave it out");
            }
        }
        if !says {
            invalid.push(path, "fits everybody: say whom, with 'subjects', 'roles', 'scopes', 'tiers' or 'by'");
        }
    }
}

impl Acl {
    /// `shown` is the client's certificate, if it has one.
    fn fits(&self, rule: &Rule, who: &Identity, shown: Option<&Certificate>) -> bool {
        let shown = shown.filter(|_| who.method == Method::Certificate);
        let is = |known: &String| who.name() == Some(known) || shown.is_some_and(|shown| shown.is(known));
        let fits =
            |list: &Option<Vec<String>>, is: &dyn Fn(&[String]) -> bool| list.as_ref().is_none_or(|list| is(list));
        fits(&rule.subjects, &|names| names.iter().any(is))
            && fits(&rule.roles, &|roles| who.holds_one_of(&self.roles_claim, roles))
            && fits(&rule.scopes, &|scopes| scopes.iter().all(|scope| who.has_scope(scope)))
            && fits(&rule.tiers, &|tiers| who.is_one_of(&self.tier_claim, tiers))
            && rule.by.as_ref().is_none_or(|by| by.iter().any(|by| by.method() == who.method))
    }
}

#[async_trait]
impl Filter for Acl {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let known = &exchange.state.identities;
        let shown = exchange.state.certificate.as_deref();
        let one_fits = |rules: &[Rule]| known.iter().any(|who| rules.iter().any(|rule| self.fits(rule, who, shown)));
        let named = known.iter().any(|who| who.method != Method::Anonymous);
        // Another service may let pass whom it does not know: that is nobody, unless `allow` says what is enough.
        let is_somebody = known.iter().any(|who| match who.method {
            Method::Anonymous => false,
            Method::ForwardAuth | Method::Certificate => who.name().is_some(),
            _ => true,
        });
        let allowed = self.allow.as_ref().map_or(is_somebody, |rules| one_fits(rules));
        // Whoever comes with two credentials has the permissions of both, and is kept out by either.
        if allowed && !one_fits(&self.deny) {
            return Ok(Flow::Next);
        }
        if !named {
            // A credential may help.
            let reply = challenges::unauthorized(exchange.state, "this is for clients that say who they are");
            return Ok(reply.because(Reason::CredentialsMissing).into());
        }
        let reply = Reply::problem(StatusCode::FORBIDDEN, "this client may not do this");
        Ok(reply.because(Reason::IdentityNotAllowed).into())
    }
}
