//! Backends that speak HTTP/2, whatever their clients speak.

use axum::http::Response;
use bytes::Bytes;
use h2::server::SendResponse;

use crate::harness::{Gateway, H2Origin, Origin};

/// Answers with this status and body.
fn answer(respond: &mut SendResponse<Bytes>, status: u16, body: &'static [u8]) {
    let head = Response::builder().status(status).header("content-type", "text/plain").body(()).unwrap();
    respond.send_response(head, false).unwrap().send_data(Bytes::from_static(body), true).unwrap();
}

fn gateway(origin: &H2Origin, service: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main:\n    urls: [\"{}\"]\n{service}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ))
}

#[test]
fn an_upgrade_is_ignored_where_the_backend_knows_none() {
    let origin = H2Origin::start(|_, mut respond| answer(&mut respond, 200, b"plain"));
    let gw = gateway(&origin, "    circuit_breaker: { failure_threshold: 2, reset_timeout: 60s }\n");
    for _ in 0..5 {
        let said = gw.raw(
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("plain"), "{said}");
    }
    gw.get("/").expect(200).says("plain");
    assert!(origin.seen().iter().all(|head| !head.headers().contains_key("upgrade")));
}

#[test]
fn a_host_that_http2_cannot_hold_is_refused_everywhere() {
    let (origin, old) = (H2Origin::start(|_, mut respond| answer(&mut respond, 200, b"new")), Origin::start("old"));
    let gw = Gateway::start(&format!(
        "services:\n  new: {{ urls: [\"{}\"] }}\n  old: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /new }}, service: new }}\n  - {{ match: {{ path: /old }}, service: old }}\n",
        origin.url(),
        old.url()
    ));
    let ask = |path: &str, host: &str| {
        gw.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    for path in ["/new", "/old"] {
        for host in ["a%41", "%61.example", "a%41:80", &"a".repeat(2000)] {
            assert!(ask(path, host).starts_with("HTTP/1.1 400 "), "{path} {host}");
        }
        for host in ["a;b", "a'b", "a_b", "a:", "[::1]:80", "[v1.x]"] {
            let said = ask(path, host);
            assert!(said.starts_with("HTTP/1.1 200 "), "{path} {host}: {said}");
        }
    }
    assert!(!gw.errors().contains("ERROR"), "{}", gw.errors());
}
