//! Requests that the gateway signs for its backends.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    auth::sha256,
    config_errors::check,
    harness::{Gateway, Origin, Seen, eventually},
    hmac::{OLD, SECRET, secret},
    identity::{jwt, token},
};

/// The components that the request's signature covers, if `SECRET` has made it over what the backend has seen.
fn covered(seen: &Seen, secret: &[u8]) -> Vec<String> {
    let text = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (input, signature) = (text("signature-input").expect("signed"), text("signature").expect("signed"));
    let params = input.strip_prefix("sig1=").unwrap();
    let names = params.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let names: Vec<String> = names.split(' ').map(|name| name.trim_matches('"').to_owned()).collect();
    let value = |name: &str| match name {
        "@method" => seen.method.to_string(),
        "@authority" => text("host").unwrap(),
        "@path" => seen.uri.path().to_owned(),
        "@query" => format!("?{}", seen.uri.query().unwrap_or_default()),
        _ => text(name).unwrap(),
    };
    let mut lines: Vec<String> = names.iter().map(|name| format!("\"{name}\": {}", value(name))).collect();
    lines.push(format!("\"@signature-params\": {params}"));
    let base = lines.join("\n");
    let mac = STANDARD.decode(signature.strip_prefix("sig1=:").unwrap().strip_suffix(':').unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    assert!(hmac::verify(&key, base.as_bytes(), &mac).is_ok(), "{base}");
    names
}

fn nonce(seen: &Seen) -> String {
    let input = seen.headers["signature-input"].to_str().unwrap();
    input.split_once("nonce=\"").unwrap().1.split_once('"').unwrap().0.to_owned()
}

/// A gateway that signs what it sends to its service; `more` belongs to `sign`, `route` to the route.
fn signing(origin: &str, more: &str, route: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&format!(
        "api_keys: [ {{ id: k1, sha256: {}, owner: acme }} ]\nservices:\n  main: {{ urls: ['{origin}'], sign: {{ key_id: k1, secret: {{ file: {} }} {more} }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ api_key ]\n{route}",
        sha256("key-1"),
        secret(&dir, "secret", SECRET)
    ));
    (gateway, dir)
}

