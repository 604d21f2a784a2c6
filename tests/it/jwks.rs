//! Key sets that are fetched.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    auth::now,
    harness::{Certs, Gateway, JwksServer, Origin, Publishes, TestKey, eventually},
};

const A: TestKey = TestKey::Ed25519;
const B: TestKey = TestKey::P256;

fn set(keys: &[Value]) -> Publishes {
    Publishes::Set(json!(keys), "Cache-Control: max-age=3600\r\n")
}

fn claims(issuer: &str) -> Value {
    json!({ "sub": "u1", "iss": issuer, "exp": now() + 600 })
}

fn token(key: TestKey, kid: &str) -> String {
    key.token(kid, &claims("id"))
}

/// A gateway whose tokens are verified with what `server` publishes; `more` are further settings of the set.
fn gateway(server: &JwksServer, certs: &Certs, more: &str) -> Gateway {
    Gateway::start(&yaml(server, certs, more))
}

fn yaml(server: &JwksServer, certs: &Certs, more: &str) -> String {
    format!(
        "routes:\n  - match: {{ path: /* }}\n    respond: {{ body: in }}\n    filters:\n      - jwt: {{ algorithms: [EdDSA, ES256], issuer: id, keys: [ {{ jwks: {{ url: '{}', ca: {}, {more} }} }} ] }}\n",
        server.url(),
        certs.path("ca.pem"),
    )
}

/// What the admin page says of the only set.
fn shown(gw: &Gateway) -> Value {
    gw.admin("/api/v1/jwks").expect(200).json()["sets"][0].clone()
}

fn kids(gw: &Gateway) -> Vec<String> {
    let keys = shown(gw)["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_key_set_is_fetched_by_tls_before_the_first_request_and_shown() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a"), B.jwk("b"), json!({ "kty": "oct", "k": "c2VjcmV0" })]));
    let gw = gateway(&server, &certs, "");
    gw.get("/").bearer(&token(A, "a")).expect(200);
    gw.get("/").bearer(&token(B, "b")).expect(200);
    let sets = gw.admin("/api/v1/jwks").expect(200);
    assert!(!sets.body.contains(A.jwk("a")["x"].as_str().unwrap()), "no key is shown");
    let shown = shown(&gw);
    assert_eq!((&shown["url"], &shown["loaded"], &shown["fetches"]), (&json!(server.url()), &json!(true), &json!(1)));
    assert_eq!(shown["keys"][0], json!({ "kid": "a", "kind": "Ed25519", "alg": null }));
    assert_eq!(shown["keys"][1], json!({ "kid": "b", "kind": "P-256", "alg": "ES256" }));
    assert!((3500..=3600).contains(&shown["next_fetch_seconds"].as_u64().unwrap()), "{shown}");
    let label = format!("jwks=\"{}\"", server.url());
    assert_eq!(gw.metric(&format!("gateway_jwks_keys{{{label}}}")), Some(2.0));
    assert_eq!(gw.metric(&format!("gateway_jwks_fetches_total{{{label},outcome=\"ok\"}}")), Some(1.0));
    assert!(gw.metric(&format!("gateway_jwks_confirmed_timestamp_seconds{{{label}}}")).unwrap() > 1e9);
    assert_eq!(gw.admin("/gateway/stats").expect(200).json()["jwks"][0]["loaded"], true);
}

#[test]
fn a_server_that_nobody_vouches_for_gives_no_keys() {
    let (certs, others) = (Certs::new(), Certs::new());
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let gw = gateway(&server, &others, "");
    let answer = gw.get("/").bearer(&token(A, "a")).expect(503).problem();
    assert_eq!(answer.get("retry-after"), "1");
    assert_eq!(gw.log(1)[0]["reason"], "token_keys_missing");
    let error = shown(&gw)["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(error.to_lowercase().contains("certificate") || error.to_lowercase().contains("tls"), "{error}");
    assert_eq!(server.asked(), 0);
}

#[test]
fn keys_rotate_without_a_refused_request_and_a_withdrawn_one_is_refused() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let gw = gateway(&server, &certs, "refresh: 1s, cooldown: 1s");
    let (second, stop, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let (a, b) = (token(A, "a"), token(B, "b"));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let token = if second.load(SeqCst) { &b } else { &a };
                gw.get("/").bearer(token).expect(200);
                sent.fetch_add(1, SeqCst);
            }
        });
        let published = || {
            server.publish(set(&[A.jwk("a"), B.jwk("b")]));
            eventually("the new key is known", || kids(&gw) == ["a", "b"]);
            second.store(true, SeqCst);
            let before = sent.load(SeqCst);
            eventually("tokens of the new key are sent", || sent.load(SeqCst) > before + 3);
            server.publish(set(&[B.jwk("b")]));
            eventually("the old key is gone", || kids(&gw) == ["b"]);
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(published));
        stop.store(true, SeqCst);
        result.unwrap();
    });
    let refused = gw.get("/").bearer(&a).expect(401).problem();
    assert!(refused.get("www-authenticate").contains("error=\"invalid_token\""), "{refused:?}");
    gw.get("/").bearer(&b).expect(200);
}

