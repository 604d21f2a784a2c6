//! Hostile tokens, made by hand: each is refused with 401, a challenge and its reason; and good ones, which are let in.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::{
    auth::{SECRET, now},
    harness::{Gateway, TestKey, client_raw},
};

/// What a request is refused for, in the access log.
const ALGORITHM: &str = "token_algorithm";
const KEY: &str = "token_key_unknown";
const SIGNATURE: &str = "token_signature";
const MALFORMED: &str = "token_malformed";
const CLAIM: &str = "token_claim";
const MISSING: &str = "credentials_missing";

/// One request: its path, its header lines, and the reason.
struct Case {
    what: String,
    path: &'static str,
    lines: Vec<String>,
    reason: &'static str,
}

fn case(path: &'static str, what: &str, token: &str, reason: &'static str) -> Case {
    Case { what: what.to_owned(), path, lines: vec![format!("Authorization: Bearer {token}")], reason }
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn good() -> Value {
    json!({ "sub": "u1", "iss": "id", "aud": "api", "iat": now() - 1, "exp": now() + 600 })
}

/// The usual claims with one that is another; `None` takes it away.
fn with(name: &str, value: Option<Value>) -> Value {
    let mut claims = good();
    let map = claims.as_object_mut().unwrap();
    map.remove(name);
    map.extend(value.map(|value| (name.to_owned(), value)));
    claims
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(&fs::read("tests/fixtures/keys/test-rsa.private.pem").unwrap()).unwrap()
}

fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET)
}

/// Any header and payload, signed properly.
fn signed(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A token of the shared secret with any header and payload.
fn hs(header: &str, payload: &str) -> String {
    signed(header, payload, Algorithm::HS256, &secret())
}

const HS: &str = r#"{"alg":"HS256"}"#;

fn hs_claims(claims: &Value) -> String {
    hs(HS, &claims.to_string())
}

fn gateway() -> (Gateway, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (secret, jwks) = (dir.path().join("secret"), dir.path().join("jwks.json"));
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&jwks, json!({ "keys": [TestKey::P256.jwk("es"), TestKey::Ed25519.jwk("ed")] }).to_string()).unwrap();
    let (secret, jwks) = (format!("{{ secret: {{ file: {} }} }}", secret.display()), jwks.display());
    let pem = format!("{{ pem: {} }}", fs::canonicalize("tests/fixtures/keys/test-rsa.public.pem").unwrap().display());
    let route = |path: &str, algorithms: &str, keys: &str, more: &str| {
        format!(
            "  - match: {{ path: {path} }}\n    respond: {{ body: in }}\n    filters: [ {{ jwt: {{ algorithms: [{algorithms}], keys: [ {keys} ], issuer: id, audience: api, leeway: 5s {more} }} }} ]\n"
        )
    };
    let set = format!("{{ jwks: {jwks} }}");
    let yaml = [
        "routes:\n".to_owned(),
        route("/hs", "HS256", &secret, ""),
        route("/rs", "RS256", &pem, ""),
        route("/es", "ES256", &set, ""),
        route("/ed", "EdDSA", &set, ""),
        route("/mix", "HS256, RS256, ES256, EdDSA", &format!("{secret}, {pem}, {set}"), ""),
        route("/optional", "HS256", &secret, ", optional: true"),
    ];
    (Gateway::start(&yaml.concat()), dir)
}

