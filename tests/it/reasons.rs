//! One log line says why: each 503, 502 and 504 has a reason of its own, and so has each refusal.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    auth::{SECRET, hs256, now, sha256},
    harness::{Certs, Gateway, Origin, eventually, free_port, full_backend, raw_backend, read_head},
    upstream_tls::{Backend, Wants},
};

/// Sleeps for as long as any test lasts.
pub(crate) fn keep(stream: TcpStream) {
    std::thread::sleep(Duration::from_secs(30));
    drop(stream);
}

/// A backend that reads a head and says `answer`, and closes.
fn says(answer: &'static str) -> String {
    raw_backend(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    })
}

/// A gateway with these services, each with a route of its name.
pub(crate) fn gateway(more: &str, services: &[(&str, String)]) -> Gateway {
    let (mut backends, mut routes) = (String::new(), String::new());
    for (name, text) in services {
        writeln!(backends, "  {name}: {text}").unwrap();
        writeln!(routes, "  - {{ match: {{ path: /{name}/* }}, strip_prefix: /{name}, service: {name} }}").unwrap();
    }
    Gateway::start(&format!("{more}services:\n{backends}routes:\n{routes}"))
}

/// What the log says last: status, who, and why.
pub(crate) fn last(gw: &Gateway, count: usize) -> (u64, String, String) {
    let line: &Value = &gw.log(count)[count - 1];
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (line["status"].as_u64().unwrap(), text("by"), text("reason"))
}

