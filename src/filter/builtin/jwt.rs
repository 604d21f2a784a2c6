//! `jwt`: who may pass, by a signed token in `Authorization: Bearer` (RFC 6750, RFC 7519, RFC 8725).
//!
//! YAML: `jwt: { algorithms: [RS256], keys: [{ jwks: { url: "https://id.example/jwks.json" } }], issuer: https://id.example,
//! audience: api }`. Algorithms come from here and never from the token; `exp` is required, `nbf` checked; a token that must be
//! understood beyond what we know (`crit`), or that brings its own key, is refused. The token is hidden from the backend unless
//! `forward: true`. Key sets by URL are fetched in the background (`filter/key_set.rs`).
//! What it does not do: ask the issuer whether a token was withdrawn.

mod issuer;
mod key_source;
mod presented;
mod settings;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use schemars::{Schema, SchemaGenerator};

use self::{
    issuer::{Denied, Issuer},
    presented::{Presented, presented},
    settings::Config,
};
use super::{challenges, field_names::FieldNames};
use crate::{
    auth::{Identity, Method, OF_THE_TOKEN, jwt_error::JwtError, unverified_issuer},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
};

/// A client that comes back then may find the keys there.
const KEYS_SOON: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Jwt {
    issuers: Vec<Issuer>,
    optional: bool,
    header: HeaderName,
    forward: bool,
    identity: HeaderName,
    claims: Vec<(HeaderName, String)>,
    /// Claims of the token itself that backends are told.
    own_told: Arc<[&'static str]>,
    realm: String,
    scopes: String,
}

impl Configure for Jwt {
    const NAME: &'static str = "jwt";
    const SAMPLES: [&'static str; 2] = [
        "{ algorithms: [HS256, RS256], keys: [{ secret: { file: SECRET_A } }, { pem: \
         tests/fixtures/keys/test-rsa.public.pem }, { jwks: tests/fixtures/leaves/jwks-a.json }, { jwks: { url: \
         'https://a.example/', ca: tests/fixtures/tls/a.pem, refresh: 1m, min_refresh: 2m, max_refresh: 1h, \
         cooldown: 3s, timeout: 4s } }], issuer: a, audience: a, issuers: [{ issuer: c, keys: [{ secret: { file: \
         SECRET_A } }, { pem: tests/fixtures/keys/test-rsa.public.pem }, { jwks: { url: 'https://c.example/', ca: \
         tests/fixtures/tls/a.pem, refresh: 1m, min_refresh: 2m, max_refresh: 1h, cooldown: 3s, timeout: 4s } }], \
         algorithms: [HS256, RS256], audience: c }], leeway: '5s', required_claims: { role: admin }, scopes: [read], \
         roles: [a], roles_claim: r, subject_claim: uid, require_subject: true, optional: true, header: X-Token, \
         forward: true, identity_header: X-Sub, claim_headers: { X-Role: role }, cache: 5 }",
        "{ algorithms: [HS384, RS384], keys: [{ secret: { file: SECRET_B } }, { pem: \
         tests/fixtures/keys/test-rsa-other.public.pem }, { jwks: tests/fixtures/leaves/jwks-b.json }, { jwks: { \
         url: 'https://b.example/', ca: tests/fixtures/tls/b.pem, refresh: 2m, min_refresh: 3m, max_refresh: 2h, \
         cooldown: 4s, timeout: 5s } }], issuer: b, audience: b, issuers: [{ issuer: d, keys: [{ secret: { file: \
         SECRET_B } }, { pem: tests/fixtures/keys/test-rsa-other.public.pem }, { jwks: { url: 'https://d.example/', \
         ca: tests/fixtures/tls/b.pem, refresh: 2m, min_refresh: 3m, max_refresh: 2h, cooldown: 4s, timeout: 5s } \
         }], algorithms: [HS384, RS384], audience: d }], leeway: '6s', required_claims: { role: user }, scopes: \
         [write], roles: [b], roles_claim: s, subject_claim: id, require_subject: false, optional: false, header: \
         X-Token2, forward: false, identity_header: X-Sub2, claim_headers: { X-Role: roles }, cache: 6 }",
    ];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let issuers = config.issuers(env, &mut invalid);
        let mut names = FieldNames::new(&mut invalid);
        let header = names.credential("header", &config.header);
        let identity = names.told("identity_header", &config.identity_header);
        let claims = config.claim_headers.iter();
        let claims: Vec<_> =
            claims.map(|(name, claim)| (names.told(&format!("claim_headers.{name}"), name), claim.clone())).collect();
        invalid.into_result()?;
        let (realm, scopes) = (env.route.replace(['"', '\\'], ""), config.scopes.join(" "));
        let Config { optional, forward, .. } = config;
        let own_told = own_told(&claims, forward);
        Ok(Self { issuers, optional, header, forward, identity, claims, own_told, realm, scopes })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

/// Which claims of the token itself backends are told: with the token all of them.
fn own_told(claims: &[(HeaderName, String)], forward: bool) -> Arc<[&'static str]> {
    let is_told = |own: &&str| {
        let leads_to =
            |path: &str| path.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        forward || claims.iter().any(|(_, path)| leads_to(path))
    };
    OF_THE_TOKEN.into_iter().filter(is_told).collect()
}

impl Jwt {
    /// Whose token it says that it is: one that belongs to nobody is not verified at all.
    fn issuer(&self, token: &str) -> Result<&Issuer, JwtError> {
        let named = if self.issuers.len() > 1 { unverified_issuer(token) } else { None };
        let issuer = match named {
            Some(name) => self.issuers.iter().find(|issuer| issuer.is_for(&name)),
            // The last takes tokens of anybody, if there is one that does; any of them says what is wrong with this one.
            None => self.issuers.last(),
        };
        issuer.ok_or(JwtError::Issuer)
    }

    async fn authenticate(&self, exchange: &Exchange<'_>, token: &str) -> Result<(Arc<Identity>, &Issuer), Denied> {
        let issuer = self.issuer(token).map_err(Denied::Token)?;
        let identity = issuer.authenticate(token, exchange.now).await?;
        self.can_be_told(&identity).map_err(Denied::Token)?;
        Ok((identity, issuer))
    }

    fn refuse(&self, error: &JwtError) -> Flow {
        let reply = Reply::unauthorized(self.challenge(Some(error)), error.to_string());
        reply.because(reason(error)).into()
    }

    /// Claims that backends are told must be such that headers can carry them, as the subject must.
    fn can_be_told(&self, identity: &Identity) -> Result<(), JwtError> {
        let all = self.claims.iter().all(|(_, claim)| identity.told(claim).is_ok());
        if all { Ok(()) } else { Err(JwtError::Malformed) }
    }

    /// The challenge of RFC 6750 §3: no error code when no token was sent.
    fn challenge(&self, error: Option<&JwtError>) -> HeaderValue {
        let mut text = format!("Bearer realm=\"{}\"", self.realm);
        if let Some(error) = error {
            let _ = write!(text, ", error=\"{}\", error_description=\"{error}\"", error.code());
        }
        if !self.scopes.is_empty() && matches!(error, Some(JwtError::MissingScope(_))) {
            let _ = write!(text, ", scope=\"{}\"", self.scopes);
        }
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

/// The access log's word for it.
fn reason(error: &JwtError) -> Reason {
    use JwtError as E;
    match error {
        E::Malformed | E::Several | E::Critical => Reason::TokenMalformed,
        E::Algorithm => Reason::TokenAlgorithm,
        E::UnknownKey | E::NoKeyNamed | E::OwnKey => Reason::TokenKey,
        E::Signature => Reason::TokenSignature,
        E::Expired => Reason::TokenExpired,
        E::NotYet => Reason::TokenNotYet,
        E::Issuer => Reason::TokenIssuer,
        E::Audience => Reason::TokenAudience,
        E::MissingClaim(_) | E::ClaimMismatch(_) => Reason::TokenClaim,
        E::MissingScope(_) => Reason::ScopeMissing,
        E::NotAllowed(_) => Reason::ClaimNotAllowed,
    }
}

#[async_trait]
impl Filter for Jwt {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let token = match presented(&exchange.request.headers, &self.header) {
            Presented::Token(token) => token,
            Presented::Nothing if self.optional => {
                challenges::note(exchange.state, self.challenge(None));
                return Ok(Flow::Next);
            }
            Presented::Nothing => {
                let reply = Reply::unauthorized(self.challenge(None), "a bearer token is required");
                return Ok(reply.because(Reason::CredentialsMissing).into());
            }
            Presented::Malformed => return Ok(self.refuse(&JwtError::Malformed)),
            Presented::Several => return Ok(self.refuse(&JwtError::Several)),
        };
        let (identity, issuer) = match self.authenticate(exchange, token).await {
            Ok(verified) => verified,
            Err(Denied::Token(error)) => return Ok(self.refuse(&error)),
            Err(Denied::NoKeysYet) => {
                let detail = "the keys that tokens are verified with are not known yet";
                let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(KEYS_SOON);
                return Ok(reply.because(Reason::TokenKeysMissing).into());
            }
        };
        let allowed = issuer.allows(&identity);
        // Noted even when it is not allowed: the log names it.
        exchange.state.identities.note(identity);
        if !self.own_told.is_empty() {
            exchange.state.identities.note_told(self.own_told.clone());
        }
        let Err(error) = allowed else { return Ok(Flow::Next) };
        let reply = Reply::problem(StatusCode::FORBIDDEN, error.to_string())
            .header(header::WWW_AUTHENTICATE, self.challenge(Some(&error)));
        Ok(reply.because(reason(&error)).into())
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(vec![self.header.clone()])
    }

    fn sole_methods(&self) -> Vec<Method> {
        vec![Method::Jwt]
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        std::iter::once(&self.identity).chain(self.claims.iter().map(|(name, _)| name)).cloned().collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        // Credentials of another kind, beside which nobody's request has passed, are not this step's.
        if !self.forward && presented(&head.headers, &self.header) != Presented::Nothing {
            head.remove_header(&self.header);
        }
        // All go before the first is set: one whose value no header can carry must not leave a client's own in its place.
        for name in std::iter::once(&self.identity).chain(self.claims.iter().map(|(name, _)| name)) {
            head.remove_header(name);
        }
        let mut tell = |name: &HeaderName, text: Option<&str>| {
            let Some(text) = text else { return Ok(()) };
            let value = HeaderValue::try_from(text).map_err(|e| Fault(format!("header {name}: {e}")))?;
            head.insert_header(name.clone(), value).map_err(|e| Fault(e.to_string()))
        };
        let identity = state.identities.by(Method::Jwt);
        tell(&self.identity, identity.and_then(|identity| identity.name()))?;
        for (name, claim) in &self.claims {
            tell(name, identity.and_then(|identity| identity.told(claim).ok()?).as_deref())?;
        }
        Ok(())
    }
}
