//! `hmac`: who may pass, by a signature over the request with a shared secret (RFC 9421, `hmac-sha256`).
//!
//! YAML: `hmac: { keys: [ { id: partner, secrets: [ { env: PARTNER_SECRET } ] } ] }`.
//! Covered are at least `components`, and `content-digest` (RFC 9530) of every request that has a body: it is compared with the
//! body before the backend has got all of it (`body`). Each nonce of a secret counts once in this process, whichever route it
//! comes to, and once for all gateways where `redis:` is set; it is noted only when all else is right, so that nobody else can use
//! it up.
//! With `simple_header` there is a second kind, for clients that are a shell: `keyid=partner,t=TIME,v1=HEX`.
//! What it does not do: other algorithms, several signatures on one request.

mod digest;
mod message;
mod refusal;
mod replay;
mod settings;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, StatusCode};
use pingora::http::RequestHeader;
use schemars::{Schema, SchemaGenerator};
use serde_json::Map;

use self::{
    digest::{BodyCheck, Mode},
    message::Message,
    refusal::SignatureRefusal,
    replay::{Replay, Secret},
    settings::{HmacConfig, Key},
};
use super::{field_names::FieldNames, identity_field};
use crate::{
    auth::{HttpSignature, Identity, Method, TimestampSignature},
    filter::{Body, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
};

/// The fields of a signature.
static SIGNATURE: HeaderName = HeaderName::from_static("signature");
static SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
static CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

#[derive(Debug)]
pub(crate) struct Hmac {
    keys: Vec<Key>,
    components: Vec<String>,
    /// Those of them that are fields, and the digest's.
    fields: Vec<HeaderName>,
    /// The field of the simple kind, where that is taken.
    simple: Option<HeaderName>,
    max_age: Duration,
    mode: Mode,
    replay: Replay,
    identity: HeaderName,
    forward: bool,
}

/// What a good MAC says.
struct Claim<'k> {
    key: &'k Key,
    secret: &'k Secret,
    created: i64,
    expires: Option<i64>,
    nonce: String,
    digest: Option<[u8; 32]>,
}

impl Configure for Hmac {
    const NAME: &'static str = "hmac";
    const SAMPLES: [&'static str; 2] = [
        "{ keys: [{ id: a, secrets: [{ file: SECRET_A }], owner: c }], components: ['@method', '@path'], max_age: 30s, \
         body: buffer, buffer: '1KiB', nonces: 10, sync: strict, on_store_down: deny, simple_header: X-Sign, identity_header: X-Signer, forward: true }",
        "{ keys: [{ id: b, secrets: [{ file: SECRET_B }], owner: d }], components: ['@authority', '@query'], max_age: 40s, \
         body: stream, buffer: '2KiB', nonces: 20, sync: local, on_store_down: local, simple_header: X-Sign2, identity_header: X-Signer2, forward: false }",
    ];
    type Config = HmacConfig;

    fn configure(config: HmacConfig, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let keys = config.keys(env, &mut invalid);
        config.validate(&mut invalid);
        let replay = config.replay(env, &mut invalid);
        let mut names = FieldNames::new(&mut invalid);
        for name in [&SIGNATURE, &SIGNATURE_INPUT, &CONTENT_DIGEST] {
            names.take(name, "every signature");
        }
        let simple = config.simple_header.as_ref().map(|name| names.credential("simple_header", name));
        let identity = names.told("identity_header", &config.identity_header);
        invalid.into_result()?;
        let mode = config.mode();
        let max_age = config.max_age.0;
        let HmacConfig { components, forward, .. } = config;
        let fields = components.iter().filter_map(|name| name.parse().ok()).chain([CONTENT_DIGEST.clone()]).collect();
        Ok(Self { keys, components, fields, simple, max_age, mode, replay, identity, forward })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<HmacConfig>(generator)
    }
}

