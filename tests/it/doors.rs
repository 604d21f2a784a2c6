//! Who may pass, of those who are known (`acl`).

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::json;

use crate::{
    auth::{SECRET, hs256, now, sha256},
    cache::{Backend, FRESH, said},
    config_errors::check,
    harness::{Gateway, Origin, raw_backend, read_head},
};

pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A gateway whose keys are `key-1` (acme, gold, may read) and `key-2` (globex), with these routes.
fn gateway(origin: &Origin, routes: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let routes = routes
        .replace("JWT", "algorithms: [HS256], KEYS")
        .replace("KEYS", &format!("keys: [ {{ secret: {{ file: {} }} }} ]", secret.display()));
    let yaml = format!(
        "api_keys:\n  - {{ id: k1, sha256: {}, owner: acme, scopes: [read], tier: gold }}\n  - {{ id: k2, sha256: {}, owner: globex }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n{routes}",
        sha256("key-1"),
        sha256("key-2"),
        origin.url(),
    );
    (Gateway::start(&yaml), dir)
}

#[test]
fn a_list_says_who_may_pass_of_those_who_are_known() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(
        &origin,
        r"
  - { match: { path: /known }, service: main, filters: [ api_key, acl ] }
  - { match: { path: /acme }, service: main, filters: [ api_key, acl: { allow: { subjects: acme } } ] }
  - { match: { path: /not-acme }, service: main, filters: [ api_key, acl: { deny: { subjects: [acme] } } ] }
  - { match: { path: /gold }, service: main, filters: [ api_key, acl: { allow: { tiers: [gold, silver] } } ] }
  - { match: { path: /read }, service: main, filters: [ api_key, acl: { allow: { scopes: [read] } } ] }
  - { match: { path: /both }, service: main, filters: [ api_key, acl: { allow: { subjects: [acme, globex], tiers: gold } } ] }
  - { match: { path: /either }, service: main, filters: [ api_key, acl: { allow: [ { subjects: [globex] }, { tiers: gold } ], deny: { scopes: read } } ] }
  - { match: { path: /by }, service: main, filters: [ api_key, acl: { allow: { subjects: [acme], by: jwt } } ] }
",
    );
    for (path, acme, globex) in [
        ("/known", 200, 200),
        ("/acme", 200, 403),
        ("/not-acme", 403, 200),
        ("/gold", 200, 403),
        ("/read", 200, 403),
        ("/both", 200, 403),
        ("/either", 403, 200),
        ("/by", 403, 403),
    ] {
        assert_eq!(
            (gw.get(path).key("key-1").send().status, gw.get(path).key("key-2").send().status),
            (acme, globex),
            "{path}"
        );
    }
    let answer = gw.get("/acme").key("key-2").expect(403).problem();
    let line = gw.line_of(&answer.body);
    assert_eq!((line["reason"].as_str(), line["by"].as_str()), (Some("identity_not_allowed"), Some("acl")), "{line}");
    assert_eq!(line["identity"], "globex");
    gw.get("/acme").expect(401).has("www-authenticate", "ApiKey realm=\"/acme\", header=\"x-api-key\"");
}