#[test]
fn a_token_of_an_unknown_key_waits_for_one_fetch() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let gw = gateway(&server, &certs, "cooldown: 1s");
    server.publish(set(&[A.jwk("a"), B.jwk("b")]));
    // The cool-down counts from the first fetch, which has begun before this.
    thread::sleep(Duration::from_millis(1100));
    gw.get("/").bearer(&token(B, "b")).expect(200);
    assert_eq!(server.asked(), 2);
}

#[test]
fn a_flood_of_unknown_keys_fetches_once_per_cooldown_and_hinders_nobody() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let gw = gateway(&server, &certs, "cooldown: 2s, timeout: 1s");
    let begun = Instant::now();
    server.publish(Publishes::Nothing);
    let good = token(A, "a");
    thread::scope(|scope| {
        for thread in 0..4 {
            let gw = &gw;
            scope.spawn(move || {
                for number in 0..30 {
                    gw.get("/").bearer(&token(B, &format!("x{thread}-{number}"))).expect(401);
                }
            });
        }
        for _ in 0..60 {
            let sent = Instant::now();
            gw.get("/").bearer(&good).expect(200);
            assert!(sent.elapsed() < Duration::from_millis(900), "it has waited for a fetch");
        }
    });
    let most = 2 + usize::try_from(begun.elapsed().as_secs() / 2).unwrap();
    assert!(server.asked() <= most, "{} fetches in {:?}", server.asked(), begun.elapsed());
}

#[test]
fn keys_are_kept_whatever_the_server_answers_later() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let gw = gateway(&server, &certs, "refresh: 1s, cooldown: 1s, min_refresh: 1s, timeout: 500ms");
    for (wrong, said) in [
        (Publishes::Raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html>hunter"), "not a usable JWK Set"),
        (Publishes::Raw("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "the answer is 500"),
        (
            Publishes::Raw("HTTP/1.1 302 Found\r\nLocation: /k\r\nContent-Length: 0\r\n\r\n"),
            "redirects are not followed",
        ),
        (Publishes::Raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), ""),
        (set(&[]), "no key in it can check a signature"),
        (Publishes::Bytes(300 << 10), "more than 262144 bytes"),
        (Publishes::Nothing, "no answer within 500ms"),
        (Publishes::Close, ""),
    ] {
        server.publish(wrong);
        let mut error = String::new();
        eventually(&format!("the fetch fails: {said}"), || {
            error = shown(&gw)["last_error"].as_str().unwrap_or_default().to_owned();
            !error.is_empty() && error.contains(said)
        });
        assert!(!error.contains("hunter"), "{error}");
        // A token that no cache knows.
        gw.get("/")
            .bearer(&A.token("a", &json!({ "sub": format!("u {said}."), "iss": "id", "exp": now() + 60 })))
            .expect(200);
        // The next one fails from the beginning.
        server.publish(set(&[A.jwk("a")]));
        eventually("it can be fetched again", || shown(&gw)["last_error"].is_null());
    }
    assert_eq!(gw.admin("/health/ready").expect(200).json()["status"], "ready");
}

#[test]
fn without_any_keys_requests_are_told_to_come_back_and_keys_from_files_count() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, Publishes::Close);
    let pem = std::fs::canonicalize("tests/fixtures/keys/test-ec256.public.pem").unwrap();
    let both = format!("{{ pem: {} }}, {{ jwks: {{ url:", pem.display());
    let gw = Gateway::start(&yaml(&server, &certs, "cooldown: 1s").replace("{ jwks: { url:", &both));
    gw.get("/").bearer(&token(B, "other")).expect(200);
    assert_eq!(gw.get("/").bearer(&token(A, "a")).expect(503).problem().get("retry-after"), "1");
    gw.get("/").bearer("rubbish").expect(401);
    gw.get("/").expect(401);
    gw.admin("/health/ready").expect(200);
    assert_eq!(gw.admin("/gateway/stats").expect(200).json()["jwks"][0]["loaded"], false);
    server.publish(set(&[A.jwk("a")]));
    eventually("the keys are there", || gw.get("/").bearer(&token(A, "a")).send().status == 200);
}

#[test]
fn an_upgrade_that_would_lose_the_keys_fails_and_another_has_them_before_it_serves() {
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let mut gw = gateway(&server, &certs, "timeout: 500ms");
    gw.get("/").bearer(&token(A, "a")).expect(200);
    server.publish(Publishes::Close);
    let mut old = gw.upgrade();
    let status = {
        // It looks for the keys for ten seconds, while the other one serves.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match gw.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the successor goes on without keys"),
            }
            gw.get("/").bearer(&token(A, "a")).expect(200);
        }
    };
    assert!(!status.success());
    assert!(gw.errors().contains("the successor has not got the keys of"), "{}", gw.errors());
    assert!(old.try_wait().unwrap().is_none());
    server.publish(set(&[A.jwk("a")]));
    gw.child = old;
    let mut old = gw.upgrade();
    eventually("the successor has taken over", || {
        gw.get("/").bearer(&token(A, "a")).expect(200);
        old.try_wait().unwrap().is_some()
    });
}

