//! Several ways to say who a client is (`any_of`), and none (`anonymous`).

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    auth::{SECRET, hs256, now, sha256},
    basic::{basic, users},
    config_errors::check,
    doors::write_private,
    harness::{Gateway, Origin, raw_backend, read_head},
};

/// Keys `key-1` (acme, gold), `key-2` (globex, may read); `JWT` stands for settings of tokens, `USERS` for Alice and Bob.
fn gateway(origin: &Origin, routes: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let jwt = format!("algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ]", secret.display());
    let routes = routes.replace("JWT", &jwt).replace("USERS", &users());
    let yaml = format!(
        "api_keys:\n  - {{ id: k1, sha256: {}, owner: acme, tier: gold }}\n  - {{ id: k2, sha256: {}, owner: globex, scopes: [read] }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n{routes}",
        sha256("key-1"),
        sha256("key-2"),
        origin.url(),
    );
    (Gateway::start(&yaml), dir)
}

fn token() -> String {
    hs256(&json!({ "sub": "u1", "tier": "silver", "exp": now() + 60 }))
}

const THREE: &str = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key: {}, jwt: { JWT }, basic: { USERS, identity_header: X-Name } ] ] }\n";

#[test]
fn the_one_that_accepts_says_who_it_is_and_no_credential_goes_on() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, &THREE.replace("api_key: {}", "api_key"));
    let hearsay = |request: crate::harness::Request| {
        ["X-Consumer-ID", "X_Consumer_ID", "X-Auth-Subject", "X-Name", "X_Name"]
            .iter()
            .fold(request, |request, name| request.header(name, "spoofed"))
    };
    for (request, told, name) in [
        (gw.get("/").key("key-1"), "x-consumer-id", "acme"),
        (gw.get("/").bearer(&token()), "x-auth-subject", "u1"),
        (gw.get("/").header("Authorization", &basic("alice", "wonder:land")), "x-name", "alice"),
        // Of two good ones the first of the list counts.
        (gw.get("/").bearer(&token()).key("key-1"), "x-consumer-id", "acme"),
        (gw.get("/").header("Authorization", &basic("bob", "myPassword")).key("key-2"), "x-consumer-id", "globex"),
    ] {
        hearsay(request).expect(200);
        let seen = origin.last().headers;
        for field in ["x-api-key", "authorization", "x_consumer_id", "x_name"] {
            assert!(!seen.contains_key(field), "{name}: {seen:?}");
        }
        for field in ["x-consumer-id", "x-auth-subject", "x-name"] {
            let values: Vec<_> = seen.get_all(field).iter().collect();
            assert_eq!(values, if field == told { vec![name] } else { vec![] }, "{name}: {seen:?}");
        }
    }
    assert!(gw.log(5).iter().any(|line| line["identity"] == "u1"));
}

#[test]
fn without_a_credential_all_challenges_are_said() {
    let origin = Origin::start("o");
    let (gw, _dir) = gateway(&origin, &THREE.replace("api_key: {}", "client_cert, api_key"));
    let answer = gw.get("/").expect(401).problem();
    assert_eq!(
        answer.all("www-authenticate"),
        ["ApiKey realm=\"/*\", header=\"x-api-key\"", "Bearer realm=\"/*\"", "Basic realm=\"/*\", charset=\"UTF-8\""]
    );
    let line = gw.line_of(&answer.body);
    assert_eq!((line["reason"].as_str(), line["by"].as_str()), (Some("credentials_missing"), Some("any_of")));
    let answer = gw.get("/").bearer("a.b.c").expect(401).problem();
    assert_eq!(answer.all("www-authenticate").len(), 3);
    assert_eq!(gw.line_of(&answer.body)["reason"], "token_malformed");
    assert!(origin.seen().is_empty());
}