#[test]
fn roles_are_the_tokens_and_nobody_without_a_token_has_one() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(
        &origin,
        r"
  - { match: { path: /admin }, service: main, filters: [ jwt: { JWT, optional: true }, acl: { allow: { roles: admin } } ] }
  - { match: { path: /realm }, service: main, filters: [ jwt: { JWT }, acl: { allow: { roles: [admin] }, roles_claim: realm_access.roles } ] }
  - { match: { path: /not }, service: main, filters: [ api_key, jwt: { JWT, optional: true }, acl: { allow: { tiers: gold }, deny: { tiers: banned } } ] }
  - { match: { path: /hidden }, service: main, filters: [ acl ] }
",
    );
    let token = |more: serde_json::Value| {
        let mut claims = json!({ "sub": "u1", "exp": now() + 60 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hs256(&claims)
    };
    gw.get("/admin").bearer(&token(json!({ "roles": ["user", "admin"] }))).expect(200);
    gw.get("/admin").bearer(&token(json!({ "roles": "user admin" }))).expect(200);
    gw.get("/admin").bearer(&token(json!({ "roles": ["administrator"] }))).expect(403).problem();
    gw.get("/admin").bearer(&token(json!({ "roles": { "admin": true } }))).expect(403);
    gw.get("/admin").bearer(&token(json!({}))).expect(403);
    // Nobody is known: what would help is said, as the step before it would have.
    let answer = gw.get("/admin").expect(401).problem();
    assert_eq!(answer.get("www-authenticate"), "Bearer realm=\"/admin\"");
    gw.get("/realm").bearer(&token(json!({ "realm_access": { "roles": ["admin"] } }))).expect(200);
    gw.get("/realm").bearer(&token(json!({ "roles": ["admin"] }))).expect(403);
    // Of two identities either may open, and either may close.
    gw.get("/not").key("key-1").expect(200);
    gw.get("/not").key("key-2").bearer(&token(json!({ "tier": "gold" }))).expect(200);
    gw.get("/not").key("key-1").bearer(&token(json!({ "tier": "banned" }))).expect(403);
    gw.get("/not").key("key-2").expect(403);
    // No step before it has anything to ask for.
    assert_eq!(gw.get("/hidden").expect(403).get("www-authenticate"), "");
}

/// A token with these claims, of `u1` unless they name somebody.
fn token(more: &serde_json::Value) -> String {
    let mut claims = json!({ "sub": "u1", "exp": now() + 60 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hs256(&claims)
}

#[test]
fn roles_and_tiers_may_be_numbers_and_lists() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(
        &origin,
        r#"
  - { match: { path: /deny }, service: main, filters: [ jwt: { JWT }, acl: { deny: { roles: ["99"] }, roles_claim: groups } ] }
  - { match: { path: /allow }, service: main, filters: [ jwt: { JWT }, acl: { allow: { roles: [99] }, roles_claim: groups } ] }
  - { match: { path: /tiers }, service: main, filters: [ jwt: { JWT }, acl: { deny: { tiers: [banned, 7] } } ] }
  - { match: { path: /roles }, service: main, filters: [ jwt: { JWT, roles: [99], roles_claim: groups } ] }
  - { match: { path: /claims }, service: main, filters: [ jwt: { JWT, required_claims: { groups: "99" } } ] }
"#,
    );
    let status = |path: &str, claims: serde_json::Value| gw.get(path).bearer(&token(&claims)).send().status;
    for groups in [json!([99]), json!(99), json!("99"), json!(["a", "99"]), json!(["a", 99])] {
        let of = |path: &str| status(path, json!({ "groups": groups }));
        assert_eq!([of("/deny"), of("/allow"), of("/roles"), of("/claims")], [403, 200, 200, 200], "{groups}");
    }
    for groups in [json!([98]), json!(9), json!("999"), json!([[99]]), json!({ "99": true })] {
        let of = |path: &str| status(path, json!({ "groups": groups }));
        assert_eq!([of("/deny"), of("/allow"), of("/roles"), of("/claims")], [200, 403, 403, 403], "{groups}");
    }
    for tier in [json!("banned"), json!(["banned"]), json!(["gold", "banned"]), json!(7), json!([7])] {
        assert_eq!(status("/tiers", json!({ "tier": tier })), 403, "{tier}");
    }
    for tier in [json!("not banned"), json!(["gold"]), json!([])] {
        assert_eq!(status("/tiers", json!({ "tier": tier })), 200, "{tier}");
    }
}

#[test]
fn an_issuer_that_is_no_text_is_nobodys() {
    let origin = Origin::start("o");
    let issuers = "issuers: [ { issuer: 'https://id.example', keys: [ { pem: PEM } ], algorithms: [RS256] } ]"
        .replace("PEM", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/test-rsa.public.pem"));
    let (gw, _dir) = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ jwt: {{ JWT, {issuers}, claim_headers: {{ X-Iss: iss }} }} ] }}\n  - {{ match: {{ path: /one }}, service: main, filters: [ jwt: {{ JWT, subject_claim: name }} ] }}\n"
        ),
    );
    let sent = |path: &str, claims: serde_json::Value| gw.get(path).bearer(&token(&claims)).send().status;
    assert_eq!(sent("/", json!({})), 200);
    for issuer in [json!(["https://id.example"]), json!(7), json!({}), json!(null), json!([]), json!(true)] {
        for path in ["/", "/one"] {
            assert_eq!(sent(path, json!({ "iss": issuer })), 401, "{path} {issuer}");
        }
    }
    assert_eq!(sent("/", json!({ "iss": "https://id.example" })), 401, "it has other keys");
    // What names nobody here may name somebody behind.
    for claims in
        [json!({ "sub": ["root"] }), json!({ "sub": null }), json!({ "aud": { "api": 1 } }), json!({ "aud": 7 })]
    {
        assert_eq!(sent("/one", claims.clone()), 401, "{claims}");
    }
    assert_eq!(sent("/one", json!({ "aud": ["api", "web"] })), 200);
}