#[test]
fn each_issuer_signs_with_its_own_keys_alone() {
    let certs = Certs::new();
    let (first, second) =
        (JwksServer::start(&certs, set(&[A.jwk("k")])), JwksServer::start(&certs, set(&[B.jwk("k")])));
    let set = |server: &JwksServer| format!("{{ jwks: {{ url: '{}', ca: {} }} }}", server.url(), certs.path("ca.pem"));
    let gw = Gateway::start(&format!(
        "routes:\n  - match: {{ path: /* }}\n    respond: {{ body: in }}\n    filters:\n      - jwt:\n          algorithms: [EdDSA, ES256]\n          audience: api\n          issuers:\n            - {{ issuer: one, keys: [ {} ] }}\n            - {{ issuer: two, audience: other, keys: [ {} ] }}\n",
        set(&first),
        set(&second)
    ));
    let token = |key: TestKey, issuer: &str, audience: &str| {
        key.token("k", &json!({ "sub": "u", "iss": issuer, "aud": audience, "exp": now() + 60 }))
    };
    let sent = |token: &str| gw.get("/").bearer(token).send().status;
    assert_eq!(sent(&token(A, "one", "api")), 200);
    assert_eq!(sent(&token(B, "two", "other")), 200);
    for (key, issuer, audience) in
        [(B, "one", "api"), (A, "two", "other"), (A, "one", "other"), (B, "two", "api"), (A, "three", "api")]
    {
        assert_eq!(sent(&token(key, issuer, audience)), 401, "{issuer} {audience}");
    }
    assert_eq!(sent(&A.token("k", &json!({ "sub": "u", "aud": "api", "exp": now() + 60 }))), 401, "nobody's");
}

#[test]
fn a_route_asks_for_roles_and_may_do_without_a_token() {
    let origin = Origin::start("o");
    let certs = Certs::new();
    let server = JwksServer::start(&certs, set(&[A.jwk("a")]));
    let jwt = |more: &str| {
        format!(
            "jwt: {{ algorithms: [EdDSA], keys: [ {{ jwks: {{ url: '{}', ca: {} }} }} ], claim_headers: {{ X-Role: role }}, {more} }}",
            server.url(),
            certs.path("ca.pem")
        )
    };
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /roles }}\n    service: main\n    filters:\n      - {}\n  - match: {{ path: /open }}\n    service: main\n    filters:\n      - {}\n",
        origin.url(),
        jwt("roles: [editor, admin], roles_claim: realm_access.roles"),
        jwt("optional: true, required_claims: { role: ~ }"),
    ));
    let token = |more: Value| {
        let mut claims = claims("id");
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        A.token("a", &claims)
    };
    for (roles, status) in [
        (json!({ "roles": ["viewer", "admin"] }), 200),
        (json!({ "roles": "viewer editor" }), 200),
        (json!({ "roles": ["viewer"] }), 403),
        (json!({ "roles": "administrator" }), 403),
        (json!({ "roles": { "admin": true } }), 403),
        (json!({}), 403),
    ] {
        let answer = gw.get("/roles").bearer(&token(json!({ "realm_access": roles }))).expect(status);
        if status == 403 {
            assert!(answer.get("www-authenticate").contains("error=\"insufficient_scope\""), "{answer:?}");
        }
    }
    gw.get("/roles").bearer(&token(json!({ "roles": ["admin"] }))).expect(403);
    let anonymous =
        gw.get("/open").header("X-Auth-Subject", "root").header("X-Role", "admin").header("x_role", "admin");
    anonymous.header("Authorization", "Basic YTpi").expect(200);
    let seen = origin.last();
    assert_eq!(seen.headers["authorization"], "Basic YTpi", "another's credentials");
    for name in ["x-auth-subject", "x-role", "x_role"] {
        assert!(!seen.headers.contains_key(name), "{seen:?}");
    }
    gw.get("/open").bearer(&token(json!({ "role": "user" }))).header("X-Role", "admin").expect(200);
    let seen = origin.last();
    assert_eq!(
        (&seen.headers["x-auth-subject"], &seen.headers["x-role"]),
        (&"u1".parse().unwrap(), &"user".parse().unwrap())
    );
    assert!(!seen.headers.contains_key("authorization"), "{seen:?}");
    gw.get("/open").bearer("x.y.z").expect(401);
    gw.get("/open").bearer(&token(json!({}))).expect(403);
}
