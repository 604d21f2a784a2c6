//! `jwt`: who may pass, by a signed token in `Authorization: Bearer` (RFC 6750, RFC 7519, RFC 8725).
//!
//! YAML: `jwt: { algorithms: [RS256], keys: [{ jwks: /etc/tollgate/jwks.json }], issuer: https://id.example, audience: api }`.
//! Algorithms come from here and never from the token; `exp` is required, `nbf` checked; a token that must be
//! understood beyond what we know (`crit`) is refused. The token is hidden from the backend unless `forward: true`.
//! What it does not do: fetch keys by URL (the key file is read when the configuration is).

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::api_key::bearer;
use crate::{
    auth::{Algorithm, Identity, Keyset, Method, Policy, Verifier, jwt_error::JwtError},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{fields::single, reason::Reason, reply::Reply},
    units::{SecretRef, Span, read_file},
};

/// Settings of `jwt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JwtSettings")]
pub(crate) struct Config {
    /// Signature algorithms that are accepted: HS256/384/512, RS256/384/512, PS256/384/512, ES256/384, EdDSA.
    algorithms: Vec<String>,
    /// Keys that may have signed.
    keys: Vec<KeySource>,
    /// `iss`: one or several. Not checked when absent.
    #[serde(default)]
    issuer: Vec<String>,
    /// `aud`: the token must name one of these. Not checked when absent.
    #[serde(default)]
    audience: Vec<String>,
    /// Clock difference to allow for. Default 30s.
    #[serde(default = "default_leeway")]
    leeway: Span,
    /// Claims that must be there; with a value, that must be equal to it.
    #[serde(default)]
    required_claims: BTreeMap<String, serde_json::Value>,
    /// Scopes that the token must have (`scope` or `scp`), all of them; 403 otherwise.
    #[serde(default)]
    scopes: Vec<String>,
    /// The claim that names the client. Default `sub`.
    #[serde(default = "default_subject")]
    subject_claim: String,
    /// Refuse tokens without that claim. Default false: a token need not name anybody (RFC 7519 §4.1.2).
    #[serde(default)]
    require_subject: bool,
    /// The header that carries the token. Default `Authorization`, as `Bearer`; any other header holds the bare token.
    #[serde(default = "default_header")]
    header: String,
    /// Pass the token on to the backend. Default false.
    #[serde(default)]
    forward: bool,
    /// Tells the backend the subject; a client's own header of that name is dropped. Default `X-Auth-Subject`.
    #[serde(default = "default_identity")]
    identity_header: String,
    /// Tells the backend claims: header name to claim path. A client's own headers of these names are dropped.
    #[serde(default)]
    claim_headers: BTreeMap<String, String>,
    /// Verified tokens to remember, so that a signature is checked once; 0 checks every time. Default 10000.
    #[serde(default = "default_cache")]
    cache: usize,
}

/// Where a verification key comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum KeySource {
    /// A shared secret, for HS algorithms.
    Secret(SecretRef),
    /// A file with a public key or certificate in PEM.
    Pem(PathBuf),
    /// A file with a JWK set (RFC 7517).
    Jwks(PathBuf),
}

fn default_leeway() -> Span {
    Span(std::time::Duration::from_secs(30))
}