#[test]
fn a_subject_is_one_issuers() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(
        &origin,
        "  - { match: { path: /* }, service: main, filters: [ jwt: { algorithms: [HS256], issuers: [ { issuer: one, KEYS }, { issuer: two, KEYS } ] }, rate_limit: { rate: 1/h, by: jwt } ] }\n",
    );
    let sent = |issuer: &str| gw.get("/").bearer(&token(&json!({ "iss": issuer }))).send().status;
    assert_eq!([sent("one"), sent("two"), sent("one"), sent("two")], [200, 200, 429, 429]);
}

#[test]
fn a_claim_that_is_a_list_is_counted_as_a_whole() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(
        &origin,
        "  - { match: { path: /* }, service: main, filters: [ jwt: { JWT }, rate_limit: { rate: 1/h, by: 'claim:groups' } ] }\n",
    );
    let sent = |groups: &serde_json::Value| gw.get("/").bearer(&token(&json!({ "groups": groups }))).send().status;
    let all = [json!(["a", "b"]), json!(["a"]), json!("a"), json!(null)];
    assert_eq!(all.each_ref().map(&sent), [200; 4], "each has a bucket of its own");
    assert_eq!(all.each_ref().map(&sent), [429; 4]);
}

#[test]
fn a_claim_of_the_token_that_backends_are_told_makes_a_key() {
    let (backend, dir) = (Backend::start(), tempfile::tempdir().unwrap());
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let route = |path: &str, more: &str| {
        format!(
            "  - {{ match: {{ path: {path}/* }}, service: main, cache: {{}}, filters: [ jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ], header: X-Token, {more} }} ] }}\n",
            secret.display()
        )
    };
    let gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['http://{}'] }} }}\nroutes:\n{}{}{}{}",
        backend.address,
        route("/plain", "claim_headers: { X-Role: role }"),
        route("/told", "claim_headers: { X-Id: jti }"),
        route("/deep", "claim_headers: { X-Id: nonce.id }"),
        route("/whole", "forward: true"),
    ));
    let end = now() + 600;
    let of = |id: &str| hs256(&json!({ "sub": "u", "exp": end, "jti": id, "nonce": { "id": id } }));
    for (path, second) in [("/plain", "HIT"), ("/told", "MISS"), ("/deep", "MISS"), ("/whole", "MISS")] {
        let ask = |id: &str| said(&gw.get(&format!("{path}/a?{FRESH}")).header("X-Token", &of(id)).send()).1;
        assert_eq!((&*ask("one"), &*ask("two"), &*ask("one")), ("MISS", second, "HIT"), "{path}");
    }
}