#[test]
fn a_wrong_credential_refuses_whatever_good_one_is_beside_it() {
    let origin = Origin::start("o");
    let orders = r"
  - { match: { path: /key-first }, service: main, filters: [ any_of: [ api_key, jwt: { JWT }, basic: { USERS, identity_header: X-Name } ] ] }
  - { match: { path: /token-first }, service: main, filters: [ any_of: [ jwt: { JWT, forward: true }, basic: { USERS, identity_header: X-Name, forward: true }, api_key: { forward: true } ] ] }
";
    let (gw, _dir) = gateway(&origin, orders);
    let mut forged = token();
    forged.truncate(forged.len() - 3);
    forged.push_str("AAA");
    for path in ["/key-first", "/token-first"] {
        let both = gw.get(path).key("key-1").bearer(&forged).expect(401).problem();
        assert_eq!(gw.line_of(&both.body)["reason"], "token_signature", "{path}");
        gw.get(path).key("key-1").header("Authorization", &basic("alice", "wrong")).expect(401);
        gw.get(path).key("wrong").bearer(&token()).expect(401);
        gw.get(path).key("wrong").header("Authorization", &basic("alice", "wonder:land")).expect(401);
        gw.get(path).key("key-1").header("Authorization", "Bearer").expect(401);
    }
    assert!(origin.seen().is_empty());
    // What belongs to none of them is nobody's, and goes nowhere either.
    gw.get("/token-first").key("key-1").header("Authorization", "Digest a=b").expect(200);
    let seen = origin.last().headers;
    assert!(
        !seen.contains_key("authorization") && seen["x-api-key"] == "key-1",
        "forward is the one's that accepted: {seen:?}"
    );
}

#[test]
fn two_readers_of_one_field_are_two_ways_to_read_one_credential() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key: { bearer: true, header: X-Key }, jwt: { JWT } ] ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/").bearer("key-1").expect(200);
    assert_eq!(origin.last().headers["x-consumer-id"], "acme");
    gw.get("/").bearer(&token()).expect(200);
    assert_eq!(origin.last().headers["x-auth-subject"], "u1");
    gw.get("/").bearer("neither").expect(401);
    gw.get("/").bearer(&token()).header("X-Key", "wrong").expect(401);
}

#[test]
fn who_shows_nothing_is_anonymous_and_who_shows_something_wrong_is_not() {
    let origin = Origin::start("o");
    let routes = r#"
  - match: { path: /open }
    service: main
    filters:
      - any_of: [ api_key, jwt: { JWT }, basic: { USERS, identity_header: X-Name }, anonymous: { tier: free } ]
      - rate_limit: { rate: 1/h, burst: 2, by: "claim:tier" }
  - match: { path: /members }
    service: main
    filters:
      - any_of: [ api_key, jwt: { JWT }, anonymous ]
      - acl: { deny: { by: anonymous } }
  - match: { path: /optional }
    service: main
    filters: [ jwt: { JWT, optional: true }, anonymous: { subject: visitor, tier: free }, acl: { allow: { subjects: [visitor, u1] } } ]
  - match: { path: /known }
    service: main
    filters: [ api_key, any_of: [ jwt: { JWT }, anonymous ], acl: { deny: { by: anonymous } } ]
"#;
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/open").header("X-Auth-Subject", "spoofed").header("X-Consumer-ID", "spoofed").expect(200);
    let seen = origin.last().headers;
    assert!(!seen.contains_key("x-auth-subject") && !seen.contains_key("x-consumer-id"), "{seen:?}");
    for request in [
        gw.get("/open").key("wrong"),
        gw.get("/open").bearer("wrong"),
        gw.get("/open").header("Authorization", &basic("alice", "wrong")),
        gw.get("/open").header("Authorization", "Digest a=b"),
        gw.get("/open").key("key-1").key("key-1"),
    ] {
        request.expect(401);
    }
    // Those who are anonymous have one bucket, and those who are known have others.
    gw.get("/open").expect(200);
    gw.get("/open").expect(429);
    gw.get("/open").key("key-1").expect(200);
    gw.get("/open").bearer(&token()).expect(200);
    let answer = gw.get("/members").expect(401).problem();
    assert_eq!(
        answer.all("www-authenticate"),
        ["ApiKey realm=\"/members\", header=\"x-api-key\"", "Bearer realm=\"/members\""]
    );
    gw.get("/members").key("key-1").expect(200);
    gw.get("/optional").expect(200);
    gw.get("/optional").bearer(&token()).expect(200);
    gw.get("/optional").bearer("wrong").expect(401);
    // Whoever a step before has made known is not anonymous.
    gw.get("/known").key("key-1").expect(200);
    assert!(gw.log(14).iter().any(|line| line["identity"] == "anonymous"));
}

