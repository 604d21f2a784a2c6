//! The keys that token signatures are checked with: a shared secret, a PEM file, or a JWK Set (RFC 7517).
//!
//! What a key is for is decided here, when it is loaded, from the key itself: an RSA key can never be taken for the secret of an
//! HMAC, nor a P-384 point for a P-256 one. Weak keys are refused, private keys too: a gateway only verifies.
//!
//! In a JWK Set, keys that are not for verifying signatures, or of a kind we do not know, are skipped, as the RFC asks; issuers
//! publish both. It does not fetch anything, and a certificate is only the wrapping of a key: its dates and issuer are not checked.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto::aws_lc};
use serde::Deserialize;

/// The most keys of a JWK Set. Real ones have two to ten keys; beyond this somebody answers with something else.
const MOST_KEYS: usize = 64;
/// The least bytes of a shared secret: RFC 7518, 3.2 asks for as many as the hash has, and 256 bits is the least of these.
const SECRET_BYTES: usize = 32;
/// The RSA sizes that the verification accepts, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why no keys could be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a PEM file with an RSA, EC (P-256, P-384) or Ed25519 public key or certificate.
    Pem,
    /// A PEM file was given as a shared secret.
    PemAsSecret,
    /// A private key was given where a public one belongs.
    PrivateKey,
    /// The secret has only this many bytes.
    WeakSecret(usize),
    /// The RSA key has this many bits.
    RsaSize(usize),
    /// Not a JWK Set; the reason never quotes it.
    Jwks(&'static str),
    /// The policy names no algorithm.
    NoAlgorithm,
    /// No key can be used with any algorithm of the policy.
    NoUsableKey,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem => f.write_str("expected a PEM public key or certificate: RSA, EC (P-256, P-384) or Ed25519"),
            Self::PemAsSecret => f.write_str("a PEM file is not a shared secret"),
            Self::PrivateKey => f.write_str("a private key does not belong here; give its public key"),
            Self::WeakSecret(bytes) => write!(f, "the secret has {bytes} bytes, fewer than {SECRET_BYTES}"),
            Self::RsaSize(bits) => {
                write!(f, "the RSA key has {bits} bits, not {} to {}", RSA_BITS.start(), RSA_BITS.end())
            }
            Self::Jwks(reason) => write!(f, "not a usable JWK Set: {reason}"),
            Self::NoAlgorithm => f.write_str("no algorithm is allowed"),
            Self::NoUsableKey => f.write_str("no key fits an allowed algorithm"),
        }
    }
}

impl std::error::Error for KeyError {}

/// What a key is, as far as algorithms care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret => algorithm.family() == AlgorithmFamily::Hmac,
            Self::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Rsa => "RSA",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// What may be told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its `kid`.
    pub id: Option<String>,
    /// What kind of key it is.
    pub kind: &'static str,
    /// The one algorithm that its publisher wants it to be used with.
    pub only: Option<Algorithm>,
}

/// One key, with what its publisher says that it is for.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) verifying: DecodingKey,
    kind: Kind,
    only: Option<Algorithm>,
}

impl Key {
    /// Whether it may check signatures of `algorithm`.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    fn secret(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < SECRET_BYTES {
            return Err(KeyError::WeakSecret(bytes.len()));
        }
        Ok(Self { id: None, verifying: DecodingKey::from_secret(bytes), kind: Kind::Secret, only: None })
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (trim(modulus), trim(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let verifying = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Ok(Self { id: None, verifying, kind: Kind::Rsa, only: None })
    }

    /// `point` is uncompressed: 4, then both coordinates in full.
    fn ec(point: &[u8]) -> Option<Self> {
        let kind = match (point.len(), point.first()) {
            (65, Some(4)) => Kind::P256,
            (97, Some(4)) => Kind::P384,
            _ => return None,
        };
        Some(Self { id: None, verifying: DecodingKey::from_ec_der(point), kind, only: None })
    }

    fn ed25519(point: &[u8]) -> Option<Self> {
        let verifying = DecodingKey::from_ed_der(point);
        (point.len() == 32).then_some(Self { id: None, verifying, kind: Kind::Ed25519, only: None })
    }
}

/// Some keys, and how tokens refer to them. `Debug` shows how many there are.
#[derive(Clone, Default)]
pub struct Keyset(Vec<Key>);

impl Keyset {
    /// The most bytes of a JWK Set.
    pub const MOST_BYTES: usize = 256 * 1024;