#[test]
fn who_shows_nothing_is_nobody_unless_allow_says_so() {
    let origin = Origin::start("o");
    let any = "any_of: [ api_key, anonymous: { tier: free } ]";
    let (gw, _dir) = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /closed }}, service: main, filters: [ {any}, acl: {{ deny: {{ subjects: [globex] }} }} ] }}\n  - {{ match: {{ path: /open }}, service: main, filters: [ {any}, acl: {{ allow: [ {{ tiers: [free] }}, {{ subjects: [acme] }} ] }} ] }}\n"
        ),
    );
    gw.get("/closed").expect(401);
    gw.get("/closed").key("key-2").expect(403);
    gw.get("/closed").key("key-1").expect(200);
    gw.get("/open").expect(200);
}

#[test]
fn a_second_step_of_a_kind_that_would_erase_the_first_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let hmac = |header: &str| {
        format!(
            "hmac: {{ keys: [ {{ id: a, secrets: [ {{ file: {} }} ] }} ], simple_header: {header} }}",
            secret.display()
        )
    };
    let basic = "basic: { users: [ { name: a, password_hash: '$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC' } ] }";
    for (steps, name) in [
        ("api_key: { header: X-App, identity_header: X-App-ID }, api_key: { header: X-User, identity_header: X-User-ID }".to_owned(), "api_key"),
        ("api_key: { header: X-App }, any_of: [ api_key: { header: X-User, identity_header: X-User-ID }, anonymous ]".to_owned(), "api_key"),
        (format!("{}, {}", hmac("X-A"), hmac("X-B")), "hmac"),
        (format!("{basic}, {basic}"), "basic"),
    ] {
        let steps = steps.replace(", api_key", " }, { api_key").replace(", any_of", " }, { any_of").replace("}, hmac", "} }, { hmac").replace("}, basic", "} }, { basic");
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\napi_keys: [ {{ id: a, sha256: {} }} ]\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ {{ {steps} }} ] }}\n",
            sha256("a")
        );
        let (_, text) = check(&yaml);
        assert!(text.contains(&format!("there is a '{name}' step before it, and who passes the second")), "{steps}: {text}");
    }
}

#[test]
fn a_rule_that_is_empty_is_a_mistake() {
    for (settings, place, message) in [
        ("allow: []", "acl.allow", "nobody could pass: name somebody, or leave it out"),
        ("allow: [{}]", "acl.allow[0]", "fits everybody"),
        ("deny: { subjects: [] }", "acl.deny[0].subjects", "is empty"),
        ("allow: { role: admin }", "acl.allow: unknown key 'role'", "did you mean 'roles'?"),
        ("allow: { by: jtw }", "acl.allow.by", "jwt"),
        ("tier_claim: ''", "acl.tier_claim", "is empty"),
    ] {
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ jwt: {{ algorithms: [RS256], keys: [ {{ pem: {}/tests/fixtures/keys/test-rsa.public.pem }} ] }}, acl: {{ {settings} }} ] }}\n",
            env!("CARGO_MANIFEST_DIR")
        );
        let (_, text) = check(&yaml);
        assert!(text.contains(place) && text.contains(message), "{settings}: {text}");
    }
}

#[test]
fn a_member_that_waits_makes_nobody_younger() {
    let origin = Origin::start("o");
    let judge = raw_backend(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            std::thread::sleep(Duration::from_millis(2200));
            let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let (gw, _dir) = gateway(
        &origin,
        &format!(
            "  - {{ match: {{ path: /* }}, service: main, filters: [ any_of: [ {{ forward_auth: {{ url: 'http://{judge}/', timeout: 9s, request_headers: [Cookie], identity: X-User }} }}, jwt: {{ JWT, leeway: 0s }} ] ] }}\n"
        ),
    );
    let ask = |lasts: u64| {
        let token = hs256(&json!({ "sub": "u", "exp": now() + lasts }));
        gw.get("/").header("Cookie", "a=b").bearer(&token).send().status
    };
    assert_eq!((ask(60), ask(1)), (200, 401));
}
