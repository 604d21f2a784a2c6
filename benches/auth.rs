//! What a credential costs: a token checked in full and from the cache, and an API key among 100,000.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::{EncodingKey, Header, encode, errors::Error};
use serde_json::{Map, json};
use tollgate::auth::{Algorithm, Digest, Entry, Identity, Keys, Keyset, Method, Policy, Verifier};

macro_rules! pem {
    ($name:literal) => {
        include_bytes!(concat!("../tests/fixtures/keys/", $name, ".pem"))
    };
}

const NOW: u64 = 1_700_000_000;
const SECRET: &[u8; 32] = b"a secret for benchmarks, only so";

fn tokens(criterion: &mut Criterion) -> Result<(), Error> {
    let public = |pem: &[u8]| Keyset::pem(pem).unwrap_or_else(|problem| panic!("{problem}"));
    let secret = Keyset::secret(SECRET).unwrap_or_else(|problem| panic!("{problem}"));
    let cases = [
        (Algorithm::HS256, EncodingKey::from_secret(SECRET), secret),
        (Algorithm::RS256, EncodingKey::from_rsa_pem(pem!("test-rsa.private"))?, public(pem!("test-rsa.public"))),
        (Algorithm::ES256, EncodingKey::from_ec_pem(pem!("test-ec256.private"))?, public(pem!("test-ec256.public"))),
        (
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(pem!("test-ed25519.private"))?,
            public(pem!("test-ed25519.public")),
        ),
    ];
    let claims =
        json!({ "sub": "alice", "iss": "https://issuer", "aud": "api", "exp": NOW + 60, "scope": "read write" });
    for (algorithm, signing, keyset) in cases {
        let token = encode(&Header::new(algorithm), &claims, &signing)?;
        let mut policy = Policy::new([algorithm]);
        policy.issuers = vec!["https://issuer".to_owned()];
        policy.audiences = vec!["api".to_owned()];
        let new = || Verifier::new(policy.clone(), keyset.clone()).unwrap_or_else(|problem| panic!("{problem}"));
        for (kind, verifier) in [("verified", new()), ("cached", new().with_cache(1_000))] {
            assert!(verifier.verify(&token, NOW).is_ok());
            criterion.bench_function(&format!("auth/jwt/{algorithm:?}/{kind}"), |bencher| {
                bencher.iter(|| verifier.verify(black_box(&token), NOW));
            });
        }
    }
    Ok(())
}

fn keys(criterion: &mut Criterion) {
    let secret = |number: u32| format!("tg_live_{number:043}_000000");
    let entries = (0..100_000).map(|number| {
        let (subject, method) = (number.to_string(), Method::ApiKey);
        let identity = Identity { subject, method, scopes: vec![], claims: Map::new(), key_id: None };
        Entry { digest: Digest::of(secret(number).as_bytes()), identity, not_after: None }
    });
    let keys = Keys::new(entries).unwrap_or_else(|problem| panic!("{problem}"));
    let presented: Vec<String> = (0..100_000).map(secret).collect();
    let mut walk = presented.iter().cycle();
    criterion.bench_function("auth/api_key/known_of_100000", |bencher| {
        bencher.iter(|| keys.find(walk.next().map_or(b"", String::as_bytes), NOW).is_ok());
    });
    criterion.bench_function("auth/api_key/unknown", |bencher| {
        bencher.iter(|| keys.find(black_box(b"no such key"), NOW).is_ok());
    });
}

fn auth(criterion: &mut Criterion) {
    tokens(criterion).unwrap_or_else(|problem| panic!("{problem}"));
    keys(criterion);
}

criterion_group!(benches, auth);
criterion_main!(benches);
