//! One log line says why: the reasons that want a client, a backend or a route of their own (the others are in
//! `reasons.rs`).

use std::{
    io::Write as _,
    net::TcpStream,
    time::{Duration, SystemTime},
};

use crate::{
    harness::{Certs, Gateway, Origin, eventually, h2_request, raw_backend},
    reasons::{gateway, keep, last},
    upstream_tls::{Backend, Wants},
};

fn by_gateway(status: u64, reason: &str) -> (u64, String, String) {
    (status, "gateway".to_owned(), reason.to_owned())
}

fn service(url: &str, more: &str) -> String {
    format!("{{ urls: [\"{url}\"], retry: {{ max_attempts: 1 }}, {more} }}")
}

#[test]
fn a_backend_that_takes_nothing_of_a_body_is_a_write_timeout() {
    let silent = format!("http://{}", raw_backend(keep));
    let gw = gateway("", &[("main", service(&silent, "timeouts: { write: 300ms, read: 20s }"))]);
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let body = vec![b'x'; 16 << 20];
    let head = format!("POST /main/x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).unwrap();
    // The connection ends in the middle of it.
    let _ = client.write_all(&body);
    assert_eq!(last(&gw, 1), by_gateway(504, "write_timeout"));
}

#[test]
fn a_backend_that_no_way_leads_to_is_connect_failed() {
    // TCP has no broadcast (tcp(7)): the kernel refuses at once, whatever routes there are.
    let gw = gateway("", &[("main", service("http://255.255.255.255:80", ""))]);
    gw.get("/main/x").expect(502).problem();
    assert_eq!(last(&gw, 1), by_gateway(502, "connect_failed"));
    let counted = "gateway_upstream_failures_total{reason=\"connect_failed\",service=\"main\"}";
    assert_eq!(gw.metric(counted), Some(1.0));
}

#[test]
fn a_backend_whose_certificate_is_over_is_tls_expired() {
    let certs = Certs::new();
    let yesterday = SystemTime::now() - Duration::from_secs(86400);
    certs.issue_until("backend", "backend", &["backend.example"], yesterday);
    let backend = Backend::start(&certs, Wants::H1);
    let tls = format!("tls: {{ ca: \"{}\", server_name: backend.example }}", certs.path("ca.pem"));
    let gw = gateway("", &[("main", service(&format!("https://127.0.0.1:{}", backend.port), &tls))]);
    gw.get("/main/x").expect(502).problem();
    assert_eq!(last(&gw, 1), by_gateway(502, "tls_expired"));
    let error = gw.log(1)[0]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("TLSHandshakeFailure: ") && error.contains("expired"), "{error}");
}

#[test]
fn a_call_whose_own_time_is_over_is_grpc_deadline() {
    let silent = format!("http://{}", raw_backend(keep));
    let listeners = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";
    let gw = gateway(listeners, &[("main", service(&silent, "timeouts: { read: 20s, total: 20s }"))]);
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "300m")];
    let answer = h2_request(gw.port, "POST", "/main/x", &fields);
    // DEADLINE_EXCEEDED
    assert_eq!(answer.head.headers()["grpc-status"], "4", "{answer:?}");
    let (_, by, reason) = last(&gw, 1);
    assert_eq!((by.as_str(), reason.as_str()), ("gateway", "grpc_deadline"), "{:?}", gw.log(1));
    assert_eq!(gw.log(1)[0]["grpc_status"], 4, "{:?}", gw.log(1));
}

#[test]
fn a_routes_queue_that_is_full_and_one_that_waits_too_long_are_told_apart() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /full/* }}, strip_prefix: /full, service: main, in_flight: {{ max: 1, queue: 0, wait: 100ms }} }}\n  - {{ match: {{ path: /late/* }}, strip_prefix: /late, service: main, in_flight: {{ max: 1, queue: 9, wait: 100ms }} }}\n",
        origin.url()
    ));
    let mut count = 0;
    for (path, reason) in [("/full/", "route_queue_full"), ("/late/", "route_queue_timeout")] {
        std::thread::scope(|scope| {
            let before = origin.seen().len();
            scope.spawn(|| gw.get(&format!("{path}slow/1500")).expect(200));
            eventually("one is under way", || origin.seen().len() > before);
            gw.get(&format!("{path}x")).expect(503).problem();
            assert_eq!(last(&gw, count + 1), by_gateway(503, reason), "{path}");
        });
        count += 2;
        eventually("both are over", || gw.log(count).len() == count);
    }
}
