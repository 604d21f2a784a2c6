//! Signed JSON Web Tokens: a token, a policy and some keys go in, an identity comes out.
//!
//! The policy decides everything and the token nothing: which algorithms count, which keys there are, who may have issued it for
//! whom. A token that brings its own key (`jwk`, `jku`, `x5u`, `x5c`) is refused, so is `crit`, because we implement no
//! extension, and `alg: none` is simply no algorithm that a policy can name. The signature is checked before any
//! claim is read. Times are compared with the caller's `now`; the clock of the library that checks the signatures is not used.
//!
//! It does not decrypt (JWE), fetch keys, or ask an issuer whether a token was withdrawn; a token without `exp` is refused.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{
    Digest, Identity, KeyError, Keyset, Method, VerifiedTokens,
    claims::{Unique, Window, names_one_of, parties, require, scopes, subject},
    keyset::Key,
};
use crate::auth::jwt_error::JwtError;

/// How many keys are tried for a token that does not say which one signed it; more would multiply the work an attacker can cause.
const MOST_TRIED: usize = 16;

/// The longest token in bytes, unless the policy says otherwise.
const LONGEST: usize = 8 * 1024;

/// What a token must fulfil.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The algorithms that count. Never widened by what a token or a key says.
    pub algorithms: Vec<Algorithm>,
    /// Accepted `iss`; empty: not looked at.
    pub issuers: Vec<String>,
    /// Accepted `aud`, one of which must be named; empty: not looked at.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off, either way; whole seconds.
    pub leeway: Duration,
    /// Claims (dotted paths) that must be there; with a value: be it, or be a list that holds it.
    pub required: Vec<(String, Option<Value>)>,
    /// Scopes that must all be granted.
    pub scopes: Vec<String>,
    /// Roles of which one must be held; empty: not looked at.
    pub roles: Vec<String>,
    /// The claim (dotted path) that holds the roles: a list, or words.
    pub roles_claim: String,
    /// The longest token in bytes.
    pub max_len: usize,
    /// The claim (dotted path) that names the holder.
    pub subject_claim: String,
    /// Refuse tokens without it.
    pub require_subject: bool,
}

impl Policy {
    /// Any token with a good signature by one of `algorithms` that has not expired; 30 s of leeway and at most 8 KiB.
    pub fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        Self {
            algorithms: algorithms.into_iter().collect(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            required: Vec::new(),
            scopes: Vec::new(),
            roles: Vec::new(),
            roles_claim: "roles".to_owned(),
            max_len: LONGEST,
            subject_claim: "sub".to_owned(),
            require_subject: false,
        }
    }
}

/// Checks tokens against one policy and one set of keys; replaced as a whole when either changes.
pub struct Verifier {
    policy: Policy,
    keys: Vec<Key>,
    cache: Option<VerifiedTokens>,
}

impl Verifier {
    /// A verifier; fails when no key fits an algorithm of the policy.
    pub fn new(policy: Policy, keyset: Keyset) -> Result<Self, KeyError> {
        let keys = keyset.usable(&policy.algorithms)?;
        Ok(Self { policy, keys, cache: None })
    }

    /// A verifier of what keys are known so far: more may come, and there may be none.
    pub fn so_far(policy: Policy, keyset: Keyset) -> Self {
        let keys = keyset.usable_so_far(&policy.algorithms);
        Self { policy, keys, cache: None }
    }

    /// True when `token` names a key, and none of that name is known.
    pub fn lacks_key_of(&self, token: &str) -> bool {
        let header = token.split('.').next().and_then(|header| object(header).ok());
        let id = header.as_ref().and_then(|header| header.get("kid")).and_then(Value::as_str);
        id.is_some_and(|id| self.keys.iter().all(|key| key.id.as_deref() != Some(id)))
    }

    /// Remembers up to `capacity` good tokens, each for as long as it is valid and at most five minutes.
    #[must_use]
    pub fn with_cache(self, capacity: usize) -> Self {
        Self { cache: Some(VerifiedTokens::new(capacity)), ..self }
    }