fn algorithms(cases: &mut Vec<Case>) {
    let claims = good().to_string();
    for alg in [
        "none", "None", "NONE", "nOnE", "", " none", "none ", "hs256", "HS257", "HS1", "ES256K", "ES512", "dir",
        "RSA-OAEP", "A128GCM", "RS256 ",
    ] {
        let header = json!({ "alg": alg }).to_string();
        cases.push(case(
            "/mix",
            &format!("alg '{alg}', unsigned"),
            &format!("{}.{}.", b64(&header), b64(&claims)),
            ALGORITHM,
        ));
        cases.push(case("/mix", &format!("alg '{alg}', signed"), &hs(&header, &claims), ALGORITHM));
    }
    for alg in [json!(null), json!(1), json!(["HS256"]), json!({ "HS256": 1 }), json!(true)] {
        cases.push(case("/hs", &format!("alg {alg}"), &hs(&json!({ "alg": alg }).to_string(), &claims), MALFORMED));
    }
    cases.push(case("/hs", "no alg", &hs(r#"{"typ":"JWT"}"#, &claims), MALFORMED));
    let pem = fs::read("tests/fixtures/keys/test-rsa.public.pem").unwrap();
    let trimmed = String::from_utf8(pem.clone()).unwrap().trim().to_owned().into_bytes();
    for (what, bytes) in [("the PEM", pem), ("the PEM without its end", trimmed)] {
        let confused = signed(HS, &claims, Algorithm::HS256, &EncodingKey::from_secret(&bytes));
        cases.push(case("/rs", &format!("{what} as a secret"), &confused, ALGORITHM));
        cases.push(case("/mix", &format!("{what} as a secret, where secrets are allowed"), &confused, SIGNATURE));
    }
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        let header = json!({ "alg": format!("{alg:?}") }).to_string();
        cases.push(case("/hs", &format!("{alg:?}"), &signed(header, &claims, alg, &secret()), ALGORITHM));
    }
    let pss = signed(r#"{"alg":"PS256"}"#, &claims, Algorithm::PS256, &rsa());
    cases.push(case("/rs", "PS256", &pss, ALGORITHM));
    cases.push(case(
        "/rs",
        "PS256 as RS256",
        &signed(r#"{"alg":"RS256"}"#, &claims, Algorithm::PS256, &rsa()),
        SIGNATURE,
    ));
    let ed = signed(r#"{"alg":"ES256"}"#, &claims, Algorithm::EdDSA, &TestKey::Ed25519.signing());
    cases.push(case("/mix", "EdDSA as ES256", &ed, SIGNATURE));
    let es = signed(r#"{"alg":"EdDSA"}"#, &claims, Algorithm::ES256, &TestKey::P256.signing());
    cases.push(case("/mix", "ES256 as EdDSA", &es, SIGNATURE));
    for (path, alg, bytes) in
        [("/es", "ES256", 64), ("/es", "ES256", 63), ("/ed", "EdDSA", 64), ("/ed", "EdDSA", 0), ("/rs", "RS256", 256)]
    {
        let message = format!("{}.{}", b64(json!({ "alg": alg }).to_string()), b64(&claims));
        cases.push(case(
            path,
            &format!("{alg}, {bytes} zeros"),
            &format!("{message}.{}", b64(vec![0; bytes])),
            SIGNATURE,
        ));
    }
    // r = s = the order of P-256.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551".repeat(2);
    let order: Vec<u8> = (0..64).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    cases.push(case(
        "/es",
        "r and s are the order",
        &format!("{}.{}.{}", b64(r#"{"alg":"ES256"}"#), b64(&claims), b64(order)),
        SIGNATURE,
    ));
}

fn keys(cases: &mut Vec<Case>) {
    let claims = good().to_string();
    let es = |header: Value| signed(header.to_string(), &claims, Algorithm::ES256, &TestKey::P256.signing());
    for kid in ["nope", "../../../dev/null", "' OR 1=1 --", "es\0", "ES", "es ", "", "https://evil.example/k", "ed"] {
        cases.push(case("/es", &format!("kid '{kid}'"), &es(json!({ "alg": "ES256", "kid": kid })), KEY));
    }
    cases.push(case("/es", "a long kid", &es(json!({ "alg": "ES256", "kid": "k".repeat(4000) })), KEY));
    for kid in [json!(7), json!(null), json!(["es"]), json!({ "es": 1 })] {
        cases.push(case("/es", &format!("kid {kid}"), &es(json!({ "alg": "ES256", "kid": kid })), MALFORMED));
    }
    let own = EncodingKey::from_secret(&[b'x'; 32]);
    for (name, value) in [
        ("jwk", json!({ "kty": "oct", "k": b64([b'x'; 32]) })),
        ("jwk", json!(null)),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("http://169.254.169.254/cert.pem")),
        ("x5c", json!(["AAAA"])),
    ] {
        let header = json!({ "alg": "HS256", name: value }).to_string();
        cases.push(case("/hs", &format!("{name} {value}"), &signed(&header, &claims, Algorithm::HS256, &own), KEY));
        cases.push(case("/hs", &format!("{name} {value}, of our key"), &hs(&header, &claims), KEY));
    }
    cases.push(case("/hs", "another secret", &signed(HS, &claims, Algorithm::HS256, &own), SIGNATURE));
    cases.push(case(
        "/hs",
        "x5t does not help",
        &signed(r#"{"alg":"HS256","x5t":"AAAA"}"#, &claims, Algorithm::HS256, &own),
        SIGNATURE,
    ));
    cases.push(case(
        "/hs",
        "an empty secret",
        &signed(HS, &claims, Algorithm::HS256, &EncodingKey::from_secret(b"")),
        SIGNATURE,
    ));
}

fn structure(cases: &mut Vec<Case>) {
    let claims = good().to_string();
    let good = hs(HS, &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let other = hs_claims(&with("sub", Some(json!("root"))));
    let other_payload = other.split('.').nth(1).unwrap();
    for (what, token) in [
        ("one part", header.to_owned()),
        ("two parts", message.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts", format!("{good}.{signature}.{signature}")),
        ("only dots", "..".to_owned()),
        ("three dots", "...".to_owned()),
        ("a dot before", format!(".{good}")),
        ("a dot behind", format!("{good}.")),
        ("no header", format!(".{payload}.{signature}")),
        ("padded header", format!("{header}=.{payload}.{signature}")),
        ("padded signature", format!("{good}=")),
        ("an encoded dot", good.replacen('.', "%2E", 1)),
        ("two tokens", format!("{good},{good}")),
        ("two tokens and a space", format!("{good} {good}")),
        ("quoted", format!("\"{good}\"")),
        ("JSON serialization", json!({ "payload": payload, "protected": header, "signature": signature }).to_string()),
        ("of 9 KiB", hs_claims(&with("pad", Some(json!("x".repeat(7000)))))),
    ] {
        cases.push(case("/hs", what, &token, MALFORMED));
    }
    for (what, token) in [
        ("no payload", format!("{header}..{signature}")),
        ("padded payload", format!("{header}.{payload}=.{signature}")),
        ("a space inside", format!("{header}. {payload}.{signature}")),
        ("a tab inside", format!("{header}.{payload}\t.{signature}")),
        ("the payload of another", format!("{header}.{other_payload}.{signature}")),
        ("without a signature", format!("{message}.")),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("a longer signature", format!("{good}AAAA")),
        ("another header of the same meaning", format!("{}.{payload}.{signature}", b64(r#"{"alg": "HS256"}"#))),
    ] {
        cases.push(case("/hs", what, &token, SIGNATURE));
    }
    // 32 bytes are 43 digits, whose last has two bits to spare.
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = digits.find(&good[good.len() - 1..]).unwrap();
    let respelled = format!("{}{}", &good[..good.len() - 1], &digits[last + 1..last + 2]);
    cases.push(case("/hs", "stray bits", &respelled, MALFORMED));
    // One whose signature has a digit that the two alphabets of base64 spell differently.
    let spelt = (0..).map(|number| hs_claims(&with("jti", Some(json!(number)))));
    let spelt = spelt.into_iter().find(|token| token.rsplit_once('.').unwrap().1.contains(['-', '_'])).unwrap();
    let (message, signature) = spelt.rsplit_once('.').unwrap();
    let other = format!("{message}.{}", signature.replace('-', "+").replace('_', "/"));
    cases.push(case("/hs", "plus and slash", &other, MALFORMED));
}

fn objects(cases: &mut Vec<Case>) {
    let claims = good().to_string();
    for header in [
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"HS256"}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "null",
        "",
        r#"{"alg":"HS256"} x"#,
        r#"{"alg":"HS256",}"#,
        "{'alg':'HS256'}",
        "\u{feff}{\"alg\":\"HS256\"}",
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
    ] {
        cases.push(case("/hs", &format!("header {header}"), &hs(header, &claims), MALFORMED));
    }
    let more = |text: &str| claims.replacen('{', &format!("{{{text},"), 1);
    for payload in [
        more(r#""sub":"root""#),
        more(r#""exp":1"#),
        more(r#""\u0073ub":"root""#),
        more(r#""realm":{"roles":["user"],"roles":["admin"]}"#),
        more(r#""list":[{"a":1,"a":2}]"#),
        more("\"n\":NaN"),
        more("// no\n\"n\":1"),
        more(&format!("\"deep\":{}{}", "[".repeat(1000), "]".repeat(1000))),
        format!("{claims}{claims}"),
        format!("[{claims}]"),
        "\"text\"".to_owned(),
        "17".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        String::new(),
        claims[..claims.len() - 1].to_owned(),
    ] {
        cases.push(case("/hs", &format!("payload {payload:.60}"), &hs(HS, &payload), MALFORMED));
    }
    cases.push(case(
        "/hs",
        "not UTF-8",
        &signed(HS, [&b"{\"sub\":\"\xff\"}"[..]].concat(), Algorithm::HS256, &secret()),
        MALFORMED,
    ));
}

fn add_claim(cases: &mut Vec<Case>, name: &str, value: Option<Value>, reason: &'static str) {
    let what = format!("{name} {}", value.as_ref().map_or_else(|| "missing".to_owned(), Value::to_string));
    cases.push(case("/hs", &what, &hs_claims(&with(name, value)), reason));
}

fn times(cases: &mut Vec<Case>) {
    let mut add = |name: &str, value: Option<Value>, reason: &'static str| add_claim(cases, name, value, reason);
    let text = (now() + 600).to_string();
    for value in [
        json!(text),
        json!(null),
        json!(true),
        json!([now() + 600]),
        json!({}),
        json!(1e300),
        json!(u64::MAX),
        json!(1_900_000_000_000_u64),
        json!(""),
    ] {
        add("exp", Some(value), MALFORMED);
    }
    add("exp", None, CLAIM);
    for value in [json!(0), json!(-1), json!(now() - 6), json!(now() - 3600), json!(1.5), json!(-1e300)] {
        add("exp", Some(value), "token_expired");
    }
    for name in ["nbf", "iat"] {
        for value in [json!(text), json!(null), json!(false), json!([])] {
            add(name, Some(value), MALFORMED);
        }
        for value in [json!(now() + 3600), json!(now() + 60)] {
            add(name, Some(value), "token_not_yet_valid");
        }
    }
}

fn parties(cases: &mut Vec<Case>) {
    let mut add = |name: &str, value: Option<Value>, reason: &'static str| add_claim(cases, name, value, reason);
    for value in [
        json!("other"),
        json!([]),
        json!(["other"]),
        json!(7),
        json!({ "api": 1 }),
        json!(null),
        json!([["api"]]),
        json!("api "),
        json!("API"),
        json!(""),
        json!("api,other"),
        json!("api other"),
    ] {
        add("aud", Some(value), "token_audience");
    }
    add("aud", None, CLAIM);
    for value in [
        json!("other"),
        json!(["id"]),
        json!(7),
        json!(null),
        json!("id "),
        json!("ID"),
        json!(""),
        json!("https://id"),
        json!({ "id": 1 }),
    ] {
        add("iss", Some(value), "token_issuer");
    }
    add("iss", None, CLAIM);
    for value in [
        json!(""),
        json!(["u1"]),
        json!({}),
        json!(true),
        json!("a\r\nX-Admin: 1"),
        json!("a\0b"),
        json!(" root"),
        json!("root "),
        json!(" "),
    ] {
        add("sub", Some(value), CLAIM);
    }
}

fn carriage(cases: &mut Vec<Case>) {
    let token = hs_claims(&good());
    let bearer = format!("Authorization: Bearer {token}");
    let mut add = |path: &'static str, lines: Vec<String>, reason: &'static str| {
        let what = lines.join(" | ").replace(&token, "TOKEN");
        cases.push(Case { what: format!("{path} {what}"), path, lines, reason });
    };
    add("/hs", vec![], MISSING);
    add("/hs", vec![bearer.clone(), bearer.clone()], MALFORMED);
    add("/hs", vec![bearer.clone(), "Authorization: Basic YTpi".to_owned()], MALFORMED);
    add("/hs", vec!["Authorization: Basic YTpi".to_owned(), bearer.clone()], MALFORMED);
    for value in
        ["Bearer", "Bearer ", "Bearer\tTOKEN", "Bearer,TOKEN", "Bearer TOKEN, Bearer TOKEN", "bearer Bearer TOKEN"]
    {
        for path in ["/hs", "/optional"] {
            add(path, vec![format!("Authorization: {}", value.replace("TOKEN", &token))], MALFORMED);
        }
    }
    for value in ["TOKEN", "Basic TOKEN", "Token TOKEN", "DPoP TOKEN", "BearerTOKEN", "", "JWT TOKEN"] {
        add("/hs", vec![format!("Authorization: {}", value.replace("TOKEN", &token))], MISSING);
    }
    for line in [
        "Cookie: token=TOKEN; access_token=TOKEN; Authorization=Bearer TOKEN",
        "X-Token: TOKEN",
        "Proxy-Authorization: Bearer TOKEN",
        "X-Authorization: Bearer TOKEN",
        "Authorization_: Bearer TOKEN",
    ] {
        add("/hs", vec![line.replace("TOKEN", &token)], MISSING);
    }
    add("/optional", vec![bearer.clone(), bearer.clone()], MALFORMED);
    add("/optional", vec![format!("Authorization: Bearer {token}x")], SIGNATURE);
    add(
        "/optional",
        vec![format!("Authorization: Bearer {}", hs_claims(&with("exp", Some(json!(1)))))],
        "token_expired",
    );
}

#[test]
fn every_hostile_token_is_refused_with_its_reason() {
    let (gw, _dir) = gateway();
    let mut cases = Vec::new();
    for add in [algorithms, keys, structure, objects, times, parties, carriage] {
        add(&mut cases);
    }
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { what, path, lines, reason } in &cases {
        let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
        let answer = client_raw(
            gw.port,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n").as_bytes(),
        );
        let lower = answer.to_ascii_lowercase();
        let challenge =
            lower.lines().find(|line| line.starts_with("www-authenticate: bearer realm=\"")).unwrap_or_default();
        // RFC 6750 §3.1: no error code when no token was sent.
        let coded = challenge.contains("error=\"invalid_token\"") == (*reason != MISSING);
        if !answer.starts_with("HTTP/1.1 401 ") || challenge.is_empty() || !coded {
            wrong.push(format!("{what}: {answer}"));
            continue;
        }
        let line = gw.line_of(&answer);
        if line["reason"] != *reason || line["by"] != "jwt" {
            wrong.push(format!("{what}: {line} for {reason}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn good_tokens_are_let_in() {
    let (gw, _dir) = gateway();
    let claims = good().to_string();
    let es = |header: &str| signed(header, &claims, Algorithm::ES256, &TestKey::P256.signing());
    let ed = |header: &str| signed(header, &claims, Algorithm::EdDSA, &TestKey::Ed25519.signing());
    let rs = |header: &str| signed(header, &claims, Algorithm::RS256, &rsa());
    let hs_with = |name: &str, value: Value| hs_claims(&with(name, Some(value)));
    for (path, token) in [
        ("/hs", hs(HS, &claims)),
        ("/hs", hs(r#"{"typ":"at+jwt","alg":"HS256","x5t":"AAAA","kid":"any"}"#, &claims)),
        ("/hs", hs_with("aud", json!(["other", "api"]))),
        ("/hs", hs_with("exp", json!(f64::from(u32::try_from(now()).unwrap()) + 60.5))),
        ("/hs", hs_with("exp", json!(now() - 2))),
        ("/hs", hs_with("nbf", json!(now() + 2))),
        ("/hs", hs_with("sub", json!(42))),
        ("/hs", hs_claims(&with("sub", None))),
        ("/rs", rs(r#"{"alg":"RS256"}"#)),
        ("/rs", rs(r#"{"alg":"RS256","kid":"a PEM file has no name"}"#)),
        ("/es", es(r#"{"alg":"ES256","kid":"es"}"#)),
        ("/es", es(r#"{"alg":"ES256"}"#)),
        ("/ed", ed(r#"{"alg":"EdDSA","kid":"ed"}"#)),
        ("/ed", ed(r#"{"alg":"EdDSA"}"#)),
        ("/mix", hs(HS, &claims)),
        ("/mix", rs(r#"{"alg":"RS256"}"#)),
        ("/mix", es(r#"{"alg":"ES256","kid":"es"}"#)),
        ("/mix", ed(r#"{"alg":"EdDSA","kid":"ed"}"#)),
        ("/optional", hs(HS, &claims)),
    ] {
        // Twice: the second is known by its digest.
        gw.get(path).bearer(&token).expect(200);
        gw.get(path).bearer(&token).expect(200);
    }
    gw.get("/hs").header("authorization", &format!("bEARER   {}", hs(HS, &claims))).expect(200);
    gw.get("/optional").expect(200);
    gw.get("/optional").header("authorization", "Basic YTpi").expect(200);
}

#[test]
fn a_token_without_a_key_id_is_tried_with_sixteen_keys() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let text = |i: usize| format!("{i:0>32}");
    let keys: Vec<String> = (0..17)
        .map(|i| {
            let file = dir.path().join(i.to_string());
            fs::write(&file, text(i)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            format!("{{ secret: {{ file: {} }} }}", file.display())
        })
        .collect();
    let pem = fs::canonicalize("tests/fixtures/keys/test-rsa.public.pem").unwrap();
    let route = |path: &str, keys: &[String]| {
        format!(
            "  - match: {{ path: {path} }}\n    respond: {{ body: in }}\n    filters: [ {{ jwt: {{ algorithms: [HS256, RS256], keys: [ {{ pem: {} }}, {} ] }} }} ]\n",
            pem.display(),
            keys.join(", ")
        )
    };
    let gw = Gateway::start(&format!("routes:\n{}{}", route("/all", &keys), route("/some", &keys[..16])));
    let by = |i| signed(HS, good().to_string(), Algorithm::HS256, &EncodingKey::from_secret(text(i).as_bytes()));
    for i in [0, 7, 8, 15] {
        gw.get("/all").bearer(&by(i)).expect(200);
        gw.get("/some").bearer(&by(i)).expect(200);
    }
    let answer = gw.get("/all").bearer(&by(16)).expect(401).problem();
    let answer = answer.says("the token does not say which key has signed it");
    assert_eq!(gw.line_of(&answer.body)["reason"], KEY);
    gw.get("/some").bearer(&by(16)).expect(401).says("the token's signature is wrong");
}