    /// A secret that the issuer shares with us, for the HS algorithms: at least 32 bytes.
    pub fn secret(bytes: &[u8]) -> Result<Self, KeyError> {
        // The classic confusion attack begins with this mistake; our keys are typed, but the mistake is still one.
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(KeyError::PemAsSecret);
        }
        Ok(Self(vec![Key::secret(bytes)?]))
    }

    /// The public key, or the key of the certificate, at the beginning of a PEM file.
    pub fn pem(pem: &[u8]) -> Result<Self, KeyError> {
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        let bytes = |key: &DecodingKey| key.try_get_as_bytes().map(<[u8]>::to_vec).map_err(|_| KeyError::Pem);
        let key = if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            Key::ec(&bytes(&key)?).ok_or(KeyError::Pem)?
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            Key::ed25519(&bytes(&key)?).ok_or(KeyError::Pem)?
        } else {
            let key = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::Pem)?;
            let parts = aws_lc::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
            let (modulus, exponent) = parts(&bytes(&key)?).map_err(|_| KeyError::Pem)?;
            Key::rsa(&modulus, &exponent)?
        };
        Ok(Self(vec![key]))
    }

    /// The same of a set that an issuer publishes: secrets in it are left out, for what is published is none.
    pub fn published(json: &[u8]) -> Result<Self, KeyError> {
        let mut keyset = Self::jwks(json)?;
        keyset.0.retain(|key| key.kind != Kind::Secret);
        if keyset.is_empty() { Err(KeyError::Jwks("no key in it can check a signature")) } else { Ok(keyset) }
    }

    /// The keys of a JWK Set that can check signatures; at most 64 keys in 256 KiB.
    pub fn jwks(json: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        if json.len() > Self::MOST_BYTES {
            return Err(KeyError::Jwks("more than 256 KiB"));
        }
        let Set { keys } =
            serde_json::from_slice(json).map_err(|_| KeyError::Jwks("expected an object with a list 'keys'"))?;
        if keys.len() > MOST_KEYS {
            return Err(KeyError::Jwks("more than 64 keys"));
        }
        Ok(Self(keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key()).collect()))
    }

    /// Names the keys that have no id yet: a token with this `kid` is checked with them.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        for key in &mut self.0 {
            key.id.get_or_insert_with(|| id.to_owned());
        }
        self
    }

    /// Both sets together, for instance while a key is being replaced.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// What each key is, and nothing of the key itself.
    pub fn describe(&self) -> Vec<KeyInfo> {
        let info = |key: &Key| KeyInfo { id: key.id.clone(), kind: key.kind.name(), only: key.only };
        self.0.iter().map(info).collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same when there may be none yet.
    pub(super) fn usable_so_far(mut self, algorithms: &[Algorithm]) -> Vec<Key> {
        self.0.retain(|key| algorithms.iter().any(|&algorithm| key.fits(algorithm)));
        self.0
    }

    /// The keys that fit one of `algorithms`. So a secret in a JWK Set counts only where the policy allows an HS algorithm.
    pub(super) fn usable(self, algorithms: &[Algorithm]) -> Result<Vec<Key>, KeyError> {
        if algorithms.is_empty() {
            return Err(KeyError::NoAlgorithm);
        }
        let keys = self.usable_so_far(algorithms);
        if keys.is_empty() { Err(KeyError::NoUsableKey) } else { Ok(keys) }
    }
}

impl fmt::Debug for Keyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyset({} keys)", self.len())
    }
}

/// A JSON Web Key, as far as we read it. Certificates in it (`x5c`, `x5u`) are ignored: nothing is trusted or fetched by them.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Jwk {
    fn key(self) -> Option<Key> {
        let verifies = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !verifies {
            return None;
        }
        // An `alg` that we do not know means a use that we do not know.
        let only = self.alg.as_deref().map(str::parse).transpose().ok()?;
        let mut key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Key::secret(&bytes(self.k.as_ref())?).ok()?,
            ("RSA", _) => Key::rsa(&bytes(self.n.as_ref())?, &bytes(self.e.as_ref())?).ok()?,
            ("EC", Some("P-256")) => Key::ec(&self.point(32)?)?,
            ("EC", Some("P-384")) => Key::ec(&self.point(48)?)?,
            ("OKP", Some("Ed25519")) => Key::ed25519(&bytes(self.x.as_ref())?)?,
            _ => return None,
        };
        if only.is_some_and(|only| !key.kind.fits(only)) {
            return None;
        }
        (key.id, key.only) = (self.kid, only);
        Some(key)
    }

    fn point(&self, size: usize) -> Option<Vec<u8>> {
        let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
        (x.len() == size && y.len() == size).then(|| [&[4], &*x, &*y].concat())
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}

