//! What the RFCs ask of an intermediary, to the letter.

use crate::harness::{Gateway, Origin};

fn gateway(origin: &Origin, root: &str) -> Gateway {
    Gateway::start(&format!(
        "{root}services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n  - {{ match: {{ path: /get, method: [GET, OPTIONS] }}, service: main }}\n  - {{ match: {{ path: /cors, method: POST }}, service: main, filters: [ {{ cors: {{ origins: [\"*\"] }} }}, {{ headers: {{ request: {{ set: {{ X-Cors: yes }} }} }} }} ] }}\n  - {{ match: {{ host: vhost.example, path: /* }}, service: main, filters: [ {{ headers: {{ request: {{ set: {{ X-Routed: yes }} }} }} }} ] }}\n",
        origin.url()
    ))
}

#[test]
fn backends_learn_of_this_hop() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    gw.get("/").expect(200);
    assert_eq!(origin.last().headers["via"], "1.1 tollgate");
    gw.get("/").header("Via", "1.0 fred, 1.1 p.example").expect(200);
    assert_eq!(origin.last().headers["via"], "1.0 fred, 1.1 p.example, 1.1 tollgate");
    gw.raw(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(origin.last().headers["via"], "1.0 tollgate");
    gateway(&origin, "via: false\n").get("/").expect(200);
    assert!(!origin.last().headers.contains_key("via"));
}

#[test]
fn hops_are_counted_for_options() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    let answer = gw.request("OPTIONS", "/get").header("Max-Forwards", "0").expect(204);
    assert_eq!(answer.get("allow"), "GET, HEAD, OPTIONS");
    assert!(origin.seen().is_empty());
    gw.request("OPTIONS", "/get").header("Max-Forwards", "7").expect(200);
    assert_eq!(origin.last().headers["max-forwards"], "6");
    gw.get("/get").header("Max-Forwards", "0").expect(200);
    assert_eq!(origin.last().headers["max-forwards"], "0", "it is for OPTIONS and TRACE alone");
}

#[test]
fn a_method_that_is_not_there_is_answered_with_those_that_are() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    for request in [&b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"[..], b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n"] {
        let said = gw.raw(request).to_lowercase();
        assert!(said.starts_with("http/1.1 405 ") && said.contains("\r\nallow: delete, get, head"), "{said}");
    }
    let long = gw.raw(format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(40)).as_bytes());
    assert!(long.starts_with("HTTP/1.1 501 ") && long.contains("application/problem+json"), "{long}");
}

#[test]
fn without_an_origin_it_is_no_preflight() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    let preflight = || gw.request("OPTIONS", "/cors").header("Access-Control-Request-Method", "POST");
    preflight().header("Origin", "https://a.example").expect(204);
    preflight().expect(200).lacks("access-control-allow-methods");
    assert!(!origin.last().headers.contains_key("x-cors"), "it went to the route for all methods");
}

#[test]
fn a_refusal_of_grpc_over_http1_ends_where_it_says() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /a }}, service: main }}\n",
        origin.url()
    ));
    let request = "POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n";
    let said = gw.raw(format!("{request}\r\n{request}Connection: close\r\n\r\n").as_bytes()).to_lowercase();
    assert_eq!(said.matches("http/1.1 200 ").count(), 2, "the connection can be used again: {said}");
    assert_eq!(said.matches("grpc-status: 12").count(), 2, "{said}");
    assert_eq!(said.matches("content-length: 0").count(), 2, "{said}");
}

#[test]
fn an_absolute_target_names_the_host_in_http10_too() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "");
    let said = gw.raw(b"GET http://vhost.example/x HTTP/1.0\r\n\r\n");
    assert!(said.starts_with("HTTP/1.") && said.contains(" 200 "), "{said}");
    let seen = origin.last();
    assert_eq!((&seen.headers["host"], seen.uri.path()), (&"vhost.example".parse().unwrap(), "/x"));
    assert!(seen.headers.contains_key("x-routed"));
}
