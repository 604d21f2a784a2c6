//! One mistake, one message: what only follows from a mistake is not said.

use std::{fs, process::Command};

use crate::harness::binary;

fn problems(yaml: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    fs::write(&file, yaml).unwrap();
    let out = Command::new(binary()).arg("-t").arg("-c").arg(&file).output().unwrap();
    assert_eq!(out.status.code(), Some(78), "{yaml}");
    let text = String::from_utf8(out.stderr).unwrap().replace(&file.display().to_string(), "t.yaml");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    lines
}

const GOOD: &str = "listeners:
  - { name: public, address: \"127.0.0.1:1\" }
admin: { enabled: false }
api_keys:
  - { id: acme, sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }
services:
  s: { urls: [\"http://127.0.0.1:1\"], in_flight: { max: 3 } }
routes:
  - { match: { path: /a, method: GET }, listeners: public, service: s, filters: [api_key: { allow: [acme] }] }
  - { match: { path: /a, method: POST }, listeners: public, redirect: /b }
  - { id: b, match: { path: /b }, service: s, canary: { service: s, header: X-A, value: y } }
";

#[test]
fn one_mistake_is_one_message() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in [
        ("redirect: /b", "redirect: { to: [/b] }", "routes[1].redirect.to"),
        ("redirect: /b", "redirct: /b", "routes[1]: unknown key 'redirct'"),
        ("service: s, filters", "service: [s], filters", "routes[0].service"),
        ("service: s, canary", "service: {}, canary", "routes[2].service"),
        ("method: GET", "method: get", "routes[0].match.method: did you mean 'GET'?"),
        ("method: GET", "method: [[GET]]", "routes[0].match.method[0]"),
        ("id: acme, sha256: aaaa", "id: acme, sha256: xyz", "api_keys[0].sha256"),
        ("id: acme, sha256:", "id: acme, sha265:", "api_keys[0]: unknown key 'sha265'"),
        ("id: acme,", "id: acme, scopes: {},", "api_keys[0].scopes"),
        ("name: public, address:", "name: public, adress:", "listeners[0]: unknown key 'adress'"),
        ("{ name: public, address: \"127.0.0.1:1\" }", "{ name: public }", "listeners[0]: key 'address' is missing"),
        (
            "public, address: \"127.0.0.1:1\"",
            "public, address: \"127.0.0.1:1\", tls: { certificates: [{ cert: a }] }",
            "listeners[0].tls.certificates[0]: key 'key' is missing",
        ),
        (
            "public, address: \"127.0.0.1:1\"",
            "public, address: \"127.0.0.1:1\", tls: { certificates: [] }",
            "listeners[0].tls.certificates: TLS needs at least one",
        ),
        ("  s: { urls: [\"http://127.0.0.1:1\"], in_flight: { max: 3 } }", "  - s", "services: expected a mapping"),
        ("http://127.0.0.1:1", "ftp://127.0.0.1:1", "services.s.urls[0]"),
        ("in_flight: { max: 3 }", "in_flight: { max: x }", "services.s.in_flight.max"),
        ("in_flight: { max: 3 }", "in_flight: { mx: 3 }", "services.s.in_flight: unknown key 'mx'"),
        (
            "in_flight: { max: 3 }",
            "in_flight: { max: x, adaptive: { min: 1, initial: 2 } }",
            "services.s.in_flight.max",
        ),
        ("in_flight: { max: 3 }", "health_check: { expect: [ok] }", "services.s.health_check.expect[0]"),
        (
            "in_flight: { max: 3 }",
            "circuit_breaker: { failure_threshold: 0, failure_rate: x }",
            "services.s.circuit_breaker.failure_rate",
        ),
        ("in_flight: { max: 3 }", "tls: { cert: a, key: [] }", "services.s.tls.key"),
        ("header: X-A", "header: [X-A, {}]", "routes[2].canary.header"),
        ("routes:", "rotues:", "unknown key 'rotues'"),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let found = problems(&GOOD.replacen(good, bad, 1));
        if found.len() != 1 || !found[0].contains(expected) {
            wrong.push((bad, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn two_mistakes_are_two_messages() {
    for (changes, expected) in [
        ([("method: GET", "method: get"), ("redirect: /b", "redirect: \"/{x}\"")], ["match.method", "redirect.to"]),
        ([("allow: [acme]", "allow: [amce]"), ("sha256: aaaa", "sha256: xyz")], ["no key has the id", "sha256"]),
        (
            [("service: s, filters", "service: t, filters"), ("max: 3", "max: x")],
            ["there is no service", "in_flight.max"],
        ),
        (
            [("listeners: public", "listeners: pubic"), ("name: public,", "name: public, h2cc: true,")],
            ["there is no listener", "h2cc"],
        ),
    ] {
        let yaml = changes.iter().fold(GOOD.to_owned(), |yaml, (good, bad)| yaml.replacen(good, bad, 1));
        let found = problems(&yaml);
        assert_eq!(found.len(), 2, "{yaml}{found:#?}");
        assert!(expected.iter().all(|part| found.iter().any(|line| line.contains(part))), "{found:#?}");
    }
}

#[test]
fn a_brace_without_quotes_gets_a_hint() {
    let found = problems(&GOOD.replace("path: /b }", "path: /b/{id} }"));
    assert_eq!(found.len(), 1, "{found:#?}");
    let hint = "(within brackets, a value that has a brace in it stands in quotes: \"/b/{id}\")";
    assert!(found[0].starts_with("t.yaml:11:") && found[0].ends_with(hint), "{found:#?}");
}
