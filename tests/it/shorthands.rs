//! The short forms that YAML may use, through the running binary: each means what its long form means.

use std::{fs, process::Command};

use crate::harness::{Gateway, Origin, binary};

/// What `-t` says of a configuration: the exit code and the text.
fn check(yaml: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    fs::write(&file, yaml).unwrap();
    let out = Command::new(binary()).arg("-t").arg("-c").arg(&file).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap().replace(&file.display().to_string(), "t.yaml");
    (out.status.code().unwrap(), text)
}

#[test]
fn a_listener_is_an_address_and_a_list_is_one_word() {
    let origin = Origin::start("a");
    for address in ["127.0.0.1:{port}", ":{port}", "localhost:{port}"] {
        for listeners in
            [format!("\"{address}\""), format!("[\"{address}\"]"), format!("[{{ address: \"{address}\" }}]")]
        {
            let gateway = Gateway::start(&format!(
                "listeners: {listeners}\nadmin: {{ address: \"localhost:{{admin}}\" }}\nservices: {{ s: {{ urls: \"{}\" }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: s }}\n",
                origin.url()
            ));
            assert_eq!(gateway.get("/a").expect(200).body, "a", "{listeners}");
        }
    }
}

#[test]
fn filters_and_redirects_take_one_value() {
    let origin = Origin::start("a");
    let gateway = Gateway::start(&format!(
        "services: {{ s: {{ urls: \"{}\" }} }}
routes:
  - {{ match: {{ path: /a }}, service: s, filters: [cors: \"*\", rate_limit: 2/h] }}
  - {{ match: {{ path: /small }}, service: s, filters: [body_limit: 4] }}
  - {{ match: {{ path: \"/old/*\" }}, redirect: \"https://new.example{{path}}{{query}}\" }}
",
        origin.url()
    ));
    let answer = gateway.get("/a").header("Origin", "https://x.example").expect(200);
    answer.has("access-control-allow-origin", "*").has("ratelimit-policy", "\"default\";q=2;w=3600");
    gateway.request("POST", "/small").body(b"12345").expect(413);
    gateway.get("/old/x?y").expect(308).has("location", "https://new.example/old/x?y");
}

#[test]
fn short_forms_build_what_the_long_ones_build() {
    let wrap = |service: &str, route: &str| {
        format!(
            "listeners: \"127.0.0.1:1\"\nadmin: {{ enabled: false }}\napi_keys: [{{ id: a, scopes: read, sha256: {} }}]\nservices: {{ s: {{ urls: \"http://127.0.0.1:1\"{service} }} }}\nroutes:\n  - {{ match: {{ path: /*, method: GET }}, service: s{route} }}\n",
            "a".repeat(64)
        )
    };
    let mut wrong = Vec::new();
    for (service, route) in [
        (", health_check: { path: /, expect: 2xx }", ""),
        (", health_check: { path: /, expect: 204 }", ""),
        (", health_check: { path: /, expect: [200, 3xx, \"404\"] }", ""),
        (", retry: { on: connect }", ""),
        (", circuit_breaker: { failures: timeout }", ""),
        ("", ", filters: request_id"),
        ("", ", filters: [{ body_limit: 50MB }]"),
        ("", ", filters: [{ body_limit: { max: 50MiB } }]"),
        ("", ", filters: [{ api_key: { allow: a, scopes: read } }]"),
        ("", ", filters: [{ cors: { origins: https://a.example, methods: GET, headers: X-A, expose_headers: X-B } }]"),
        ("", ", filters: [{ ip: { deny: 10.0.0.0/8 } }]"),
        ("", ", filters: [{ headers: { request: { remove: X-A } } }]"),
        ("", ", filters: [{ rate_limit: { rate: 1/s, by: path } }]"),
    ] {
        let (code, text) = check(&wrap(service, route));
        if code != 0 {
            wrong.push(format!("{service}{route}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_wrong_short_form_says_what_is_right() {
    let wrap = |line: &str| {
        format!(
            "listeners: \"127.0.0.1:1\"\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: \"http://h\" }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n    {line}\n"
        )
    };
    for (line, expected) in [
        (
            "filters: [{ rate_limit: 10 }]",
            "7:29: routes[0].filters[0].rate_limit: '10' is not a rate: write it like 10/s",
        ),
        (
            "filters: [{ rate_limit: [10/s] }]",
            "7:29: routes[0].filters[0].rate_limit: expected a rate like 10/s, or a mapping, found a list",
        ),
        ("filters: [{ body_limit: 50XB }]", "7:29: routes[0].filters[0].body_limit: '50XB' is not a size"),
        (
            "filters: [{ cors: app.example }]",
            "7:23: routes[0].filters[0].cors.origins[0]: 'app.example' is not an origin",
        ),
        ("redirect: 5", "5:5: routes[0]: leads to several places"),
    ] {
        let (code, text) = check(&wrap(line));
        assert_eq!(code, 78, "{line}: {text}");
        assert!(text.contains(&format!("t.yaml:{expected}")), "{line}: {text}");
    }
    for address in ["8080", "example.com:80", ":", "localhost"] {
        let (code, text) = check(&wrap("").replace("127.0.0.1:1", address));
        assert_eq!(code, 78, "{address}: {text}");
        assert!(text.contains("is not an address with a port: write it like"), "{address}: {text}");
    }
}

#[test]
fn one_mapping_is_a_list_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let check = |yaml: &str| {
        std::fs::write(dir.path().join("t.yaml"), yaml).unwrap();
        let mut command = std::process::Command::new(crate::harness::binary());
        let out = command.args(["-t", "-c", "t.yaml"]).current_dir(&dir).output().unwrap();
        String::from_utf8(out.stderr).unwrap()
    };
    let yaml = format!(
        "listeners: {{ address: \"127.0.0.1:1\" }}
admin: {{ enabled: false }}
api_keys: {{ id: a, scopes: [x], sha256: {} }}
services: {{ s: {{ urls: {{ url: \"http://h\", weight: 2 }} }} }}
routes: {{ match: {{ path: /a }}, service: s, filters: {{ rate_limit: 10/s, on_fault: pass }} }}
tests: {{ request: GET /b, expect: {{ status: 404 }} }}
",
        "a".repeat(64)
    );
    assert_eq!(check(&yaml), "t.yaml: ok (1 route, 1 service, 1 test)\n");
    for (from, to, expected) in [
        ("{ address:", "{ adress:", "t.yaml:1:14: listeners: unknown key 'adress' (did you mean 'address'?)"),
        ("weight: 2", "wieght: 2", "services.s.urls: unknown key 'wieght' (did you mean 'weight'?)"),
        ("weight: 2", "weight: x", "services.s.urls.weight: expected a whole number"),
        ("rate_limit: 10/s", "rate_limit: { rat: 1/s }", "routes.filters.rate_limit: unknown key 'rat'"),
        ("on_fault: pass", "cors: \"*\"", "begin it with '- '"),
        ("service: s,", "service: t,", "routes.service: there is no service 't'"),
        ("scopes: [x]", "scopes: { x: y }", "api_keys.scopes: expected a list, found a mapping"),
        (
            "{ match: { path: /a }, service: s",
            "{ x: { match: { path: /a }, service: s }",
            "routes: expected a list, found a mapping",
        ),
        ("status: 404", "status: 405", "tests: "),
    ] {
        let mut wrong = yaml.replace(from, to);
        if from.starts_with("{ match") {
            wrong = wrong.replace(", filters: { rate_limit: 10/s, on_fault: pass }", "");
        }
        let text = check(&wrong);
        assert!(text.contains(expected) && text.ends_with(": 1 problem\n"), "{to}: {text}");
    }
}