#[test]
fn each_502_and_504_has_its_reason() {
    let certs = Certs::new();
    let refusing = format!("http://127.0.0.1:{}", free_port());
    let silent = format!("http://{}", raw_backend(keep));
    let full_backend = full_backend();
    let full = format!("http://{}", full_backend.address);
    let plain = raw_backend(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 1024]);
    });
    let service = |url: &str, more: &str| format!("{{ urls: [\"{url}\"], retry: {{ max_attempts: 1 }}, {more} }}");
    certs.issue("backend", "backend", &["backend.example"]);
    let backend = Backend::start(&certs, Wants::H1);
    let tls = format!("https://127.0.0.1:{}", backend.port);
    let ca = certs.path("ca.pem");
    let services = [
        ("refused", service(&refusing, ""), 502, "connect_refused"),
        ("full", service(&full, "timeouts: { connect: 300ms }"), 504, "connect_timeout"),
        ("closes", service(&format!("http://{}", says("")), ""), 502, "connection_reset"),
        (
            "odd",
            service(&format!("http://{}", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n")), ""),
            502,
            "malformed_response",
        ),
        ("silent", service(&silent, "timeouts: { read: 300ms }"), 504, "read_timeout"),
        ("total", service(&silent, "timeouts: { total: 300ms }"), 504, "total_timeout"),
        ("plain", service(&format!("https://{plain}"), ""), 502, "tls_plain"),
        ("untrusted", service(&tls, ""), 502, "tls_untrusted"),
        ("name", service(&tls, &format!("tls: {{ ca: \"{ca}\" }}")), 502, "tls_name"),
    ];
    let texts: Vec<_> = services.iter().map(|(name, text, ..)| (*name, text.clone())).collect();
    let gw = gateway("", &texts);
    for (place, (name, _, status, reason)) in services.iter().enumerate() {
        gw.get(&format!("/{name}/x")).expect(*status);
        assert_eq!(last(&gw, place + 1), (u64::from(*status), "gateway".to_owned(), (*reason).to_owned()), "{name}");
        let counted = format!("gateway_upstream_failures_total{{reason=\"{reason}\",service=\"{name}\"}}");
        assert_eq!(gw.metric(&counted), Some(1.0), "{name}");
    }
    let line = &gw.log(8)[7];
    assert_eq!(line["error"], "TLSHandshakeFailure: invalid peer certificate: UnknownIssuer");
    // Said once for each backend.
    gw.get("/untrusted/x").expect(502);
    eventually("the log tells of it", || gw.errors().contains("tls_untrusted"));
    assert_eq!(gw.errors().matches("tls_untrusted: ").count(), 1, "{}", gw.errors());
}

#[test]
fn each_503_has_its_reason() {
    let origin = Origin::start("o");
    let refusing = format!("http://127.0.0.1:{}", free_port());
    let service = |url: &str, more: &str| format!("{{ urls: [\"{url}\"], retry: {{ max_attempts: 1 }}, {more} }}");
    let breaker = "circuit_breaker: { failure_threshold: 1 }, outlier_ejection: { consecutive: 0 }";
    let services = [
        ("breaker", service(&refusing, breaker)),
        ("ill", service(&refusing, "health_check: { path: /, every: 50ms, unhealthy_after: 1 }")),
        ("unknown", "{ urls: [\"http://no-such-name.invalid:1\"] }".to_owned()),
        ("full", service(&origin.url(), "in_flight: { max: 1, queue: 0, wait: 100ms }")),
        ("late", service(&origin.url(), "in_flight: { max: 1, queue: 9, wait: 100ms }")),
        ("each", service(&origin.url(), "in_flight: { per_backend: 1, queue: 9, wait: 100ms }")),
    ];
    let gw = gateway("", &services);
    gw.get("/breaker/x").expect(502);
    eventually("the ill one is found", || {
        gw.metric("gateway_backend_up{backend=\"127.0.0.1:1\",service=\"ill\"}").is_none()
            && gw.get("/ill/x").send().status == 503
    });
    let before = gw.log(2).len();
    let mut count = before;
    for (path, reason) in
        [("/breaker/x", "breaker_open"), ("/ill/x", "no_healthy_backend"), ("/unknown/x", "no_backend_known")]
    {
        let answer = gw.get(path).expect(503).problem();
        // The client is told nothing from inside.
        assert!(!answer.body.contains("breaker") && !answer.get("retry-after").is_empty(), "{}", answer.body);
        count += 1;
        assert_eq!(last(&gw, count), (503, "gateway".to_owned(), reason.to_owned()), "{path}");
    }
    for (path, reason) in
        [("/full/", "service_queue_full"), ("/late/", "service_queue_timeout"), ("/each/", "service_queue_timeout")]
    {
        std::thread::scope(|scope| {
            scope.spawn(|| gw.get(&format!("{path}slow/1000")).expect(200));
            eventually("one is under way", || gw.metric("gateway_requests_in_flight") == Some(1.0));
            std::thread::sleep(Duration::from_millis(100));
            gw.get(&format!("{path}slow/1000")).expect(503);
            assert_eq!(last(&gw, count + 1), (503, "gateway".to_owned(), reason.to_owned()), "{path}");
        });
        count += 2;
        eventually("both are over", || gw.log(count).len() == count);
    }
}

#[test]
fn each_refusal_has_its_reason_and_names_who_is_known() {
    let origin = Origin::start("o");
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), SECRET).unwrap();
    let yaml = format!(
        r#"
limits: {{ uri: 1KiB, header_size: 4KiB }}
api_keys:
  - {{ id: k1, sha256: {}, owner: acme, scopes: [read] }}
  - {{ id: old, sha256: {}, expires: 2020-01-01T00:00:00Z }}
services:
  main: {{ urls: ["{}"] }}
routes:
  - {{ match: {{ path: "/open/*", method: GET }}, service: main }}
  - {{ match: {{ path: /scope }}, service: main, filters: [ {{ api_key: {{ scopes: [write] }} }} ] }}
  - {{ match: {{ path: /other }}, service: main, filters: [ {{ api_key: {{ allow: [old] }} }} ] }}
  - {{ match: {{ path: /admin/* }}, service: main, filters: [ {{ ip: {{ deny: ["127.0.0.0/8"] }} }} ] }}
  - {{ match: {{ path: /cors }}, service: main, filters: [ {{ cors: {{ origins: ["https://a.example"] }} }} ] }}
  - {{ match: {{ path: /rate }}, service: main, filters: [ {{ rate_limit: {{ rate: 1/h, burst: 1 }} }} ] }}
  - {{ match: {{ path: /body }}, service: main, filters: [ {{ body_limit: {{ max: 10 }} }} ] }}
  - match: {{ path: /jwt }}
    service: main
    filters:
      - jwt: {{ algorithms: [HS256], keys: [ {{ secret: {{ file: {} }} }} ], issuer: id, audience: api, leeway: 0, scopes: [write], required_claims: {{ role: admin }} }}
"#,
        sha256("key-1"),
        sha256("key-old"),
        origin.url(),
        secret.path().display(),
    );
    let gw = Gateway::start(&yaml);
    let good = json!({ "sub": "ann", "iss": "id", "aud": "api", "exp": now() + 60, "scope": "write", "role": "admin" });
    let jwt = |change: &str, value: Value| {
        let mut claims = good.clone();
        claims[change] = value;
        gw.get("/jwt").bearer(&hs256(&claims))
    };
    let forged = hs256(&good).rsplit_once('.').map(|(message, _)| format!("{message}.AAAA")).unwrap();
    gw.get("/rate").expect(200);
    let requests = [
        (gw.get("/none"), 404, "no_route", ""),
        (gw.request("POST", "/open/x").body(b"x"), 405, "method_not_allowed", ""),
        (gw.get("/open/%zz"), 400, "malformed_request", ""),
        (gw.get("/open/..%2fadmin/x"), 400, "ambiguous_path", ""),
        (gw.get(&format!("/open/{}", "x".repeat(2000))), 414, "head_too_large", ""),
        (gw.get("/open/x").header("Expect", "magic"), 417, "expectation_failed", ""),
        (gw.get("/scope"), 401, "credentials_missing", ""),
        (gw.get("/scope").key("no"), 401, "key_unknown", ""),
        (gw.get("/scope").key("key-old"), 401, "key_expired", ""),
        (gw.get("/scope").key("key-1"), 403, "scope_missing", "acme"),
        (gw.get("/other").key("key-1"), 403, "key_not_allowed", "acme"),
        (gw.get("/admin/x"), 403, "address_not_allowed", ""),
        (
            gw.request("OPTIONS", "/cors")
                .header("Origin", "https://b.example")
                .header("Access-Control-Request-Method", "GET"),
            403,
            "origin_not_allowed",
            "",
        ),
        (gw.get("/rate"), 429, "rate_limited", ""),
        (gw.request("POST", "/body").body(b"more than ten bytes"), 413, "body_too_large", ""),
        (gw.get("/jwt"), 401, "credentials_missing", ""),
        (gw.get("/jwt").bearer("x"), 401, "token_malformed", ""),
        (gw.get("/jwt").bearer(&forged), 401, "token_signature", ""),
        (jwt("exp", json!(now() - 5)), 401, "token_expired", ""),
        (jwt("nbf", json!(now() + 50)), 401, "token_not_yet_valid", ""),
        (jwt("iss", json!("other")), 401, "token_issuer", ""),
        (jwt("aud", json!("other")), 401, "token_audience", ""),
        (jwt("scope", json!("read")), 403, "scope_missing", "ann"),
        // A valid token that may not do this is no reason to log in again.
        (jwt("role", json!("guest")), 403, "claim_not_allowed", "ann"),
    ];
    for (place, (request, status, reason, identity)) in requests.into_iter().enumerate() {
        let answer = request.expect(status);
        if reason == "claim_not_allowed" {
            assert!(answer.get("www-authenticate").contains("insufficient_scope"));
        }
        let line = &gw.log(place + 2)[place + 1];
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{line}");
        assert_eq!(line["identity"].as_str().unwrap_or_default(), identity, "{line}");
        assert!(reason != "scope_missing" || identity != "acme" || line["key_id"] == "k1", "{line}");
    }
}

#[test]
fn a_request_that_was_read_to_its_end_keeps_its_connection_when_it_fails() {
    let refusing = format!("http://127.0.0.1:{}", free_port());
    let silent = format!("http://{}", raw_backend(keep));
    let origin = Origin::start("o");
    let breaker = "circuit_breaker: { failure_threshold: 1 }, outlier_ejection: { consecutive: 0 }";
    let services = [
        ("refused", format!("{{ urls: [\"{refusing}\"], {breaker} }}")),
        ("closes", format!("{{ urls: [\"http://{}\"] }}", says(""))),
        ("silent", format!("{{ urls: [\"{silent}\"], timeouts: {{ read: 300ms }} }}")),
        ("good", format!("{{ urls: [\"{}\"] }}", origin.url())),
    ];
    let gw = gateway("", &services);
    gw.get("/refused/x").expect(503);
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ask = |path: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.write_all(head.as_bytes()).unwrap();
        let head = read_head(&mut client);
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut said = vec![0; length.unwrap_or(0)];
        client.read_exact(&mut said).unwrap();
        head
    };
    for (path, status) in [
        ("/refused/x", 503),
        ("/closes/x", 502),
        ("/silent/x", 504),
        ("/good/status/200", 200),
        ("/refused/x", 503),
        ("/good/status/201", 201),
    ] {
        // What an open breaker refuses has a body that nobody has read.
        for body in if status == 503 { &[""][..] } else { &["", "a body"] } {
            let head = ask(path, body);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
            assert!(!head.to_lowercase().contains("connection: close"), "{path}: {head}");
        }
    }
}

#[test]
fn a_line_tells_how_a_request_came_and_where_it_went() {
    let certs = Certs::new();
    certs.issue("front", "front", &["front.example"]);
    let (origin, refusing) = (Origin::start("o"), free_port());
    let gw = Gateway::start(&format!(
        "listeners:\n  - {{ address: \"127.0.0.1:{{port}}\", name: secure, tls: {{ certificates: [ {{ {} }} ] }} }}\nservices:\n  main: {{ urls: [\"http://127.0.0.1:{refusing}\", \"{}\"], retry: {{ max_attempts: 3 }}, outlier_ejection: {{ consecutive: 0 }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        certs.yaml("front"),
        origin.url()
    ));
    let mut count = 0;
    let line = loop {
        let answer = Command::new("curl")
            .args(["-s", "--cacert", &certs.path("ca.pem"), "-e", "https://from.example/page?secret=1"])
            .args(["--resolve", &format!("front.example:{}:127.0.0.1", gw.port)])
            .arg(format!("https://front.example:{}/x", gw.port))
            .output()
            .unwrap();
        assert!(answer.status.success(), "{answer:?}");
        count += 1;
        let line = gw.log(count).remove(count - 1);
        if line["attempts"] == 2 {
            break line;
        }
        assert!(count < 10, "{line}");
    };
    for (field, value) in [
        ("scheme", "https"),
        ("listener", "secure"),
        ("tls", "TLSv1_3"),
        ("sni", "front.example"),
        ("referer", "https://from.example/page"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["tried"], json!([format!("127.0.0.1:{refusing}")]));
    // Handshakes that fail are counted by kind.
    let refused = Command::new("curl")
        .args(["-s", "--resolve", &format!("front.example:{}:127.0.0.1", gw.port)])
        .arg(format!("https://front.example:{}/x", gw.port))
        .status();
    assert!(!refused.unwrap().success());
    TcpStream::connect(("127.0.0.1", gw.port)).unwrap().write_all(&[22, 3, 1, 0, 2, 0, 0, 0, 0]).unwrap();
    for kind in ["tls_refused_by_client", "tls_malformed"] {
        eventually(kind, || gw.metric(&format!("gateway_connections_refused_total{{reason=\"{kind}\"}}")) == Some(1.0));
    }
}

/// The log says this, and has said it once.
fn said_once(gw: &Gateway, text: &str) {
    eventually(text, || gw.errors().contains(text));
    assert_eq!(gw.errors().matches(text).count(), 1, "{text}: {}", gw.errors());
}

#[test]
fn each_change_of_state_is_a_line_in_both_directions() {
    let ill = Arc::new(AtomicBool::new(false));
    let state = ill.clone();
    let url = raw_backend(move |mut stream| {
        let head = read_head(&mut stream);
        let fails = state.load(SeqCst) || head.starts_with("GET /fail");
        let status = if fails { "500 Internal Server Error" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes());
    });
    let origin = Origin::start("o");
    let (urls, retry) = (format!("\"http://{url}\""), "retry: { max_attempts: 1 }");
    let services = [
        (
            "checked",
            format!(
                "{{ urls: [{urls}], health_check: {{ path: /x, every: 50ms, healthy_after: 1, unhealthy_after: 1 }} }}"
            ),
        ),
        (
            "breaks",
            format!("{{ urls: [{urls}], {retry}, circuit_breaker: {{ failure_threshold: 1, reset_timeout: 100ms }} }}"),
        ),
        (
            "ejects",
            format!(
                "{{ urls: [{urls}, \"{}\"], {retry}, outlier_ejection: {{ consecutive: 1, base: 100ms, failures: [500] }} }}",
                origin.url()
            ),
        ),
    ];
    let gw = gateway("", &services);
    let says = |text: &str| said_once(&gw, text);
    assert!(gw.errors().contains(&format!("(pid {})", gw.child.id())), "{}", gw.errors());
    says("3 routes, 3 services, 0 tests passed; listeners 127.0.0.1:");
    ill.store(true, SeqCst);
    says(&format!(
        "WARN  tollgate::upstream::health] service checked: backend {url} is unhealthy: unexpected status 500"
    ));
    ill.store(false, SeqCst);
    says(&format!("INFO  tollgate::upstream::health] service checked: backend {url} is healthy"));
    gw.get("/breaks/fail").expect(500);
    says("WARN  tollgate::upstream::resilience] service breaks: circuit breaker is open");
    std::thread::sleep(Duration::from_millis(150));
    gw.get("/breaks/x").expect(200);
    says("INFO  tollgate::upstream::resilience] service breaks: circuit breaker is half");
    says("INFO  tollgate::upstream::resilience] service breaks: circuit breaker is closed");
    eventually("it is ejected", || {
        gw.get("/ejects/fail").send();
        gw.errors().contains(&format!("backend {url} is ejected for 100ms"))
    });
    eventually("it is back", || {
        gw.get("/ejects/status/200").send();
        gw.errors().contains(&format!("INFO  tollgate::upstream::resilience] service ejects: backend {url} is back"))
    });
}

#[test]
fn a_connection_that_was_said_to_close_serves_no_more() {
    let refusing = format!("http://127.0.0.1:{}", free_port());
    let gw = gateway("limits: { requests_per_connection: 2 }\n", &[("main", format!("{{ urls: [\"{refusing}\"] }}"))]);
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all("GET /main/x HTTP/1.1\r\nHost: h\r\n\r\n".repeat(5).as_bytes()).unwrap();
    let mut said = String::new();
    let _ = client.read_to_string(&mut said);
    assert_eq!(said.matches("HTTP/1.1 502 ").count(), 2, "{said}");
    assert_eq!(said.to_lowercase().matches("connection: close").count(), 1, "{said}");
}
