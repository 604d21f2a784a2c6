//! What is allowed and hardly meant: `-t` says it, `-t --strict` refuses it, a start logs it.

use std::{fs, path::Path, process::Command};

use crate::harness::{Gateway, Origin, binary, eventually};

fn check(yaml: &str, more: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.yaml"), yaml).unwrap();
    let mut command = Command::new(binary());
    let out = command.args(["-t", "-c", "t.yaml"]).args(more).current_dir(&dir).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

fn with_filters(filters: &str) -> String {
    format!(
        "listeners: \"127.0.0.1:1\"
admin: {{ enabled: false }}
api_keys: [{{ id: a, scopes: [read, note], sha256: {} }}, {{ id: b, scopes: [write], sha256: {} }}, {{ id: old, scopes: [read, write, past], expires: 2020-01-01T00:00:00Z, sha256: {} }}]
services: {{ s: {{ urls: \"http://127.0.0.1:1\" }} }}
routes:
  - {{ match: {{ path: /* }}, service: s, filters: [{filters}] }}
",
        "a".repeat(64),
        "b".repeat(64),
        "c".repeat(64)
    )
}

/// Filters, and what is said of them.
const MEANT: &[(&str, &str)] = &[
    (
        "rate_limit: { rate: 1/s, by: api_key }",
        "rate_limit.by: no step before it asks who the client is, so all share one limit by 'api_key': put 'api_key' above it, or count by something else",
    ),
    (
        "rate_limit: { rate: 1/s, by: [path, api_key] }, api_key",
        "rate_limit.by[1]: no step before it asks who the client is, so all share one limit by 'api_key': put it below 'api_key'",
    ),
    ("in_flight: { max: 1, by: jwt }", "by 'jwt': put 'jwt' above it, or count by something else"),
    ("api_key, rate_limit: { rate: 1/s, by: \"claim:org\" }", "by 'claim:org': put 'jwt' above it"),
    (
        "api_key: { scopes: [read, admin] }",
        "api_key.scopes[1]: no key has the scope 'admin', so nobody can pass: give it to one under 'api_keys'",
    ),
    (
        "acl, api_key",
        "filters[0]: no step before it asks who the client is, so it refuses everybody: put it below 'api_key'",
    ),
    ("ip: { deny: [10.0.0.0/8] }, acl: { allow: { subjects: a } }", "it refuses everybody: put 'api_key' above it"),
    ("JWT, acl: { allow: { roles: a } }", ""),
    ("api_key, rate_limit: { rate: 1/s, by: \"claim:tier\" }", ""),
    ("api_key: { scopes: write, allow: a }", "api_key.scopes: no key of 'allow' has the scope 'write'"),
    (
        "ip: { deny: [0.0.0.0/0, \"::/0\"] }, request_id",
        "filters[1]: never reached: 'ip' before it denies every address",
    ),
    (
        "api_key, cors: \"*\"",
        "filters[1]: 'api_key' before it refuses every preflight, which carries no credentials: put 'cors' above it",
    ),
    (
        "api_key, headers: { response: { set: { X-Frame-Options: DENY } } }",
        "filters[1].headers.response: what 'api_key' before it refuses is answered without 'X-Frame-Options': put 'headers' above it",
    ),
    (
        "api_key: { scopes: [write, read] }",
        "api_key.scopes: no key that has not expired has all of these scopes, so nobody can pass: give them to one under 'api_keys'",
    ),
    (
        "api_key: { scopes: [note, write] }",
        "api_key.scopes: no key has all of these scopes, so nobody can pass: give them to one under 'api_keys'",
    ),
    (
        "api_key: { allow: old }",
        "api_key.allow: every key of 'allow' has expired, so nobody can pass: give one a later 'expires'",
    ),
    (
        "api_key: { scopes: [past] }",
        "api_key.scopes[0]: no key that has not expired has the scope 'past', so nobody can pass",
    ),
    ("api_key: { allow: [old, a] }", ""),
    ("api_key: { scopes: [read, note] }", ""),
    ("rate_limit: { rate: 1/s }", ""),
    ("api_key, rate_limit: { rate: 1/s, by: [api_key, path] }", ""),
    ("client_cert, in_flight: { max: 1, by: api_key }", ""),
    ("hmac: { keys: [{ id: a, secrets: [{ env: PATH }] }] }, rate_limit: { rate: 1/s, by: api_key }", ""),
    ("JWT, rate_limit: { rate: 1/s, by: [jwt, \"claim:org\"] }", ""),
    ("api_key: { scopes: write, allow: b }", ""),
    ("ip: { deny: [0.0.0.0/0] }, request_id", ""),
    ("headers: { response: { set: { X-Frame-Options: DENY } } }, cors: \"*\", api_key", ""),
    ("api_key, headers: { request: { set: { X-A: b } }, response: { add: { X-Served-By: b } } }", ""),
];

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let jwt = "jwt: { algorithms: [RS256], keys: [{ pem: KEY }] }";
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/test-rsa.public.pem");
    let mut wrong = Vec::new();
    for (filters, expected) in MEANT.iter().copied() {
        let filters: Vec<String> =
            filters.replace("JWT", jwt).replace("KEY", key).split("}, ").map(str::to_owned).collect();
        let yaml = with_filters(&filters.join("}, "));
        let (code, text) = check(&yaml, &[]);
        let found = text.lines().filter(|line| line.contains(": warning: ")).count();
        let right = code == 0 && text.contains("t.yaml: ok (1 route") && found == usize::from(!expected.is_empty());
        if !right || !text.contains(expected) {
            wrong.push(format!("{}: {text}", filters.join("}, ")));
        }
        let (code, text) = check(&yaml, &["--strict"]);
        assert_eq!(code, if expected.is_empty() { 0 } else { 78 }, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn services_and_prefixes_without_use_are_warnings() {
    let yaml = "listeners: \"127.0.0.1:1\"
admin: { enabled: false }
services:
  a: { urls: \"http://127.0.0.1:1\" }
  b: { urls: \"http://127.0.0.1:2\" }
  c: { urls: \"http://127.0.0.1:3\" }
routes:
  - { match: { path: [/x/*, \"/{any}/y\"] }, service: a, strip_prefix: /z }
  - { match: { path: [/v1/*, /v2] }, service: a, strip_prefix: /v3, mirror: { service: b } }
  - match: { path: /old }
    redirect: /new
    filters: [headers: { request: { set: { X-A: b } } }]
";
    let (code, text) = check(yaml, &[]);
    assert_eq!(code, 0, "{text}");
    let expected = "t.yaml:6:6: warning: services.c: no route leads to this service: name it in one, or take it out
t.yaml:9:64: warning: routes[1].strip_prefix: never taken off: no path of '/v1/*', '/v2' begins with '/v3': correct one of the two, or leave it out
t.yaml:12:35: warning: routes[2].filters[0].headers.request: no backend sees them, for this route answers by itself: take 'request' out
t.yaml: 3 warnings
t.yaml: ok (3 routes, 3 services, 0 tests)
";
    assert_eq!(text, expected);
    let (code, text) = check(yaml, &["--strict"]);
    assert_eq!(code, 78);
    assert!(text.ends_with("t.yaml: 3 warnings\n"), "{text}");
}

#[test]
fn a_start_logs_warnings_and_serves() {
    let origin = Origin::start("a");
    let gateway = Gateway::start(&format!(
        "services: {{ s: {{ urls: \"{0}\" }}, unused: {{ urls: \"{0}\" }} }}\nroutes: [{{ match: {{ path: /* }}, service: s }}]\n",
        origin.url()
    ));
    gateway.get("/").expect(200);
    eventually("the warning", || {
        gateway
            .errors()
            .lines()
            .any(|line| line.contains("WARN") && line.contains("services.unused: no route leads to"))
    });
}

#[test]
fn the_files_that_come_along_have_no_warnings() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(here.join("conf")).unwrap() {
        let path = entry.unwrap().path();
        let out = Command::new(binary())
            .args(["check", "--strict"])
            .arg(&path)
            .env("JWT_SECRET", "0123456789abcdef0123456789abcdef")
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn an_ipv6_wildcard_that_takes_no_ipv4_is_a_warning() {
    let said = |listeners: &str, more: &str| {
        let yaml = format!("listeners: {listeners}\n{more}\nroutes: [ {{ match: {{ path: /* }}, respond: {{}} }} ]\n");
        let (code, text) = check(&yaml, &[]);
        assert_eq!(code, 0, "{text}");
        text
    };
    let off = "admin: { enabled: false }";
    let all = "takes no connections over IPv4, for";
    let text = said("\"[::]:9090\"", "");
    let expected = format!("warning: listeners.address: {all} the admin listener has 127.0.0.1:9090");
    assert!(text.contains(&expected) && text.contains("give one of the two another port"), "{text}");
    let text = said("[\"127.0.0.1:8080\", \"[::]:8080\"]", off);
    let expected = format!("listeners[1].address: {all} listeners[0].address has 127.0.0.1:8080");
    assert!(text.contains(&expected), "{text}");
    for meant in ["\"[::]:9091\"", "[\"[::]:8080\", \"0.0.0.0:8080\"]", "[\"[::]:8080\", \"127.0.0.1:8081\"]"] {
        let text = said(meant, "");
        assert!(!text.contains("warning"), "{meant}: {text}");
    }
    let text = said("\"[::]:9090\"", off);
    assert!(!text.contains("warning"), "{text}");
}
