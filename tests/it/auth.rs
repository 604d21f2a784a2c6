//! Who may pass.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{
    config_errors::check,
    harness::{Gateway, Origin},
};

pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(crate) fn sha256(text: &str) -> String {
    tollgate::auth::Digest::of(text.as_bytes()).to_string()
}

fn gateway(origin: &Origin) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (secret, pem) = (dir.path().join("secret"), dir.path().join("rsa.pem"));
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy("tests/fixtures/keys/test-rsa.public.pem", &pem).unwrap();
    let yaml = format!(
        r#"
api_keys:
  - {{ id: k1, sha256: {}, owner: acme, scopes: [read] }}
  - {{ id: k2, sha256: {} }}
  - {{ id: old, sha256: {}, expires: 2020-01-01T00:00:00Z }}
services:
  main: {{ urls: ["{}"] }}
routes:
  - match: {{ path: /key }}
    service: main
    filters: [api_key]
  - match: {{ path: /scoped }}
    service: main
    filters: [ {{ api_key: {{ scopes: [read], bearer: true }} }} ]
  - match: {{ path: /one }}
    service: main
    filters: [ {{ api_key: {{ allow: [k2], forward: true }} }} ]
  - match: {{ path: /jwt }}
    service: main
    filters:
      - jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ], issuer: id, audience: api, leeway: 0, claim_headers: {{ X-Role: role }} }}
  - match: {{ path: /rsa }}
    service: main
    filters: [ {{ jwt: {{ algorithms: [RS256], keys: [ {{ pem: {} }} ], scopes: [write], required_claims: {{ role: admin }} }} }} ]
"#,
        sha256("key-1"),
        sha256("key-2"),
        sha256("key-old"),
        origin.url(),
        secret.display(),
        pem.display()
    );
    (Gateway::start(&yaml), dir)
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn hs256(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

#[test]
fn a_realm_is_one_quoted_string_whatever_the_route_is_called() {
    let gw = Gateway::start(&format!(
        "api_keys: [ {{ id: k1, sha256: {} }} ]\nroutes:\n  - {{ id: 'a\"b\\c', match: {{ path: /* }}, filters: [api_key], respond: {{ body: a }} }}\n",
        sha256("key-1")
    ));
    gw.get("/").expect(401).has("www-authenticate", "ApiKey realm=\"abc\", header=\"x-api-key\"");
}

#[test]
fn an_api_key_opens_its_route_and_stays_here() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let refused = gw.get("/key").expect(401).problem();
    assert!(refused.get("www-authenticate").starts_with("ApiKey realm="));
    gw.get("/key").key("wrong").expect(401).problem();
    gw.get("/key").key("key-old").expect(401).problem();
    gw.get("/key?api_key=key-1").expect(401);
    gw.get("/key").key("key-1").header("X-API-KEY", "key-2").expect(401);
    assert!(origin.seen().is_empty());
    gw.get("/key").key("key-1").header("X-Consumer-ID", "spoofed").header("X_Consumer_ID", "spoofed").expect(200);
    let seen = origin.last();
    assert!(!seen.headers.contains_key("x-api-key") && !seen.headers.contains_key("x_consumer_id"), "{seen:?}");
    assert_eq!(seen.headers.get_all("x-consumer-id").iter().collect::<Vec<_>>(), ["acme"]);
    let log = gw.log(6);
    let line = log.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!((line["key_id"].as_str(), line["identity"].as_str()), (Some("k1"), Some("acme")));
    assert!(!gw.read("stdout").contains("key-1"), "the key is in the log");
}

#[test]
fn keys_have_scopes_and_lists() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    gw.get("/scoped").bearer("key-1").expect(200);
    assert!(!origin.last().headers.contains_key("authorization"));
    gw.get("/scoped").key("key-2").expect(403).problem();
    gw.get("/one").key("key-1").expect(403);
    gw.get("/one").key("key-2").expect(200);
    assert_eq!(origin.last().headers["x-api-key"], "key-2", "forward: true");
}

#[test]
fn only_a_valid_token_opens() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let good = json!({ "iss": "id", "aud": "api", "sub": "u1", "role": "admin", "exp": now() + 60 });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        hs256(&claims)
    };
    let missing = gw.get("/jwt").expect(401).problem();
    assert_eq!(missing.get("www-authenticate"), "Bearer realm=\"/jwt\"");
    gw.get("/jwt").bearer(&hs256(&good)).header("X-Role", "spoofed").expect(200);
    let seen = origin.last();
    assert!(!seen.headers.contains_key("authorization"));
    assert_eq!(
        (&seen.headers["x-auth-subject"], &seen.headers["x-role"]),
        (&"u1".parse().unwrap(), &"admin".parse().unwrap())
    );
    // Twice, so that the second is judged by the cache as well.
    gw.get("/jwt").bearer(&hs256(&good)).expect(200);
    for (what, token) in [
        ("expired", with("exp", json!(now() - 10))),
        ("early", with("nbf", json!(now() + 100))),
        ("wrong issuer", with("iss", json!("other"))),
        ("wrong audience", with("aud", json!(["other"]))),
        ("no audience", with("aud", Value::Null)),
        ("no exp", with("exp", Value::Null)),
    ] {
        let answer = gw.get("/jwt").bearer(&token).send();
        assert_eq!(answer.status, 401, "{what}");
        assert!(answer.get("www-authenticate").contains("error=\"invalid_token\""), "{what}: {answer:?}");
    }
}