#[test]
fn who_is_known_and_may_not_do_this_is_told_that() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key: { scopes: [read] }, jwt: { JWT, scopes: [read] } ] ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/").key("key-2").expect(200);
    let answer = gw.get("/").key("key-1").expect(403).problem();
    let line = gw.line_of(&answer.body);
    assert_eq!((line["reason"].as_str(), line["identity"].as_str()), (Some("scope_missing"), Some("acme")), "{line}");
    gw.get("/").bearer(&token()).expect(403).problem();
}

#[test]
fn a_service_that_is_asked_is_one_way_among_others() {
    let origin = Origin::start("o");
    let judge = raw_backend(|mut stream: std::net::TcpStream| {
        use std::io::Write as _;
        loop {
            let head = read_head(&mut stream);
            let answer = if head.is_empty() {
                return;
            } else if head.contains("session=good") {
                "HTTP/1.1 200 OK\r\nX-User: carol\r\nContent-Length: 0\r\n\r\n"
            } else {
                "HTTP/1.1 302 Found\r\nLocation: https://id.example/\r\nContent-Length: 0\r\n\r\n"
            };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let routes = format!(
        "  - {{ match: {{ path: /* }}, service: main, filters: [ any_of: [ api_key, forward_auth: {{ url: 'http://{judge}/', request_headers: [Cookie], response_headers: [X-User], identity: X-User }} ] ] }}\n  - {{ match: {{ path: /down }}, service: main, filters: [ any_of: [ api_key, forward_auth: {{ url: 'http://127.0.0.1:1/' }}, anonymous ] ] }}\n"
    );
    let (gw, _dir) = gateway(&origin, &routes);
    gw.get("/").header("Cookie", "session=good").expect(200);
    let seen = origin.last().headers;
    assert!(seen["x-user"] == "carol" && seen["cookie"] == "session=good" && !seen.contains_key("x-consumer-id"));
    gw.get("/").key("key-1").header("Cookie", "session=old").header("X-User", "spoofed").expect(200);
    let seen = origin.last().headers;
    assert!(seen["x-consumer-id"] == "acme" && !seen.contains_key("x-user") && !seen.contains_key("x-api-key"));
    gw.get("/").expect(302).has("location", "https://id.example/");
    // Nobody is anonymous because a service is down.
    gw.get("/down").expect(503);
    gw.get("/down").key("key-1").expect(200);
}

#[test]
fn signed_bodies_are_checked_when_the_signature_is_what_counted() {
    let origin = Origin::start("o");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let routes = format!(
        "  - {{ match: {{ path: /* }}, service: main, filters: [ any_of: [ api_key, hmac: {{ keys: [ {{ id: a, secrets: [ {{ file: {} }} ] }} ], identity_header: X-Signer }} ] ] }}\n",
        secret.display()
    );
    let (gw, _dir) = gateway(&origin, &routes);
    // A key alone needs no signature, and a body that nobody has signed is none of the filter's business.
    gw.request("POST", "/").key("key-1").body(b"free").expect(200);
    assert_eq!(&origin.last().body[..], b"free");
    gw.request("POST", "/").key("key-1").header("Signature", "sig=:AAAA:").body(b"free").expect(401);
    gw.request("POST", "/").body(b"free").expect(401);
}

#[test]
fn mistakes_in_members_are_told_in_their_place() {
    for (members, message) in [
        ("api_key", "any_of: has no choice to make"),
        ("anonymous, api_key", "any_of[1]: never reached: 'anonymous' before it"),
        ("api_key, ip: { deny: [10.0.0.0/8] }", "any_of[1]: 'ip' asks nobody who it is"),
        ("api_key, any_of: [ api_key, jwt ]", "any_of[1]: its members belong into the list around it"),
        ("api_key, api_kee", "any_of[1]: unknown filter 'api_kee' (did you mean 'api_key'?)"),
        ("api_key: { headr: a }, anonymous", "any_of[0].api_key: unknown key 'headr' (did you mean 'header'?)"),
        ("api_key: { allow: [nobody] }, anonymous", "any_of[0].api_key.allow[0]: no key has the id 'nobody'"),
        ("{ api_key: {}, on_fault: pass }, anonymous", "any_of[0]: expected one filter"),
        (
            "forward_auth: { url: 'http://a/' }, forward_auth: { url: 'http://b/' }",
            "any_of[1]: there may be one 'forward_auth'",
        ),
    ] {
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\napi_keys: [ {{ id: k1, sha256: {} }} ]\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ any_of: [ {members} ] ] }}\n",
            sha256("a")
        );
        let (code, text) = check(&yaml);
        assert!(code == 78 && text.contains(&format!("filters[0].{message}")), "{members}: {text}");
    }
    let twice = format!(
        "listeners: \"127.0.0.1:1\"\napi_keys: [ {{ id: k1, sha256: {} }} ]\nroutes:\n  - {{ match: {{ path: /* }}, respond: {{ body: a }}, filters: [ forward_auth: {{ url: 'http://a/' }}, any_of: [ api_key, forward_auth: {{ url: 'http://b/' }} ] ] }}\n",
        sha256("a")
    );
    assert!(check(&twice).1.contains("there is a 'forward_auth' step before it"));
}