    /// Who presented `token`, at `now_unix`, and that it is [allowed](Self::allows).
    pub fn verify(&self, token: &str, now_unix: u64) -> Result<Arc<Identity>, JwtError> {
        let identity = self.authenticate(token, now_unix)?;
        self.allows(&identity).map(|()| identity)
    }

    /// Whether a token that is valid has the claims and the scopes that the policy asks for.
    pub fn allows(&self, identity: &Identity) -> Result<(), JwtError> {
        for (path, wanted) in &self.policy.required {
            require(&identity.claims, path, wanted.as_ref())?;
        }
        let Policy { roles, roles_claim, .. } = &self.policy;
        if !roles.is_empty() && !identity.holds_one_of(roles_claim, roles) {
            return Err(JwtError::NotAllowed(roles_claim.clone()));
        }
        match self.policy.scopes.iter().find(|&scope| !identity.scopes.contains(scope)) {
            Some(lacking) => Err(JwtError::MissingScope(lacking.clone())),
            None => Ok(()),
        }
    }

    /// Who presented `token`, at `now_unix`, whatever it is allowed.
    pub fn authenticate(&self, token: &str, now_unix: u64) -> Result<Arc<Identity>, JwtError> {
        // Before it is hashed or copied anywhere.
        if token.len() > self.policy.max_len {
            return Err(JwtError::Malformed);
        }
        let Some(cache) = &self.cache else { return Ok(Arc::new(self.check(token, now_unix)?.0)) };
        let digest = Digest::of(token.as_bytes());
        if let Some(identity) = cache.get(&digest, now_unix) {
            return Ok(identity);
        }
        let (identity, window) = self.check(token, now_unix)?;
        let identity = Arc::new(identity);
        cache.insert(digest, Arc::clone(&identity), window, now_unix);
        Ok(identity)
    }

    /// The cache, if there is one; for its figures.
    pub fn cache(&self) -> Option<&VerifiedTokens> {
        self.cache.as_ref()
    }

    fn check(&self, token: &str, now: u64) -> Result<(Identity, Window), JwtError> {
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(JwtError::Malformed)?;
        // Five parts would be an encrypted token, and any other number none at all.
        if payload.contains('.') {
            return Err(JwtError::Malformed);
        }
        let header = object(header)?;
        // `b64` counts only where `crit` names it (RFC 7797, 6); what somebody else makes of it without that is not to be tried.
        if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
            return Err(JwtError::Critical);
        }
        if ["jwk", "jku", "x5c", "x5u"].iter().any(|name| header.contains_key(*name)) {
            return Err(JwtError::OwnKey);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(JwtError::Malformed),
        };
        let algorithm = self.algorithm(&header)?;
        let key = self.signer(algorithm, key_id, message, signature)?;
        let claims = object(payload)?;
        let (window, scopes) = self.claims(&claims, now)?;
        let subject = subject(&claims, &self.policy.subject_claim, self.policy.require_subject)?;
        let key_id = key.id.clone();
        Ok((Identity { subject, method: Method::Jwt, scopes, claims, key_id }, window))
    }

    fn algorithm(&self, header: &Map<String, Value>) -> Result<Algorithm, JwtError> {
        let name = header.get("alg").and_then(Value::as_str).ok_or(JwtError::Malformed)?;
        let algorithm = name.parse().map_err(|_| JwtError::Algorithm)?;
        if self.policy.algorithms.contains(&algorithm) { Ok(algorithm) } else { Err(JwtError::Algorithm) }
    }

    /// The key that signed the message.
    ///
    /// With a `kid`, the keys of that name; when none has it, the keys that have no name, as a PEM file or a secret from the
    /// configuration. Without a `kid`, all.
    fn signer(&self, algorithm: Algorithm, id: Option<&str>, message: &str, signature: &str) -> Result<&Key, JwtError> {
        let named = id.is_some_and(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)));
        let candidate = |key: &&Key| match id {
            None => true,
            Some(_) if named => key.id.as_deref() == id,
            Some(_) => key.id.is_none(),
        };
        let mut fitting = self.keys.iter().filter(candidate).filter(|key| key.fits(algorithm));
        let mut error = JwtError::UnknownKey;
        for key in fitting.by_ref().take(MOST_TRIED) {
            match crypto::verify(signature, message.as_bytes(), &key.verifying, algorithm) {
                Ok(true) => return Ok(key),
                Err(problem) if matches!(problem.kind(), ErrorKind::Base64(_)) => return Err(JwtError::Malformed),
                Ok(false) | Err(_) => error = JwtError::Signature,
            }
        }
        // It may be one of those that were not tried.
        Err(if fitting.next().is_some() { JwtError::NoKeyNamed } else { error })
    }

    fn claims(&self, claims: &Map<String, Value>, now: u64) -> Result<(Window, Vec<String>), JwtError> {
        let policy = &self.policy;
        let window = Window::of(claims, policy.leeway)?;
        window.check(now)?;
        parties(claims)?;
        if !policy.issuers.is_empty() && !names_one_of(claims, "iss", &policy.issuers)? {
            return Err(JwtError::Issuer);
        }
        if !policy.audiences.is_empty() && !names_one_of(claims, "aud", &policy.audiences)? {
            return Err(JwtError::Audience);
        }
        Ok((window, scopes(claims)))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("policy", &self.policy)
            .field("keys", &self.keys.len())
            .field("cache", &self.cache)
            .finish()
    }
}