#[test]
fn forged_tokens_do_not_open() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let claims = json!({ "iss": "id", "aud": "api", "sub": "u1", "exp": now() + 60 });
    let good = hs256(&claims);
    let parts: Vec<&str> = good.split('.').collect();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let tampered = format!("{}.{}x.{}", parts[0], parts[1], parts[2]);
    let pem = fs::read("tests/fixtures/keys/test-rsa.public.pem").unwrap();
    let confused = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&pem)).unwrap();
    for token in [none.as_str(), &tampered, "", "a.b", "a.b.c", "a.b.c.d.e"] {
        gw.get("/jwt").bearer(token).expect(401).problem();
    }
    gw.get("/rsa").bearer(&confused).expect(401).problem();
    gw.get("/rsa").bearer(&good).expect(401).problem();
    assert!(origin.seen().is_empty());
}

#[test]
fn a_token_without_the_scope_is_known_and_refused() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let key = EncodingKey::from_rsa_pem(&fs::read("tests/fixtures/keys/test-rsa.private.pem").unwrap()).unwrap();
    let token = |claims: Value| encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap();
    gw.get("/rsa")
        .bearer(&token(json!({ "sub": "u", "role": "admin", "scope": "read write", "exp": now() + 60 })))
        .expect(200);
    let refused = gw
        .get("/rsa")
        .bearer(&token(json!({ "sub": "u", "role": "admin", "scope": "read", "exp": now() + 60 })))
        .expect(403)
        .problem();
    assert!(refused.get("www-authenticate").contains("error=\"insufficient_scope\""), "{refused:?}");
    gw.get("/rsa")
        .bearer(&token(json!({ "sub": "u", "role": "user", "scope": "write", "exp": now() + 60 })))
        .expect(403)
        .says("claim 'role'");
}

#[test]
fn a_claim_that_no_header_can_carry_makes_a_token_malformed() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let claims = |role: &str| {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
        json!({ "sub": "alice", "iss": "id", "aud": "api", "exp": exp, "role": role })
    };
    gw.get("/jwt").bearer(&hs256(&claims("caf\u{e9}"))).expect(200);
    for role in ["a\nb", "a\0", "\u{7f}", " root", "root ", "root\u{a0}"] {
        gw.get("/jwt").bearer(&hs256(&claims(role))).expect(401).problem().says("the token is malformed");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn a_claim_that_is_a_list_is_told_as_one() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin);
    let token =
        |role: &Value| hs256(&json!({ "sub": "alice", "iss": "id", "aud": "api", "exp": now() + 60, "role": role }));
    for (role, told) in [
        (json!(["admin", "editor"]), Some("admin, editor")),
        (json!(["admin"]), Some("admin")),
        (json!([1, "a b", true]), Some("1, a b, true")),
        (json!([]), None),
        (json!(null), None),
    ] {
        gw.get("/jwt").bearer(&token(&role)).header("X-Role", "spoofed").expect(200);
        assert_eq!(origin.last().headers.get("x-role").map(|value| value.to_str().unwrap()), told, "{role}");
    }
    for role in [
        json!({ "name": "admin" }),
        json!(["a", "b,c"]),
        json!(["a", "b\nc"]),
        json!(["a", ""]),
        json!(["a", " b"]),
        json!(["a", ["b"]]),
        json!(["a", { "b": 1 }]),
        json!(["a", null]),
    ] {
        gw.get("/jwt").bearer(&token(&role)).expect(401).problem().says("the token is malformed");
    }
    assert_eq!(origin.seen().len(), 5);
}

#[test]
fn fields_that_break_a_message_or_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let says = |filter: &str| {
        check(&format!(
            "listeners: [ {{ address: 127.0.0.1:8080 }} ]\napi_keys: [ {{ id: k1, sha256: {} }} ]\nroutes:\n  - match: {{ path: /* }}\n    respond: {{ body: a }}\n    filters: [ {{ {filter} }} ]\n",
            sha256("key-1")
        ))
    };
    let jwt = |more: &str| {
        format!("jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ], {more} }}", file.display())
    };
    for name in ["Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Cookie"] {
        for (filter, place) in [
            (jwt(&format!("claim_headers: {{ {name}: role }}")), format!("jwt.claim_headers.{name}: ")),
            (jwt(&format!("identity_header: {name}")), "jwt.identity_header: ".to_owned()),
            (jwt(&format!("header: {name}")), "jwt.header: ".to_owned()),
            (format!("api_key: {{ header: {name} }}"), "api_key.header: ".to_owned()),
            (format!("api_key: {{ identity_header: {name} }}"), "api_key.identity_header: ".to_owned()),
            (format!("client_cert: {{ identity_header: {name} }}"), "client_cert.identity_header: ".to_owned()),
        ] {
            let (code, text) = says(&filter);
            assert!(code == 78 && text.contains(&place) && text.contains(name), "{filter}: {text}");
        }
    }
    for (more, place) in [
        ("claim_headers: { Authorization: role }", "claim_headers.Authorization"),
        ("header: X-Token, identity_header: authorization", "identity_header"),
        ("claim_headers: { X-Role: role, x-role: roles }", "claim_headers.x-role"),
        ("claim_headers: { X-Role: role, X_Role: roles }", "claim_headers.X_Role"),
        ("claim_headers: { x-auth-subject: role }", "claim_headers.x-auth-subject"),
        ("header: X-Token, claim_headers: { x-token: role }", "claim_headers.x-token"),
        ("header: X-Token, identity_header: x-token", "identity_header"),
    ] {
        let (code, text) = says(&jwt(more));
        assert!(code == 78 && text.contains(&format!("jwt.{place}: ")), "{more}: {text}");
    }
    let (code, text) = says("api_key: { header: X-Who, identity_header: x-who }");
    assert!(code == 78 && text.contains("api_key.identity_header: "), "{text}");
}
