//! Who a request is from, when several credentials come together, and that no client can say it itself.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use crate::{
    auth::{SECRET, hs256, now, sha256},
    harness::{Gateway, Origin},
};

fn gateway(origin: &Origin, routes: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let routes = routes.replace("{secret}", &secret.display().to_string());
    Gateway::start(&format!(
        "api_keys: [ {{ id: k1, owner: acme, sha256: \"{}\" }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n{routes}",
        sha256("key-of-acme"),
        origin.url()
    ))
}

pub(crate) fn jwt(more: &str) -> String {
    format!("jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: \"{{secret}}\" }} }} ]{more} }}")
}

pub(crate) fn token(claims: serde_json::Value) -> String {
    let mut claims = claims;
    claims["exp"] = json!(now() + 60);
    hs256(&claims)
}

#[test]
fn a_key_and_a_token_keep_their_own_holders() {
    let origin = Origin::start("o");
    let jwt = jwt(", claim_headers: { X-Role: role }");
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /a }}, service: main, filters: [ api_key, {{ {jwt} }} ] }}\n  - {{ match: {{ path: /b }}, service: main, filters: [ {{ {jwt} }}, api_key ] }}\n"
        ),
    );
    let token = token(json!({ "sub": "acme-admin", "role": "boss" }));
    for path in ["/a", "/b"] {
        gw.get(path).key("key-of-acme").bearer(&token).expect(200);
        let seen = origin.last().headers;
        let told = ["x-consumer-id", "x-auth-subject", "x-role"].map(|name| seen[name].to_str().unwrap().to_owned());
        assert_eq!(told, ["acme", "acme-admin", "boss"], "{path}");
    }
    assert!(gw.log(2).iter().all(|line| line["key_id"] == "k1"));
}

#[test]
fn limits_count_by_the_credential_they_name() {
    let origin = Origin::start("o");
    let jwt = jwt("");
    let route = |path: &str, by: &str| {
        format!(
            "  - {{ match: {{ path: {path} }}, service: main, filters: [ api_key, {{ {jwt} }}, {{ rate_limit: {{ rate: 1/h, burst: 1, by: \"{by}\" }} }} ] }}\n"
        )
    };
    let gw =
        gateway(&origin, &[route("/key", "api_key"), route("/jwt", "jwt"), route("/claim", "claim:team")].concat());
    let of = |who: &str, team: &str| token(json!({ "sub": who, "team": team }));
    let (alice, bob) = (of("alice", "red"), of("bob", "red"));
    // One key: a second user of it has no request left. Two users: each has its own. One team: they share.
    for (path, second) in [("/key", 429), ("/jwt", 200), ("/claim", 429)] {
        gw.get(path).key("key-of-acme").bearer(&alice).expect(200);
        gw.get(path).key("key-of-acme").bearer(&bob).expect(second);
    }
}

#[test]
fn what_one_route_tells_no_client_can_tell_on_any() {
    let origin = Origin::start("o");
    let jwt = jwt(", identity_header: X-User, claim_headers: { X-Role: role }");
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /open }}, service: main }}\n  - {{ match: {{ path: /in }}, service: main, filters: [ {{ {jwt} }} ] }}\n  - {{ match: {{ path: /edit }}, service: main, filters: [ {{ headers: {{ request: {{ set: {{ X-Env: prod }}, remove: [X-Debug] }} }} }} ] }}\n"
        ),
    );
    for path in ["/open", "/in"] {
        let mut request = gw.get(path).bearer(&token(json!({ "sub": "alice" })));
        for name in ["X-Role", "X_Role", "X-User", "x_user", "X_Consumer_ID", "X-Consumer-ID"] {
            request = request.header(name, "root");
        }
        request.expect(200);
        let seen = origin.last().headers;
        assert!(seen.values().all(|value| value != "root"), "{path}: {seen:?}");
    }
    gw.get("/edit").header("X_Env", "root").header("X_Debug", "root").expect(200);
    let seen = origin.last().headers;
    assert!(seen["x-env"] == "prod" && seen.values().all(|value| value != "root"), "{seen:?}");
}

#[test]
fn a_claim_that_no_field_can_carry_leaves_nothing_of_the_clients() {
    let origin = Origin::start("o");
    let jwt = jwt(", claim_headers: { X-Role: role }");
    let gw = gateway(
        &origin,
        &format!("  - {{ match: {{ path: /* }}, service: main, filters: [ {{ {jwt}, on_fault: pass }} ] }}\n"),
    );
    let with = |claims| token(claims);
    let odd = with(json!({ "sub": "alice", "role": "us\ner" }));
    gw.get("/").bearer(&odd).header("X-Role", "admin").expect(401);
    gw.get("/").bearer(&with(json!({ "sub": "alice", "role": ["user"] }))).header("X-Role", "admin").expect(200);
    assert!(origin.last().headers.values().all(|value| value != "admin"), "{:?}", origin.last());
    assert_eq!(origin.seen().len(), 1);
    gw.get("/").bearer(&with(json!({ "sub": "a\nb" }))).expect(401);
}

#[test]
fn a_token_need_not_name_anybody() {
    let origin = Origin::start("o");
    let (open, strict) = (jwt(""), jwt(", require_subject: true"));
    let gw = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /open }}, service: main, filters: [ {{ {open} }} ] }}\n  - {{ match: {{ path: /strict }}, service: main, filters: [ {{ {strict} }} ] }}\n"
        ),
    );
    let token = token(json!({ "scope": "read" }));
    gw.get("/open").bearer(&token).header("X-Auth-Subject", "root").expect(200);
    assert!(!origin.last().headers.contains_key("x-auth-subject"));
    gw.get("/strict").bearer(&token).expect(401);
}

#[test]
fn what_a_client_may_not_say_is_dropped_before_anything_looks() {
    let origin = Origin::start("o");
    let yaml = |trusted: &str| {
        format!(
            "trusted_proxies: [{trusted}]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /*, headers: {{ X-Consumer-ID: admin }} }}, respond: {{ status: 201 }} }}\n  - {{ match: {{ path: /*, headers: {{ X-Real-IP: null }} }}, respond: {{ status: 202 }} }}\n  - {{ match: {{ path: /* }}, service: main, filters: [ {{ rate_limit: {{ rate: 1/h, burst: 2, by: \"header:X-Forwarded-For\" }} }} ] }}\n",
            origin.url()
        )
    };
    let gw = Gateway::start(&yaml(""));
    let ask = |gw: &Gateway, address: &str| {
        gw.get("/").header("X-Consumer-ID", "admin").header("X-Real-IP", "1.2.3.4").header("X-Forwarded-For", address)
    };
    ask(&gw, "192.0.2.1").expect(200);
    ask(&gw, "192.0.2.2").header("X_Consumer_ID", "admin").expect(200);
    ask(&gw, "192.0.2.3").expect(429);
    // A trusted proxy may say where a request came from, but not who the client is.
    ask(&Gateway::start(&yaml("127.0.0.1")), "192.0.2.1").expect(202);
}