impl Hmac {
    /// What the request's signature says, if it is good; it may have been used before.
    fn verify(&self, exchange: &Exchange<'_>) -> Result<Claim<'_>, SignatureRefusal> {
        let message = Message::new(exchange);
        let headers = &exchange.request.headers;
        let signed = headers.contains_key(&SIGNATURE) || headers.contains_key(&SIGNATURE_INPUT);
        let simple = self.simple.as_ref().filter(|name| headers.contains_key(*name));
        let claim = match (signed, simple) {
            (true, None) => self.by_message_signature(&message)?,
            (false, Some(name)) => self.by_timestamp(&message, name)?,
            (true, Some(_)) => {
                return Err(SignatureRefusal(Reason::SignatureMalformed, "there are signatures of two kinds"));
            }
            (false, None) => return Err(SignatureRefusal(Reason::CredentialsMissing, "a signature is required")),
        };
        self.in_time(&claim, exchange.now.unix)?;
        // Where there is no body, the backend has the whole request as soon as it has the head.
        if !message.has_body && claim.digest.is_some_and(|digest| digest != digest::of_nothing()) {
            return Err(SignatureRefusal(Reason::DigestWrong, "the body is not the one that was signed"));
        }
        Ok(claim)
    }

    fn key(&self, id: &str) -> Result<&Key, SignatureRefusal> {
        let key = self.keys.iter().find(|key| key.id == id);
        // The same as for a wrong secret: which keys there are is nobody's business.
        key.ok_or(SignatureRefusal(Reason::SignatureWrong, "the signature is not valid"))
    }

    /// The signature as RFC 9421 has it.
    fn by_message_signature(&self, message: &Message<'_>) -> Result<Claim<'_>, SignatureRefusal> {
        let (Some(input), Some(signature)) = (message.text(&SIGNATURE_INPUT), message.text(&SIGNATURE)) else {
            return Err(SignatureRefusal(
                Reason::SignatureMalformed,
                "Signature-Input and Signature are there once each",
            ));
        };
        let signature =
            HttpSignature::read(input, signature).map_err(|e| SignatureRefusal(Reason::SignatureMalformed, e.0))?;
        let covers_digest = signature.components.iter().any(|name| name == CONTENT_DIGEST.as_str());
        let lacks =
            self.components.iter().any(|name| !signature.components.contains(name) && message.components.has(name));
        if lacks || !covers_digest && message.has_body || message.spells_otherwise(&self.fields) {
            return Err(SignatureRefusal(Reason::SignatureIncomplete, "the signature does not cover all that it must"));
        }
        let key = self.key(&signature.key_id)?;
        let base = signature.base(|name| message.components.value(name));
        let base =
            base.ok_or(SignatureRefusal(Reason::SignatureMalformed, "a component that is covered is not there"))?;
        let secret = key.secrets.iter().find(|secret| signature.is_by(&secret.shared, &base));
        let secret = secret.ok_or(SignatureRefusal(Reason::SignatureWrong, "the signature is not valid"))?;
        let digest = covers_digest.then(|| digest_of(message)).transpose()?;
        let (created, expires) = (signature.created, signature.expires);
        Ok(Claim { key, secret, created, expires, nonce: signature.nonce, digest })
    }

    /// The one for shells: over the time, the method, the target and the digest of the body, a line each.
    fn by_timestamp(&self, message: &Message<'_>, name: &HeaderName) -> Result<Claim<'_>, SignatureRefusal> {
        let read = message.text(name).and_then(TimestampSignature::read);
        let signature = read.ok_or(SignatureRefusal(Reason::SignatureMalformed, "expected keyid=...,t=...,v1=..."))?;
        let covers_digest = message.components.has(CONTENT_DIGEST.as_str());
        if !covers_digest && message.has_body {
            return Err(SignatureRefusal(
                Reason::SignatureIncomplete,
                "a request with a body needs its Content-Digest",
            ));
        }
        let digest =
            if covers_digest { message.components.value(CONTENT_DIGEST.as_str()) } else { Some(String::new()) };
        let part = |name: &str| message.components.value(name);
        let (Some(digest), Some(method), Some(target)) = (digest, part("@method"), part("@request-target")) else {
            return Err(SignatureRefusal(
                Reason::SignatureMalformed,
                "Content-Digest has characters that no digest has",
            ));
        };
        let key = self.key(signature.key_id)?;
        let signed = format!("{}\n{method}\n{target}\n{digest}", signature.created);
        let secret = key.secrets.iter().find(|secret| secret.shared.verifies(signed.as_bytes(), &signature.mac));
        let secret = secret.ok_or(SignatureRefusal(Reason::SignatureWrong, "the signature is not valid"))?;
        let digest = covers_digest.then(|| digest_of(message)).transpose()?;
        // Without a nonce, the signature itself is what must not come twice. It does not cover the id of the key: nonces belong
        // to the secret.
        let nonce = format!("v1 {}", signature.hex);
        Ok(Claim { key, secret, created: signature.created, expires: None, nonce, digest })
    }

    fn in_time(&self, signature: &Claim<'_>, now: u64) -> Result<(), SignatureRefusal> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let age = i64::try_from(self.max_age.as_secs()).unwrap_or(i64::MAX);
        let over = signature.created.saturating_add(age) < now || signature.expires.is_some_and(|end| end <= now);
        if over {
            return Err(SignatureRefusal(Reason::SignatureExpired, "the signature is too old"));
        }
        if signature.created.saturating_sub(age) > now {
            return Err(SignatureRefusal(Reason::SignatureExpired, "the signature is from the future"));
        }
        Ok(())
    }
}

/// The digest that is covered.
fn digest_of(message: &Message<'_>) -> Result<[u8; 32], SignatureRefusal> {
    let read = message.text(&CONTENT_DIGEST).and_then(digest::read);
    read.ok_or(SignatureRefusal(Reason::SignatureMalformed, "Content-Digest has no sha-256, or several"))
}

#[async_trait]
impl Filter for Hmac {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let Claim { key, secret, nonce, digest, .. } = match self.verify(exchange) {
            Ok(claim) => claim,
            Err(refused) => return Ok(refused.reply().into()),
        };
        if let Err(refused) = self.replay.first(secret, &nonce, exchange.now.since_start).await {
            return Ok(refused.reply().into());
        }
        let identity = Identity {
            subject: key.owner.clone(),
            method: Method::Signature,
            scopes: Vec::new(),
            claims: Map::new(),
            key_id: Some(key.id.clone()),
        };
        exchange.state.identities.note(Arc::new(identity));
        exchange.state.extensions.insert(BodyCheck::new(digest.unwrap_or_else(digest::of_nothing), self.mode));
        Ok(Flow::Next)
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some([&SIGNATURE, &SIGNATURE_INPUT].into_iter().chain(&self.simple).cloned().collect())
    }

    fn sole_methods(&self) -> Vec<Method> {
        vec![Method::Signature]
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        vec![self.identity.clone()]
    }

    fn known_names(&self) -> Vec<(HeaderName, String)> {
        self.keys.iter().map(|key| (self.identity.clone(), key.owner.clone())).collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        if !self.forward {
            head.remove_header(&SIGNATURE);
            head.remove_header(&SIGNATURE_INPUT);
            if let Some(name) = &self.simple {
                head.remove_header(name);
            }
        }
        identity_field::tell(head, &self.identity, state, Method::Signature)
    }

    fn body(&self) -> Body {
        Body::Request
    }

    fn request_body(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Result<Flow, Fault> {
        let seen = state.body_seen;
        let Some(check) = state.extensions.get_mut::<BodyCheck>() else { return Ok(Flow::Next) };
        Ok(match check.pass(chunk, end, seen) {
            Ok(()) => Flow::Next,
            Err(digest::Bad::TooLarge(most)) => {
                let detail = format!("a signed body may have {most} bytes here");
                Reply::problem(StatusCode::PAYLOAD_TOO_LARGE, detail).because(Reason::BodyTooLarge).closing().into()
            }
            Err(digest::Bad::Other) => SignatureRefusal(Reason::DigestWrong, "the body is not the one that was signed")
                .reply()
                .closing()
                .into(),
        })
    }
}
