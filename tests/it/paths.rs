//! Paths that a backend may read differently than the gateway does, with a backend that does.

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

use crate::{
    auth::sha256,
    harness::{Gateway, Origin, free_port},
    real_backends::nginx_with,
};

fn get(gw: &Gateway, path: &str) -> String {
    gw.raw(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
}

fn gateway(backend: &str, paths: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "{paths}api_keys: [ {{ id: k, sha256: \"{}\" }} ]\nservices:\n  main: {{ urls: [\"{backend}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main{route} }}\n  - {{ match: {{ path: /admin/* }}, service: main, filters: [api_key] }}\n  - {{ match: {{ path: /v1/* }}, service: main, strip_prefix: /v1 }}\n  - {{ match: {{ path: /v2/* }}, service: main, rewrite: \"/base/{{rest}}\" }}\n",
        sha256("key")
    ))
}

#[test]
fn no_spelling_of_a_path_reaches_what_another_route_protects() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let _nginx = nginx_with(
        dir.path(),
        port,
        "location /admin/ { return 200 protected; } location /base/ { return 200 base; } location / { return 200 open; }",
    );
    let gw = gateway(&format!("http://127.0.0.1:{port}"), "", "");
    for path in [
        "/admin%2Fx",
        "/x/..%2Fadmin/x",
        "/.%2Fadmin/x",
        "/x/..;/admin/x",
        "/x/..%5Cadmin/x",
        "/admin;a/x",
        "/%2Fadmin%2fx",
        "/v2/..%2Fadmin/x",
        "/v2/x/..%2F..%2Fadmin/x",
        "/v1/..%2Fadmin/x",
    ] {
        let said = get(&gw, path);
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("application/problem+json"), "{path}: {said}");
    }
    let strategy = "/(/|admin|v2|x|\\.\\.|\\.|;|%2F|%2f|%5C|%2e|%252F|%3B|%61){1,10}";
    let (mut runner, mut passed) = (TestRunner::default(), 0);
    for _ in 0..2000 {
        let path = proptest::string::string_regex(strategy).unwrap().new_tree(&mut runner).unwrap().current();
        let said = get(&gw, &path);
        assert!(!said.ends_with("protected"), "{path}: {said}");
        passed += usize::from(said.starts_with("HTTP/1.1 200 "));
    }
    assert!(passed > 100, "only {passed} paths were let through");
}

#[test]
fn what_passes_is_sent_byte_for_byte() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "", "");
    for path in ["/@scope%2fpkg", "/%40scope%2Fpkg", "/bucket/a%2Fb;v=1/%5Cd", "/a%3a%20b", "/v2/library%2falpine"] {
        assert!(get(&gw, path).starts_with("HTTP/1.1 200 "), "{path}");
        let sent = path.strip_prefix("/v2").map_or_else(|| path.to_owned(), |rest| format!("/base{rest}"));
        assert_eq!(origin.last().uri.path(), sent);
    }
}

#[test]
fn encoded_slashes_can_be_refused_or_kept() {
    let origin = Origin::start("o");
    let refusing = gateway(&origin.url(), "paths: { encoded_slashes: refuse }\n", ", paths: { encoded_slashes: keep }");
    for (path, status) in
        [("/a%2Fb", 200), ("/admin%2Fx", 200), ("/x/..;/admin/x", 200), ("/v2/a%2Fb", 400), ("/v2/a;b", 200)]
    {
        assert!(get(&refusing, path).starts_with(&format!("HTTP/1.1 {status} ")), "{path}");
    }
    let all = gateway(&origin.url(), "paths: { encoded_slashes: refuse }\n", "");
    assert!(get(&all, "/a%5Cb").starts_with("HTTP/1.1 400 "));
}