fn trim(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&byte| byte == 0).count()..]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    macro_rules! pem {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/fixtures/keys/", $name, ".pem"))
        };
    }

    fn kinds(keys: &Keyset) -> Vec<Kind> {
        keys.0.iter().map(|key| key.kind).collect()
    }

    fn jwks(keys: &serde_json::Value) -> Vec<Kind> {
        kinds(&Keyset::jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_pem_file_says_what_its_key_is() {
        let kind = |pem: &[u8]| Keyset::pem(pem).map(|keys| kinds(&keys)[0]);
        assert_eq!(kind(pem!("test-rsa.public")), Ok(Kind::Rsa));
        assert_eq!(kind(pem!("test-rsa.pkcs1")), Ok(Kind::Rsa));
        assert_eq!(kind(pem!("test-rsa.cert")), Ok(Kind::Rsa));
        assert_eq!(kind(pem!("test-ec256.public")), Ok(Kind::P256));
        assert_eq!(kind(pem!("test-ec384.public")), Ok(Kind::P384));
        assert_eq!(kind(pem!("test-ed25519.public")), Ok(Kind::Ed25519));
    }

    #[test]
    fn weak_or_misplaced_keys_are_refused() {
        assert_eq!(Keyset::pem(pem!("test-rsa-weak.public")).err(), Some(KeyError::RsaSize(1024)));
        assert_eq!(Keyset::pem(pem!("test-rsa.private")).err(), Some(KeyError::PrivateKey));
        assert_eq!(Keyset::pem(b"hello").err(), Some(KeyError::Pem));
        assert_eq!(Keyset::secret(&[7; 31]).err(), Some(KeyError::WeakSecret(31)));
        assert_eq!(Keyset::secret(pem!("test-rsa.public")).err(), Some(KeyError::PemAsSecret));
        assert_eq!(Keyset::jwks(b"[]").err().map(|e| e.to_string().contains("keys")), Some(true));
        assert_eq!(Keyset::jwks(&vec![b' '; Keyset::MOST_BYTES + 1]).err(), Some(KeyError::Jwks("more than 256 KiB")));
        let many = json!({ "keys": vec![json!({}); 65] }).to_string();
        assert_eq!(Keyset::jwks(many.as_bytes()).err(), Some(KeyError::Jwks("more than 64 keys")));
    }

    #[test]
    fn a_jwk_is_used_only_for_what_it_is_published_for() {
        let ed = |more: serde_json::Value| {
            let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([7; 32]) });
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            jwks(&json!([key]))
        };
        for good in [
            json!({}),
            json!({"use": "sig"}),
            json!({"key_ops": ["verify"]}),
            json!({"alg": "EdDSA"}),
            json!({"kid": "1"}),
        ] {
            assert_eq!(ed(good.clone()), [Kind::Ed25519], "{good}");
        }
        for bad in [
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"alg": "ES256"}),
            json!({"alg": "none"}),
            json!({"alg": 7}),
            json!({"crv": "X25519"}),
            json!({"x": "AAAA"}),
            json!({"kty": "EC"}),
        ] {
            assert_eq!(ed(bad.clone()), [], "{bad}");
        }
    }

    #[test]
    fn a_jwk_set_is_read_key_by_key() {
        let b64 = |size: usize| URL_SAFE_NO_PAD.encode(vec![0x81; size]);
        let found = jwks(&json!([
            { "kty": "RSA", "n": b64(256), "e": "AQAB" },
            { "kty": "RSA", "n": b64(128), "e": "AQAB" },
            { "kty": "EC", "crv": "P-256", "x": b64(32), "y": b64(32) },
            { "kty": "EC", "crv": "P-256", "x": b64(31), "y": b64(33) },
            { "kty": "EC", "crv": "P-384", "x": b64(48), "y": b64(48) },
            { "kty": "EC", "crv": "secp256k1", "x": b64(32), "y": b64(32) },
            { "kty": "oct", "k": b64(32) },
            { "kty": "oct", "k": b64(16) },
            { "kty": "future" }, {}, 7, "x", null,
        ]));
        assert_eq!(found, [Kind::Rsa, Kind::P256, Kind::P384, Kind::Secret]);
    }

    #[test]
    fn keys_that_fit_no_algorithm_are_dropped() {
        let all = || Keyset::secret(&[7; 32]).unwrap().and(Keyset::pem(pem!("test-rsa.public")).unwrap());
        assert_eq!(all().usable(&[Algorithm::RS256]).unwrap().len(), 1);
        assert_eq!(all().usable(&[Algorithm::PS512, Algorithm::HS384]).unwrap().len(), 2);
        assert_eq!(all().usable(&[Algorithm::ES256]).err(), Some(KeyError::NoUsableKey));
        assert_eq!(all().usable(&[]).err(), Some(KeyError::NoAlgorithm));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", Keyset::secret(&[b's'; 32]).unwrap()), "Keyset(1 keys)");
    }
}
