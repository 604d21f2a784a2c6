//! Backends that speak HTTP/2, whatever their clients speak.

use axum::http::Response;
use bytes::Bytes;
use h2::server::SendResponse;

use crate::harness::{Fault, FaultProxy, Gateway, H2Origin, Origin, eventually, h2_request};

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

#[test]
fn what_has_no_body_gets_none() {
    let origin = H2Origin::start(|request, mut respond| {
        let status = request.uri().path()[1..].parse().unwrap();
        answer(&mut respond, status, b"a body that must not be");
    });
    let gw = gateway(&origin, "");
    for (method, path) in [("GET", "/204"), ("GET", "/304"), ("HEAD", "/200")] {
        let answer = h2_request(gw.port, method, path, &[]);
        assert_eq!((answer.head.status().as_str(), &answer.body[..], answer.reset), (&path[1..], &b""[..], None));
        let said = gw.raw(format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(said.ends_with("\r\n\r\n") && !said.contains("a body"), "{said}");
    }
    assert_eq!(h2_request(gw.port, "GET", "/200", &[]).body, b"a body that must not be");
    // Nothing is left behind on the connections to the backend.
    eventually("all is done", || gw.metric("gateway_requests_in_flight") == Some(0.0));
}

#[test]
fn an_answer_that_breaks_off_is_an_error_to_http2_clients() {
    let broken = H2Origin::start(|_, mut respond| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        // Elsewhere, so that what has been said goes out first.
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        });
    });
    let gw = gateway(&broken, "");
    let answer = h2_request(gw.port, "GET", "/", &[]);
    assert_eq!((&answer.body[..], answer.reset), (&b"half"[..], Some(h2::Reason::INTERNAL_ERROR)));
    let backend = Origin::start("o");
    let cutting = FaultProxy::start(backend.address, Fault::Cut);
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        cutting.url()
    ));
    let answer = h2_request(gw.port, "GET", "/", &[]);
    assert_eq!((&answer.body[..], answer.reset), (&b"half"[..], Some(h2::Reason::INTERNAL_ERROR)));
}
