//! The admin listener: health, statistics, metrics. And the access log.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::harness::{Gateway, Origin, Request, eventually, program};

/// What the admin listener answers to these bytes.
fn client_raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn gateway(origin: &Origin, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - id: r\n    match: {{ path: /* }}\n    service: main\n",
        origin.url()
    ))
}

#[test]
fn every_page_answers() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    for page in ["/health", "/health/live", "/health/ready", "/gateway/health"] {
        gw.admin(page).expect(200).has("content-type", "application/json");
    }
    gw.admin("/nope").expect(404).says("no such admin page");
    for status in [200, 404, 503] {
        gw.get(&format!("/status/{status}")).expect(status);
    }
    eventually("all are counted", || gw.admin("/gateway/stats").expect(200).json()["requests"] == 3);
    let stats = gw.admin("/gateway/stats").expect(200).json();
    assert_eq!((&stats["requests"], &stats["errors"]), (&3.into(), &1.into()));
    let backend = &stats["services"]["main"]["backends"][0];
    assert_eq!((&backend["address"], &backend["healthy"]), (&origin.address.to_string().into(), &true.into()));
    assert!(stats["uptime_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_refusal_of_the_admin_listener_says_why() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", gw.admin);
    let post = |path: &str| Request::new("POST", url(path)).body(b"x");
    post("/nope").expect(404).has("content-type", "application/problem+json").says("no such admin page");
    post("/health").expect(405).has("allow", "GET,HEAD").says("this page can only be read");
    let head = Request::new("HEAD", url("/health")).expect(200);
    assert!(head.body.is_empty() && head.get("content-length") != "0", "{head:?}");
}

#[test]
fn on_loopback_the_admin_listener_answers_to_its_own_names_only() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    let host =
        |host: &str| Request::new("GET", format!("http://127.0.0.1:{}/gateway/stats", gw.admin)).header("Host", host);
    for own in ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.9:80", "[::1]", "[::1]:9090"] {
        host(own).expect(200);
    }
    for foreign in
        ["evil.example", "evil.example:9090", "localhost.evil.example", "192.0.2.1", "127.0.0.1.evil.example"]
    {
        let answer = host(foreign).expect(421).says("loopback");
        assert!(!answer.body.contains("uptime"), "{foreign}");
    }
    let absolute = b"GET http://evil.example/gateway/stats HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(client_raw(gw.admin, absolute).starts_with("HTTP/1.1 421 "));
    assert!(client_raw(gw.admin, b"GET /health HTTP/1.0\r\n\r\n").contains(" 200 "));
    // Whoever opens it to others is reached by whatever name it has.
    let open = gateway(&origin, "admin: { address: \"0.0.0.0:{admin}\", allow_remote: true }");
    Request::new("GET", format!("http://127.0.0.1:{}/health", open.admin)).header("Host", "admin.example").expect(200);
}

#[test]
fn the_admin_listener_has_the_limits_of_the_others() {
    let origin = Origin::start("o");
    let gw = gateway(
        &origin,
        "limits: { head: 1s, keepalive: 1s, connections: 3, header_size: 1KiB }\nadmin: { address: \"0.0.0.0:{admin}\", allow_remote: true }",
    );
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.admin)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let _ = stream.write_all(bytes);
        stream
    };
    let said = |mut stream: TcpStream| {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert!(said(connect(b"GET /health HTTP/1.1\r\nHost:")).starts_with("HTTP/1.1 408 "), "half a head");
    let large = format!("GET /health HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(2000));
    assert!(said(connect(large.as_bytes())).starts_with("HTTP/1.1 431 "), "a large head");
    let begun = Instant::now();
    let kept = said(connect(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(kept.contains("ready") && begun.elapsed() < Duration::from_secs(4), "an idle connection ends");
    eventually("the fourth is closed", || {
        let three: Vec<TcpStream> = (0..3).map(|_| connect(b"GET")).collect();
        let fourth = said(connect(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        drop(three);
        fourth.is_empty()
    });
    // They are its own: clients are not in their way, nor they in the clients'.
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(("127.0.0.1", gw.port)).unwrap()).collect();
    eventually("the admin listener has room", || {
        gw.admin("/health").try_send().is_ok_and(|answer| answer.status == 200)
    });
    drop(clients);
}

#[test]
fn pages_are_published_only_when_asked_for() {
    let origin = Origin::start("o");
    let hidden = gateway(&origin, "");
    hidden.get("/gateway/stats").expect(200).says("o");
    let shown = gateway(&origin, "admin: { address: \"127.0.0.1:{admin}\", publish: true }");
    shown.get("/gateway/stats").expect(200).says("uptime_seconds");
    shown.get("/gateway/health").expect(200).says("ready");
    shown.get("/gateway/metrics").expect(200).says("gateway_requests_total");
    shown.get("/gateway/other").expect(200).says("o");
}

#[test]
fn metrics_have_closed_labels_and_good_names() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    gw.get("/secret/path?token=x").key("secret-key").expect(200);
    gw.request("BREW", "/").expect(200);
    // A request is counted when it has ended, which is after its answer has arrived.
    eventually("both requests are counted", || {
        gw.admin("/metrics").expect(200).body.contains("gateway_requests_success_total 2")
    });
    let text = gw.admin("/metrics").expect(200).body;
    for name in [
        "gateway_requests_total{method=\"GET\",route=\"r\",service=\"main\",status=\"200\"} 1",
        "gateway_requests_total{method=\"OTHER\",route=\"r\",service=\"main\",status=\"200\"} 1",
        "http_server_request_duration_seconds_bucket{route=\"r\",service=\"main\",le=\"0.005\"}",
        "gateway_uptime_seconds",
        "gateway_requests_success_total 2",
        "gateway_memory_alloc_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "gateway_upstream_first_byte_seconds_count{service=\"main\"} 2",
        "gateway_transferred_bytes_total{direction=\"sent\"}",
        "gateway_requests_in_flight 0",
        "gateway_proxy_canceled_total 0",
        "gateway_build_info{version=",
    ] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    for secret in ["secret", "token"] {
        assert!(!text.contains(secret), "{secret} is in the metrics");
    }
    let mut promtool = Command::new(program("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let found = promtool.wait_with_output().unwrap();
    assert!(found.status.success() && found.stdout.is_empty() && found.stderr.is_empty(), "{found:?}");
}

#[test]
fn the_access_log_says_who_made_the_status() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    gw.get("/a?token=secret")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .expect(200);
    gw.get("/%zz").expect(400);
    let log = gw.log(2);
    let line = log.iter().find(|line| line["path"] == "/a").unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["by"], "upstream");
    assert_eq!((&line["route"], &line["service"], &line["attempts"]), (&"r".into(), &"main".into(), &1.into()));
    assert_eq!(line["upstream"], origin.address.to_string());
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["time"].as_str().unwrap().ends_with('Z'));
    assert!(!gw.read("stdout").contains("secret"), "queries are where secrets end up");
    assert!(log.iter().any(|line| line["status"] == 400 && line["by"] == "gateway"));
}

#[test]
fn the_access_log_goes_where_it_is_told() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "access_log: { output: { file: \"{dir}/access.log\" }, format: common, query: true }");
    gw.get("/a?b=c").expect(200);
    eventually("the line is written", || gw.read("access.log").contains("\"GET /a?b=c HTTP/1.1\" 200 1"));
    assert!(gw.read("access.log").starts_with("127.0.0.1 - - ["));
    std::fs::rename(gw.path("access.log"), gw.path("access.log.1")).unwrap();
    gw.signal(Signal::SIGUSR1);
    eventually("the file is opened anew", || gw.path("access.log").exists());
    gw.get("/second").expect(200);
    eventually("the line is in the new file", || gw.read("access.log").contains("/second"));
    let off = gateway(&origin, "access_log: { enabled: false }");
    off.get("/").expect(200);
    assert_eq!(off.read("stdout"), "");
}

#[test]
fn routes_that_nobody_asked_for_are_not_in_the_metrics() {
    let route = |i: usize| {
        format!("  - {{ match: {{ path: /p{i} }}, respond: {{}}, filters: [{{ rate_limit: {{ rate: 1/s }} }}] }}\n")
    };
    let routes = (0..300).map(route).collect::<Vec<_>>().concat();
    let gw = Gateway::start(&format!("routes:\n{routes}"));
    gw.get("/p7").expect(200);
    crate::harness::eventually("the request is counted", || gw.admin("/metrics").expect(200).body.contains("/p7"));
    let text = gw.admin("/metrics").expect(200).body;
    assert!(!text.contains("/p8"), "{text}");
}

#[test]
fn the_admin_listener_reads_bodies_within_bounds() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "limits: { stall: 1s }");
    let both = b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhelloGET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = client_raw(gw.admin, both);
    assert!(said.starts_with("HTTP/1.1 405 ") && said.contains("HTTP/1.1 200 "), "{said}");
    let large = [
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n".as_slice(),
        &vec![b'x'; 1_048_577],
    ];
    assert!(client_raw(gw.admin, &large.concat()).starts_with("HTTP/1.1 413 "));
    let unsent = b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe";
    assert!(client_raw(gw.admin, unsent).starts_with("HTTP/1.1 408 "));
}

#[test]
fn published_pages_can_only_be_read_too() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "admin: { address: \"127.0.0.1:{admin}\", publish: true }");
    for method in ["POST", "DELETE", "PUT"] {
        gw.request(method, "/gateway/stats").expect(405).has("allow", "GET, HEAD").problem();
    }
    gw.request("HEAD", "/gateway/stats").expect(200);
}

#[test]
fn routes_do_not_answer_for_the_admin_listener() {
    let gw = Gateway::start("routes:\n  - { match: { path: /mine }, respond: { status: 418 } }\n");
    gw.get("/mine").expect(418);
    gw.admin("/health/live").expect(200);
    gw.admin("/mine").expect(404);
    gw.get("/health/live").expect(404);
}
