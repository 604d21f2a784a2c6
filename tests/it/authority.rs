//! The host of a request over HTTP/2 stands in `:authority`; whoever looks at the field `Host` finds it all the same.

use axum::http::{Response, header::HOST};
use bytes::Bytes;

use crate::{
    harness::{Gateway, H2Origin, Origin},
    http2::Frames,
};

/// How a request over HTTP/2 for this host ended.
fn ask(gw: &Gateway, host: &[u8], more: &[(&[u8], &[u8])]) -> String {
    let mut frames = Frames::connect(gw);
    let usual: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", host)];
    frames.headers(&[&usual[..], more].concat(), true);
    frames.end()
}

fn gateway(url: &str, more: &str, own: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n{more}  - {{ match: {{ path: /* }}, service: main{own} }}\n",
    ))
}

#[test]
fn limits_by_host_count_each_host_of_http2() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "", ", filters: [ { rate_limit: { rate: 1/h, burst: 1, by: \"header:Host\" } } ]");
    for host in [b"a.example", b"b.example"] {
        assert_eq!((ask(&gw, host, &[]), ask(&gw, host, &[])), ("status 200".to_owned(), "status 429".to_owned()));
        let text = String::from_utf8_lossy(host);
        gw.get("/").header("Host", &text).expect(429);
    }
}

#[test]
fn routes_by_host_field_hold_for_http2() {
    let origin = Origin::start("o");
    let closed = "  - { match: { path: /*, headers: { Host: secret.example } }, respond: { status: 403 } }\n";
    let gw = gateway(&origin.url(), closed, "");
    assert_eq!(ask(&gw, b"secret.example", &[]), "status 403");
    assert_eq!(ask(&gw, b"open.example", &[]), "status 200");
    let hosts: Vec<_> = origin.last().headers.get_all(HOST).iter().cloned().collect();
    assert_eq!(hosts, ["open.example"], "the backend sees one");
}

#[test]
fn a_backend_of_http2_gets_the_authority_alone() {
    let new = H2Origin::start(|_, mut respond| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"new"), true).unwrap();
    });
    let gw = gateway(&new.url(), "", "");
    assert_eq!(ask(&gw, b"a.example:81", &[]), "status 200");
    assert_eq!(ask(&gw, b"a.example:81", &[(b"host", b"A.example:81")]), "status 200");
    assert_eq!(ask(&gw, b"a.example", &[(b"host", b"b.example")]), "status 400");
    let mut frames = Frames::connect(&gw);
    frames.headers(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")], true);
    assert_eq!(frames.end(), "status 400");
    let seen = new.seen();
    assert_eq!(seen.len(), 2);
    for head in seen {
        assert!(head.uri().authority().unwrap().as_str().eq_ignore_ascii_case("a.example:81"), "{head:?}");
        assert!(!head.headers().contains_key(HOST), "{head:?}");
    }
}