#[test]
fn what_a_backend_gets_is_signed_as_it_comes() {
    let origin = Origin::start("o");
    let (gw, _dir) = signing(&origin.url(), "", "    strip_prefix: /v1\n");
    gw.get("/v1/a%2Fb/../c?x=1&y=%20").header("X-API-Key", "key-1").header("X-Consumer-ID", "root").expect(200);
    let seen = origin.last();
    assert_eq!(seen.headers["x-consumer-id"], "acme");
    assert_eq!(covered(&seen, SECRET), ["@method", "@authority", "@path", "@query", "x-consumer-id"]);
    // A client's own signature is no part of it.
    let post = gw.request("POST", "/v1/p").header("X-API-Key", "key-1").header("Signature", "sig1=:AAAA:");
    let post = post.header("Signature_Input", "zz");
    post.header("Signature-Input", "sig1=()").header("Content-Digest", "sha-256=:AAAA:").body(b"abc").expect(200);
    let with_body = origin.last();
    assert!(!with_body.headers.contains_key("signature_input"), "some backends read it as the one with a dash");
    assert!(covered(&with_body, SECRET).contains(&"content-digest".to_owned()));
    assert_ne!(nonce(&seen), nonce(&with_body));
    gw.get("/v1/a").expect(401);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn another_gateway_verifies_it_once() {
    let (origin, dir) = (Origin::start("o"), tempfile::tempdir().unwrap());
    let inner = Gateway::start(&format!(
        "services: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {{ hmac: {{ keys: [ {{ id: k1, owner: outer, secrets: [ {{ file: {} }} ] }} ] }} }} ]\n",
        origin.url(),
        secret(&dir, "secret", SECRET)
    ));
    // It takes fields of its own meaning away from every client, signed or not.
    let components = ", components: ['@method', '@authority', '@path', '@query']";
    let (gw, _dir) = signing(&format!("http://127.0.0.1:{}", inner.port), components, "");
    for _ in 0..2 {
        gw.get("/a?b=c").header("X-API-Key", "key-1").expect(200);
    }
    assert_eq!(origin.last().headers["x-consumer-id"], "outer");
    inner.get("/a?b=c").expect(401);
}

#[test]
fn each_attempt_and_each_copy_is_signed_by_itself() {
    let (origin, other, shadow) = (Origin::start("a"), Origin::start("b"), Origin::start("shadow"));
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (secret(&dir, "one", SECRET), secret(&dir, "two", OLD));
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: ['{}', '{}'], hedge: {{ after: 50ms }}, sign: {{ key_id: k1, secret: {{ file: {one} }}, components: ['@path', x-attempts] }} }}\n  shadow: {{ urls: ['{}'], sign: {{ key_id: k2, secret: {{ file: {two} }} }} }}\n  again: {{ urls: ['{}', '{}'], retry: {{ on: ['500'] }}, sign: {{ key_id: k1, secret: {{ file: {one} }} }} }}\nroutes:\n  - {{ match: {{ path: /status/* }}, service: again }}\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: shadow }} }}\n",
        origin.url(),
        other.url(),
        shadow.url(),
        origin.url(),
        other.url()
    ));
    gw.get("/slow/400").expect(200);
    eventually("the hedge and the copy have come", || {
        origin.seen().len() + other.seen().len() == 2 && shadow.seen().len() == 1
    });
    let (first, second) = (origin.last(), other.last());
    assert_eq!(
        (covered(&first, SECRET), covered(&second, SECRET).len()),
        (vec!["@path".into(), "x-attempts".into()], 2)
    );
    assert_ne!(nonce(&first), nonce(&second));
    covered(&shadow.last(), OLD);
    gw.get("/status/500").expect(500);
    let (first, second) = (origin.last(), other.last());
    covered(&first, SECRET);
    covered(&second, SECRET);
    assert!(first.uri.path() == second.uri.path() && nonce(&first) != nonce(&second), "{first:?} {second:?}");
}

#[test]
fn a_field_that_no_signature_can_carry_is_the_clients_mistake() {
    // With and without requests that go to two backends.
    for more in ["", "}, hedge: { after: 50ms"] {
        refuses_what_cannot_be_signed(more);
    }
}

fn refuses_what_cannot_be_signed(more: &str) {
    let origin = Origin::start("o");
    let (gw, _dir) = signing(&origin.url(), more, "");
    let send = |field: &[u8]| {
        let head = b"GET /a HTTP/1.1\r\nHost: a.test\r\nX-API-Key: key-1\r\nConnection: close\r\n";
        gw.raw(&[&head[..], field, b"\r\n\r\n"].concat())
    };
    for _ in 0..20 {
        let answer = send(b"Content-Digest: \xe9");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("'content-digest' has bytes"), "{answer}");
        assert_eq!(gw.line_of(&answer)["reason"], "field_unsignable");
    }
    assert!(origin.seen().is_empty());
    // What is not covered may have any bytes, and so may what a filter replaces.
    for field in [&b"X-Other: \xe9"[..], b"X-Consumer-ID: \xe9"] {
        let answer = send(field);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        covered(&origin.last(), SECRET);
    }
    assert!(!gw.errors().contains("cannot be signed"), "{}", gw.errors());
}

#[test]
fn a_token_whose_name_no_signature_can_carry_is_refused_where_requests_are_signed() {
    let (origin, dir) = (Origin::start("o"), tempfile::tempdir().unwrap());
    let jwt = jwt("").replace("{secret}", &secret(&dir, "jwt", crate::auth::SECRET));
    let gw = Gateway::start(&format!(
        "services:\n  plain: {{ urls: ['{}'] }}\n  main: {{ urls: ['{}'], sign: {{ key_id: k1, secret: {{ file: {} }} }} }}\nroutes:\n  - {{ match: {{ path: /plain }}, service: plain, filters: [ {{ {jwt} }} ] }}\n  - {{ match: {{ path: /* }}, service: main, filters: [ {{ {jwt} }} ] }}\n",
        origin.url(),
        origin.url(),
        secret(&dir, "secret", SECRET)
    ));
    let (ascii, other) = (token(json!({ "sub": "jose" })), token(json!({ "sub": "jos\u{e9}" })));
    gw.get("/a").bearer(&ascii).expect(200);
    gw.get("/plain").bearer(&other).expect(200);
    gw.get("/a").bearer(&other).expect(403).says("'x-auth-subject' has bytes");
    assert!(gw.log(3).iter().any(|line| line["reason"] == "identity_unsignable"));
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn names_that_no_signature_can_carry_are_refused_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, "secret", SECRET);
    let with = |keys: &str, filter: &str, sign: &str| {
        check(&format!(
            "listeners: [ {{ address: 127.0.0.1:8080 }} ]\napi_keys: [ {{ sha256: {}, {keys} }} ]\nservices: {{ main: {{ urls: ['http://127.0.0.1:1'] {sign} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, filters: [ {filter} ] }} ]\n",
            sha256("key-1")
        ))
    };
    let sign = format!(", sign: {{ key_id: a, secret: {{ file: {file} }} }}");
    let by_path = format!(", sign: {{ key_id: a, secret: {{ file: {file} }}, components: ['@path'] }}");
    let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    let hmac = format!("{{ hmac: {{ keys: [ {{ id: a, owner: josé, secrets: [ {{ file: {file} }} ] }} ] }} }}");
    let basic = format!("{{ basic: {{ users: [ {{ name: josé, password_hash: {hash} }} ] }} }}");
    for (keys, filter, field) in [
        ("id: josé", "api_key", "x-consumer-id"),
        ("id: a, owner: josé", "{ any_of: [ api_key, anonymous ] }", "x-consumer-id"),
        ("id: a", hmac.as_str(), "x-consumer-id"),
        ("id: a", basic.as_str(), "x-auth-subject"),
    ] {
        let (code, text) = with(keys, filter, &sign);
        let said = format!("services.main.sign: covers '{field}', by which a filter tells backends of 'josé'");
        assert!(code == 78 && text.contains(&said), "{keys} {filter}: {text}");
        for unsigned in ["", &by_path] {
            let (code, text) = with(keys, filter, unsigned);
            assert_eq!(code, 0, "{keys} {filter}: {text}");
        }
    }
}

#[test]
fn settings_that_protect_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (long, short) = (secret(&dir, "long", SECRET), secret(&dir, "short", b"short"));
    for (settings, said) in [
        (format!("key_id: 'a\"b', secret: {{ file: {long} }}"), "services.main.sign.key_id: no signature can name it"),
        (
            format!("key_id: a, secret: {{ file: {short} }}"),
            "services.main.sign.secret: the secret has fewer than 32 bytes",
        ),
        (format!("key_id: a, secret: {{ file: {long} }}, components: [x-a]"), "services.main.sign.components: "),
        (
            format!("key_id: a, secret: {{ file: {long} }}, components: ['@path', host]"),
            "components[1]: a backend over HTTP/2 gets no 'Host'",
        ),
        (
            format!("key_id: a, secret: {{ file: {long} }}, components: ['@path', signature]"),
            "components[1]: is replaced by the gateway's own",
        ),
        (
            format!("key_id: a, secret: {{ file: {long} }}, components: ['@path', X-A]"),
            "components[1]: 'X-A' is neither",
        ),
        (
            format!("key_id: a, secret: {{ file: {long} }}, components: ['@path', '@path']"),
            "components[1]: '@path' is there twice",
        ),
    ] {
        let (code, text) = check(&format!(
            "listeners: [ {{ address: 127.0.0.1:8080 }} ]\nservices: {{ main: {{ urls: ['http://127.0.0.1:1'], sign: {{ {settings} }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\n"
        ));
        assert!(code == 78 && text.contains(said), "{settings}: {text}");
    }
    let (code, text) = check(&format!(
        "listeners: [ {{ address: 127.0.0.1:8080 }} ]\napi_keys: [ {{ id: k1, sha256: {} }} ]\nservices: {{ main: {{ urls: ['http://127.0.0.1:1'], sign: {{ key_id: a, secret: {{ file: {long} }} }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, filters: [ {{ api_key: {{ identity_header: X-Who }} }} ] }} ]\n",
        sha256("key-1")
    ));
    let said = "warning: services.main.sign: does not cover 'x-who', by which a filter tells who the client is";
    assert!(code == 0 && text.contains(said), "{text}");
}