fn default_subject() -> String {
    "sub".into()
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

#[derive(Debug)]
pub(crate) struct Jwt {
    verifier: Verifier,
    header: HeaderName,
    forward: bool,
    identity: HeaderName,
    claims: Vec<(HeaderName, String)>,
    realm: String,
    scopes: String,
}

fn header_name(path: String, text: &str, invalid: &mut Invalid) -> HeaderName {
    text.parse().unwrap_or_else(|_| {
        invalid.push(path, format!("'{text}' is not a header name"));
        header::AUTHORIZATION
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))
}

/// The keys that `source` holds.
fn load(source: &KeySource, readers: &[u32]) -> Result<Keyset, String> {
    match source {
        KeySource::Secret(reference) => Keyset::secret(reference.read(readers)?.expose()),
        KeySource::Pem(path) => Keyset::pem(&read(path)?),
        KeySource::Jwks(path) => Keyset::jwks(&read(path)?),
    }
    .map_err(|e| e.to_string())
}

impl Config {
    fn algorithms(&self, invalid: &mut Invalid) -> Vec<Algorithm> {
        if self.algorithms.is_empty() {
            invalid.push("algorithms", "name at least one algorithm");
        }
        let mut known = Vec::new();
        for (i, name) in self.algorithms.iter().enumerate() {
            match name.parse() {
                Ok(algorithm) => known.push(algorithm),
                Err(_) => invalid.push(
                    format!("algorithms[{i}]"),
                    format!("'{name}' is not a signature algorithm that is accepted"),
                ),
            }
        }
        known
    }

    fn keyset(&self, readers: &[u32], invalid: &mut Invalid) -> Keyset {
        let mut keyset = Keyset::default();
        if self.keys.is_empty() {
            invalid.push("keys", "give at least one key");
        }
        for (i, source) in self.keys.iter().enumerate() {
            match load(source, readers) {
                Ok(more) => keyset = keyset.and(more),
                Err(message) => invalid.push(format!("keys[{i}]"), message),
            }
        }
        keyset
    }
}

impl Configure for Jwt {
    const NAME: &'static str = "jwt";
    const SAMPLES: [&'static str; 2] = [
        "{ algorithms: [HS256, RS256], keys: [{ secret: { file: SECRET_A } }, { pem: \
         tests/fixtures/keys/test-rsa.public.pem }, { jwks: tests/fixtures/leaves/jwks-a.json }], issuer: a, \
         audience: a, leeway: '5s', required_claims: { role: admin }, scopes: [read], subject_claim: uid, \
         require_subject: true, header: X-Token, forward: true, identity_header: X-Sub, claim_headers: { \
         X-Role: role }, cache: 5 }",
        "{ algorithms: [HS384, RS384], keys: [{ secret: { file: SECRET_B } }, { pem: \
         tests/fixtures/keys/test-rsa-other.public.pem }, { jwks: tests/fixtures/leaves/jwks-b.json }], \
         issuer: b, audience: b, leeway: '6s', required_claims: { role: user }, scopes: [write], \
         subject_claim: id, require_subject: false, header: X-Token2, forward: false, identity_header: X-Sub2, \
         claim_headers: { X-Role: roles }, cache: 6 }",
    ];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let algorithms = config.algorithms(&mut invalid);
        let keyset = config.keyset(&env.readers, &mut invalid);
        let header = header_name("header".into(), &config.header, &mut invalid);
        let identity = header_name("identity_header".into(), &config.identity_header, &mut invalid);
        let claims = config.claim_headers.iter();
        let claims = claims
            .map(|(name, claim)| (header_name(format!("claim_headers.{name}"), name, &mut invalid), claim.clone()))
            .collect();
        invalid.into_result()?;
        let required =
            config.required_claims.into_iter().map(|(name, value)| (name, (!value.is_null()).then_some(value)));
        let policy = Policy {
            issuers: config.issuer,
            audiences: config.audience,
            leeway: config.leeway.0,
            required: required.collect(),
            scopes: config.scopes.clone(),
            subject_claim: config.subject_claim,
            require_subject: config.require_subject,
            ..Policy::new(algorithms)
        };
        let mut verifier = Verifier::new(policy, keyset).map_err(|e| Invalid::at("keys", e.to_string()))?;
        if config.cache > 0 {
            verifier = verifier.with_cache(config.cache);
        }
        let (realm, scopes) = (env.route.replace(['"', '\\'], ""), config.scopes.join(" "));
        Ok(Self { verifier, header, forward: config.forward, identity, claims, realm, scopes })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

impl Jwt {
    fn token<'h>(&self, exchange: &'h Exchange<'_>) -> Option<&'h str> {
        let value = single(&exchange.request.headers, &self.header)?;
        if self.header == header::AUTHORIZATION { bearer(value) } else { value.to_str().ok() }
    }

    /// Claims that backends are told must be such that headers can carry them, as the subject must.
    fn can_be_told(&self, identity: &Identity) -> Result<(), JwtError> {
        let fits = |text: Cow<'_, str>| text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control());
        let told = self.claims.iter().filter_map(|(_, claim)| identity.claim(claim));
        if told.into_iter().all(fits) { Ok(()) } else { Err(JwtError::Malformed) }
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
        E::Malformed | E::Critical => Reason::TokenMalformed,
        E::Algorithm => Reason::TokenAlgorithm,
        E::UnknownKey => Reason::TokenKey,
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
        let Some(token) = self.token(exchange) else {
            let reply = Reply::unauthorized(self.challenge(None), "a bearer token is required");
            return Ok(reply.because(Reason::CredentialsMissing).into());
        };
        let authenticated = self.verifier.authenticate(token, exchange.now.unix);
        let identity = match authenticated.and_then(|identity| self.can_be_told(&identity).map(|()| identity)) {
            Ok(identity) => identity,
            Err(error) => {
                let reply = Reply::unauthorized(self.challenge(Some(&error)), error.to_string());
                return Ok(reply.because(reason(&error)).into());
            }
        };
        let allowed = self.verifier.allows(&identity);
        // Noted even when it is not allowed: the log names it.
        exchange.state.identities.note(identity);
        let Err(error) = allowed else { return Ok(Flow::Next) };
        let reply = Reply::problem(StatusCode::FORBIDDEN, error.to_string())
            .header(header::WWW_AUTHENTICATE, self.challenge(Some(&error)));
        Ok(reply.because(reason(&error)).into())
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        std::iter::once(&self.identity).chain(self.claims.iter().map(|(name, _)| name)).cloned().collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        if !self.forward {
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
            tell(name, identity.and_then(|identity| identity.claim(claim)).as_deref())?;
        }
        Ok(())
    }
}