#[test]
fn what_the_accepted_one_has_not_read_is_looked_at_and_hidden() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key: { bearer: true, forward: true }, jwt: { JWT } ] ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/").key("key-1").bearer(&format!("{}x", token())).expect(401);
    gw.get("/").key("key-1").bearer(&token()).expect(200);
    let seen = origin.last().headers;
    assert!(!seen.contains_key("authorization") && seen["x-api-key"] == "key-1", "{seen:?}");
    gw.get("/").bearer("key-1").expect(200);
    assert_eq!(origin.last().headers["authorization"], "Bearer key-1");
}

#[test]
fn a_second_key_in_another_field_of_the_same_member_must_be_good_too() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key: { bearer: true }, basic: { USERS, identity_header: X-Name }, anonymous: { tier: free } ] ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    let refused = gw.get("/").key("key-1").bearer("forged").expect(401).problem();
    assert_eq!(gw.line_of(&refused.body)["reason"], "key_unknown");
    assert!(origin.seen().is_empty());
    gw.get("/").key("key-1").bearer("key-1").expect(200);
    gw.get("/").key("key-1").header("Authorization", "Digest a=b").expect(200);
    assert!(!origin.last().headers.contains_key("authorization"));
}

#[test]
fn several_lines_of_a_key_are_a_wrong_credential() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /any }, service: main, filters: [ any_of: [ api_key, jwt: { JWT } ] ] }\n  - { match: { path: /alone }, service: main, filters: [ api_key: { bearer: true } ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/any").key("wrong").key("wrong").bearer(&token()).expect(401);
    gw.get("/alone").key("wrong").key("wrong").bearer("key-1").expect(401);
    gw.get("/alone").bearer("key-1").expect(200);
}

#[test]
fn a_signed_body_is_checked_beside_a_key() {
    let origin = Origin::start("o");
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write_private(&secret, SECRET);
    let routes = format!(
        "  - {{ match: {{ path: /* }}, service: main, filters: [ any_of: [ api_key, hmac: {{ keys: [ {{ id: a, secrets: [ {{ file: {} }} ] }} ], simple_header: X-Sign, identity_header: X-Signer }} ] ] }}\n",
        secret.display()
    );
    let (gw, _dir) = gateway(&origin, &routes);
    let digest = format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, b"one").as_ref()));
    for (path, body, status) in [("/a", b"one", 200), ("/b", b"two", 401)] {
        let t = now();
        let mac =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), format!("{t}\nPOST\n{path}\n{digest}").as_bytes());
        let hex = mac.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let request = gw.request("POST", path).key("key-1").header("Content-Digest", &digest);
        request.header("X-Sign", &format!("keyid=a,t={t},v1={hex}")).body(body).expect(status);
    }
}

#[test]
fn a_service_that_is_down_makes_nobody_anonymous() {
    let origin = Origin::start("o");
    let routes = "  - { match: { path: /* }, service: main, filters: [ any_of: [ api_key, forward_auth: { url: 'http://127.0.0.1:1/', on_error: allow }, anonymous ] ] }\n";
    let (gw, _dir) = gateway(&origin, routes);
    gw.get("/").header("Cookie", "session=forged").expect(503);
    gw.get("/").key("key-1").expect(200);
}