/// What `token` says of who has issued it, which nobody has verified: good to choose whose keys to try, and for nothing else.
pub fn unverified_issuer(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1).filter(|_| token.len() <= LONGEST)?;
    match object(payload).ok()?.remove("iss")? {
        Value::String(issuer) => Some(issuer),
        _ => None,
    }
}

/// A part of a token. The decoder takes one spelling only (no padding, no stray bits), so that one token is one text.
fn object(part: &str) -> Result<Map<String, Value>, JwtError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice::<Unique>(&json).map(|unique| unique.0).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    macro_rules! pem {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/fixtures/keys/", $name, ".pem"))
        };
    }

    const NOW: u64 = 1_700_000_000;
    const SECRET: &[u8; 64] = &[b's'; 64];

    fn claims() -> Value {
        json!({ "sub": "alice", "iss": "https://issuer", "aud": "api", "exp": NOW + 60, "iat": NOW, "scope": "read write" })
    }

    /// The usual claims with some replaced; null takes one away.
    fn with(changes: &Value) -> Value {
        let mut claims = claims();
        let map = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                map.remove(name)
            } else {
                map.insert(name.clone(), value.clone())
            };
        }
        claims
    }

    /// Any header and payload text, signed.
    fn sign(header: &str, payload: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn hs256(header: &Value, payload: &Value) -> String {
        sign(&header.to_string(), &payload.to_string(), Algorithm::HS256, &EncodingKey::from_secret(SECRET))
    }

    fn token(payload: &Value) -> String {
        hs256(&json!({ "alg": "HS256" }), payload)
    }

    fn policy() -> Policy {
        Policy { leeway: Duration::ZERO, ..Policy::new([Algorithm::HS256]) }
    }

    fn verifier(policy: Policy) -> Verifier {
        Verifier::new(policy, Keyset::secret(SECRET).unwrap()).unwrap()
    }

    fn refusal(policy: Policy, changes: &Value) -> Option<JwtError> {
        verifier(policy).verify(&token(&with(changes)), NOW).err()
    }

    /// Every algorithm with its private key and the set that verifies it.
    fn algorithms() -> Vec<(Algorithm, EncodingKey, Keyset)> {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let rsa = || EncodingKey::from_rsa_pem(pem!("test-rsa.private")).unwrap();
        let public = |pem: &[u8]| Keyset::pem(pem).unwrap();
        let mut all = Vec::new();
        for algorithm in [HS256, HS384, HS512] {
            all.push((algorithm, EncodingKey::from_secret(SECRET), Keyset::secret(SECRET).unwrap()));
        }
        for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
            all.push((algorithm, rsa(), public(pem!("test-rsa.public"))));
        }
        let ec256 = EncodingKey::from_ec_pem(pem!("test-ec256.private")).unwrap();
        let ec384 = EncodingKey::from_ec_pem(pem!("test-ec384.private")).unwrap();
        let ed = EncodingKey::from_ed_pem(pem!("test-ed25519.private")).unwrap();
        all.push((RS256, rsa(), public(pem!("test-rsa.cert"))));
        all.push((RS256, rsa(), public(pem!("test-rsa.pkcs1"))));
        all.push((ES256, ec256, public(pem!("test-ec256.public"))));
        all.push((ES384, ec384, public(pem!("test-ec384.public"))));
        all.push((EdDSA, ed, public(pem!("test-ed25519.public"))));
        all
    }

    #[test]
    fn every_algorithm_verifies_its_own_tokens_and_no_others() {
        let all = algorithms();
        let header = |algorithm: Algorithm| json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" }).to_string();
        for (algorithm, signing, keys) in &all {
            let good = sign(&header(*algorithm), &claims().to_string(), *algorithm, signing);
            let verifier = Verifier::new(Policy::new([*algorithm]), keys.clone()).unwrap();
            assert_eq!(verifier.verify(&good, NOW).unwrap().subject, "alice", "{algorithm:?}");
            let (message, signature) = good.rsplit_once('.').unwrap();
            let (head, _) = message.split_once('.').unwrap();
            let forged =
                format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(with(&json!({ "sub": "root" })).to_string()));
            assert_eq!(verifier.verify(&forged, NOW), Err(JwtError::Signature), "{algorithm:?}");
            for tail in ["", "AAAA", &signature[4..]] {
                assert_eq!(
                    verifier.verify(&format!("{message}.{tail}"), NOW),
                    Err(JwtError::Signature),
                    "{algorithm:?}"
                );
            }
            for (other, signing, _) in all.iter().filter(|(other, ..)| other != algorithm) {
                let foreign = sign(&header(*other), &claims().to_string(), *other, signing);
                assert_eq!(verifier.verify(&foreign, NOW), Err(JwtError::Algorithm), "{other:?} as {algorithm:?}");
                let relabelled = sign(&header(*algorithm), &claims().to_string(), *other, signing);
                assert_eq!(verifier.verify(&relabelled, NOW), Err(JwtError::Signature), "{other:?} as {algorithm:?}");
            }
        }
    }

    #[test]
    fn a_public_key_is_never_a_secret() {
        let pem = pem!("test-rsa.public");
        let forged =
            sign(r#"{"alg":"HS256"}"#, &claims().to_string(), Algorithm::HS256, &EncodingKey::from_secret(pem));
        let rs_only = Verifier::new(Policy::new([Algorithm::RS256]), Keyset::pem(pem).unwrap()).unwrap();
        assert_eq!(rs_only.verify(&forged, NOW), Err(JwtError::Algorithm));
        // Even a policy that mixes both kinds gives the public key no second role.
        let mixed = Policy::new([Algorithm::RS256, Algorithm::HS256]);
        let both = Verifier::new(mixed, Keyset::pem(pem).unwrap()).unwrap();
        assert_eq!(both.verify(&forged, NOW), Err(JwtError::UnknownKey));
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        for alg in ["none", "None", "NONE", "", "hs256", "HS257"] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
            let unsigned = format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims().to_string()));
            assert_eq!(verifier(policy()).verify(&unsigned, NOW), Err(JwtError::Algorithm), "{alg}");
        }
        let no_alg = hs256(&json!({ "typ": "JWT" }), &claims());
        assert_eq!(verifier(policy()).verify(&no_alg, NOW), Err(JwtError::Malformed));
    }

    #[test]
    fn what_is_not_a_token_is_malformed() {
        let good = token(&claims());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let twice = sign(r#"{"alg":"HS256","alg":"HS256"}"#, "{}", Algorithm::HS256, &EncodingKey::from_secret(SECRET));
        let list = hs256(&json!({ "alg": "HS256" }), &json!([]));
        let kid = hs256(&json!({ "alg": "HS256", "kid": 7 }), &claims());
        let doubled = claims().to_string().replace("\"sub\"", "\"sub\":\"root\",\"sub\"");
        let doubled = sign(r#"{"alg":"HS256"}"#, &doubled, Algorithm::HS256, &EncodingKey::from_secret(SECRET));
        let long = token(&with(&json!({ "pad": "x".repeat(8 * 1024) })));
        for wrong in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            message,
            &format!("{good}."),
            &format!(".{good}"),
            &format!("{good}.x.y"),
            &format!("{good}="),
            &format!("{message}.{signature}\n"),
            &format!(" {good}"),
            &twice,
            &list,
            &kid,
            &doubled,
            &long,
        ] {
            assert_eq!(verifier(policy()).verify(wrong, NOW), Err(JwtError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn another_spelling_of_a_signature_is_refused() {
        let good = token(&claims());
        // 32 bytes are 43 digits, whose last has two bits to spare; a lax decoder takes four spellings.
        let last = good.chars().last().unwrap();
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = digits.chars().nth(digits.find(last).unwrap() + 1).unwrap();
        let respelled = format!("{}{next}", &good[..good.len() - 1]);
        assert_eq!(verifier(policy()).verify(&respelled, NOW), Err(JwtError::Malformed));
    }

    #[test]
    fn keys_that_a_token_brings_along_and_extensions_are_refused() {
        for (name, value) in [
            ("jku", json!("https://evil")),
            ("x5u", json!("https://evil")),
            ("x5c", json!(["AAAA"])),
            ("jwk", json!({ "kty": "oct", "k": "AAAA" })),
        ] {
            let brought = hs256(&json!({ "alg": "HS256", name: value }), &claims());
            assert_eq!(verifier(policy()).verify(&brought, NOW), Err(JwtError::OwnKey), "{name}");
        }
        for crit in [json!(["b64"]), json!([]), json!(null)] {
            let critical = hs256(&json!({ "alg": "HS256", "crit": crit }), &claims());
            assert_eq!(verifier(policy()).verify(&critical, NOW), Err(JwtError::Critical));
        }
    }

    #[test]
    fn time_is_the_callers() {
        let times = |leeway, changes, now| {
            let policy = Policy { leeway: Duration::from_secs(leeway), ..policy() };
            verifier(policy).verify(&token(&with(&changes)), now).err()
        };
        let exp = || json!({ "exp": NOW });
        assert_eq!(times(0, exp(), NOW - 1), Some(JwtError::NotYet), "iat is NOW");
        assert_eq!(times(1, exp(), NOW - 1), None);
        assert_eq!(times(0, exp(), NOW), Some(JwtError::Expired));
        assert_eq!(times(5, exp(), NOW + 4), None);
        assert_eq!(times(5, exp(), NOW + 5), Some(JwtError::Expired));
        assert_eq!(times(0, json!({ "nbf": NOW + 10 }), NOW + 9), Some(JwtError::NotYet));
        assert_eq!(times(0, json!({ "nbf": NOW + 10 }), NOW + 10), None);
        assert_eq!(times(3, json!({ "nbf": NOW + 10 }), NOW + 7), None);
        assert_eq!(times(0, json!({ "exp": 1_700_000_000.5 }), NOW), None);
        assert_eq!(times(0, json!({ "exp": null }), NOW), Some(JwtError::MissingClaim("exp".to_owned())));
        assert_eq!(times(0, json!({ "exp": "never" }), NOW), Some(JwtError::Malformed));
    }

    #[test]
    fn issuer_and_audience_are_checked_when_configured() {
        let issuers = |changes| {
            refusal(Policy { issuers: vec!["https://issuer".to_owned(), "b".to_owned()], ..policy() }, &changes)
        };
        assert_eq!(issuers(json!({})), None);
        assert_eq!(issuers(json!({ "iss": "b" })), None);
        assert_eq!(issuers(json!({ "iss": "https://issuer/" })), Some(JwtError::Issuer));
        assert_eq!(issuers(json!({ "iss": ["b"] })), Some(JwtError::Issuer));
        assert_eq!(issuers(json!({ "iss": null })), Some(JwtError::MissingClaim("iss".to_owned())));
        let audiences = |changes| refusal(Policy { audiences: vec!["api".to_owned()], ..policy() }, &changes);
        assert_eq!(audiences(json!({})), None);
        assert_eq!(audiences(json!({ "aud": ["web", "api"] })), None);
        assert_eq!(audiences(json!({ "aud": ["web"] })), Some(JwtError::Audience));
        assert_eq!(audiences(json!({ "aud": [] })), Some(JwtError::Audience));
        assert_eq!(audiences(json!({ "aud": 7 })), Some(JwtError::Audience));
        assert_eq!(audiences(json!({ "aud": null })), Some(JwtError::MissingClaim("aud".to_owned())));
        assert_eq!(refusal(policy(), &json!({ "iss": null, "aud": null })), None);
    }

    #[test]
    fn claims_and_scopes_can_be_demanded() {
        let required = |path: &str, wanted| {
            refusal(Policy { required: vec![(path.to_owned(), wanted)], ..policy() }, &json!({ "tier": "gold" }))
        };
        assert_eq!(required("tier", None), None);
        assert_eq!(required("tier", Some(json!("gold"))), None);
        assert_eq!(required("tier", Some(json!("tin"))), Some(JwtError::NotAllowed("tier".to_owned())));
        assert_eq!(required("plan", None), Some(JwtError::NotAllowed("plan".to_owned())));
        let scopes =
            |scope: &str| refusal(Policy { scopes: vec!["read".to_owned(), scope.to_owned()], ..policy() }, &json!({}));
        assert_eq!(scopes("write"), None);
        assert_eq!(scopes("admin"), Some(JwtError::MissingScope("admin".to_owned())));
        assert_eq!(scopes("admin").unwrap().code(), "insufficient_scope");
        assert_eq!(JwtError::Expired.code(), "invalid_token");
    }

    #[test]
    fn the_holder_is_named_by_the_chosen_claim() {
        let named = |path: &str, required, changes| {
            let policy = Policy { subject_claim: path.to_owned(), require_subject: required, ..policy() };
            verifier(policy).verify(&token(&with(&changes)), NOW).map(|identity| identity.subject.clone())
        };
        let subject = |path: &str, changes| named(path, true, changes);
        assert_eq!(named("sub", false, json!({ "sub": null })), Ok(String::new()), "a token need not name anybody");
        assert_eq!(subject("sub", json!({})), Ok("alice".to_owned()));
        assert_eq!(subject("user.id", json!({ "user": { "id": 7 } })), Ok("7".to_owned()));
        assert_eq!(subject("sub", json!({ "sub": null })), Err(JwtError::MissingClaim("sub".to_owned())));
        for other in ["", " alice", "alice ", "\u{a0}alice", "al\nice"] {
            assert_eq!(
                subject("sub", json!({ "sub": other })),
                Err(JwtError::ClaimMismatch("sub".to_owned())),
                "{other}"
            );
        }
    }

    #[test]
    fn the_key_is_found_by_its_id() {
        let secret = |byte: u8| Keyset::secret(&[byte; 32]).unwrap();
        let keys = secret(b'1').named("one").and(secret(b'2').named("two"));
        let verify = |keys: &Keyset, byte: u8, kid: Option<&str>| {
            let header = kid.map_or_else(|| json!({ "alg": "HS256" }), |kid| json!({ "alg": "HS256", "kid": kid }));
            let key = EncodingKey::from_secret(&[byte; 32]);
            let token = sign(&header.to_string(), &claims().to_string(), Algorithm::HS256, &key);
            Verifier::new(policy(), keys.clone()).unwrap().verify(&token, NOW).map(|identity| identity.key_id.clone())
        };
        assert_eq!(verify(&keys, b'2', Some("two")), Ok(Some("two".to_owned())));
        assert_eq!(verify(&keys, b'2', Some("one")), Err(JwtError::Signature));
        assert_eq!(verify(&keys, b'2', Some("three")), Err(JwtError::UnknownKey));
        assert_eq!(verify(&keys, b'2', None), Ok(Some("two".to_owned())));
        assert_eq!(verify(&keys, b'3', None), Err(JwtError::Signature));
        assert_eq!(verify(&secret(b'1'), b'1', Some("any")), Ok(None));
        let many = (0..20).fold(Keyset::default(), |keys, byte| keys.and(secret(byte)));
        assert_eq!(verify(&many, 15, None), Ok(None));
        assert_eq!(verify(&many, 16, None), Err(JwtError::NoKeyNamed), "only so many keys are tried");
    }

    #[test]
    fn a_jwk_set_verifies() {
        let decoding = jsonwebtoken::DecodingKey::from_ec_pem(pem!("test-ec256.public")).unwrap();
        let point = decoding.try_get_as_bytes().unwrap();
        let jwk = |kid: &str, alg: &str| {
            let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
            json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": alg }] })
                .to_string()
        };
        let key = EncodingKey::from_ec_pem(pem!("test-ec256.private")).unwrap();
        let token = sign(r#"{"alg":"ES256","kid":"1"}"#, &claims().to_string(), Algorithm::ES256, &key);
        let verifier =
            |jwks: String| Verifier::new(Policy::new([Algorithm::ES256]), Keyset::jwks(jwks.as_bytes()).unwrap());
        assert!(verifier(jwk("1", "ES256")).unwrap().verify(&token, NOW).is_ok());
        assert_eq!(verifier(jwk("2", "ES256")).unwrap().verify(&token, NOW), Err(JwtError::UnknownKey));
        assert_eq!(verifier(jwk("1", "ES384")).err(), Some(KeyError::NoUsableKey));
    }

    #[test]
    fn a_cached_token_still_ends_in_time() {
        let verifier = verifier(policy()).with_cache(10);
        let good = token(&claims());
        let first = verifier.verify(&good, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &verifier.verify(&good, NOW + 59).unwrap()));
        assert_eq!(verifier.verify(&good, NOW + 60), Err(JwtError::Expired));
        assert_eq!(verifier.verify(&good, NOW - 1), Err(JwtError::NotYet));
        assert_eq!(verifier.verify(&format!("{}A", &good[..good.len() - 1]), NOW).is_ok(), good.ends_with('A'));
        assert_eq!(verifier.cache().map(VerifiedTokens::len), Some(1), "refusals are not kept");
    }

    #[test]
    fn nothing_tells_the_token_or_the_key() {
        let verifier = verifier(policy()).with_cache(1);
        verifier.verify(&token(&claims()), NOW).unwrap();
        let told = format!("{verifier:?}");
        assert!(!told.contains("sss") && !told.contains("alice"), "{told}");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, text: String) {
            let verifier = verifier(policy()).with_cache(1);
            prop_assert!(verifier.verify(&String::from_utf8_lossy(&bytes), NOW).is_err());
            prop_assert!(verifier.verify(&text, NOW).is_err());
            let parts = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert!(verifier.verify(&parts, NOW).is_err());
            let _ = Keyset::jwks(&bytes);
            let _ = Keyset::pem(&bytes);
        }

        #[test]
        fn any_change_of_a_good_token_is_refused(place: prop::sample::Index, byte in b' '..127u8) {
            let good = token(&claims());
            let place = place.index(good.len());
            let mut changed = good.clone().into_bytes();
            changed[place] = byte;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(verifier(policy()).verify(&changed, NOW).is_ok(), changed == good);
        }

        #[test]
        fn signed_garbage_never_panics(payload in r#"\{("(exp|nbf|iat|sub|aud|scope)":(-?[0-9]{1,20}(\.[0-9]{1,3})?|"[a-z ]{0,5}"|null|\[\]),?){0,5}\}"#) {
            let _ = verifier(policy()).verify(&sign(r#"{"alg":"HS256"}"#, &payload, Algorithm::HS256, &EncodingKey::from_secret(SECRET)), NOW);
        }
    }
}
