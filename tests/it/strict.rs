//! Requests that two parsers could read differently, and requests that ask for too much.

use crate::harness::{Gateway, Origin};

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "limits: {{ header_size: 4KiB, headers: 20, uri: 1KiB }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {{ body_limit: {{ max: 1KiB }} }} ]\n",
        origin.url()
    ))
}

/// Sends a head and wants `status`, a closed connection, and nothing at the backend.
fn refused(head: &str, status: u16) {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let answer = gw.raw(head.as_bytes());
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{head:?}: {answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("request_id"), "{head:?}: {answer}");
    assert!(origin.seen().is_empty(), "{head:?}: the backend saw {:?}", origin.seen());
}

#[test]
fn one_framing_or_none() {
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400);
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400);
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", 400);
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400);
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn heads_are_read_strictly() {
    for head in [
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        refused(head, 400);
    }
}

#[test]
fn a_head_has_one_time_limit_for_all_of_it() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "limits: {{ head: 1s }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n",
        origin.url()
    ));
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let (begun, mut answer) = (std::time::Instant::now(), Vec::new());
    // A byte every 100 ms: never silent for long, never done.
    for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
        let mut buffer = [0; 1024];
        if std::io::Write::write_all(&mut stream, &[*byte]).is_err() {
            break;
        }
        match std::io::Read::read(&mut stream, &mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(_) => {}
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "still open");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
}

#[test]
fn a_refused_head_has_a_line_in_the_access_log() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let answer = gw.raw(b"GET /secret HTTP/1.1\r\n\r\n");
    let line = gw.log(1)[0].clone();
    assert_eq!((&line["status"], &line["by"], &line["client"]), (&400.into(), &"gateway".into(), &"127.0.0.1".into()));
    assert_eq!(line["error"], "the Host field is missing");
    assert!(answer.contains(line["id"].as_str().unwrap()), "the answer has the same id: {answer}");
    assert!(line["time"].as_str().unwrap().ends_with('Z') && !line.to_string().contains("secret"), "{line}");
}

/// An `Upgrade` that `Connection` does not name, or one to HTTP/2, changes nothing: neither limits, nor where the request
/// ends, nor what the backend may take it for.
#[test]
fn stray_upgrades_are_ignored() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let two = gw.raw(b"POST / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nokGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(two.matches("HTTP/1.1 200 ").count(), 2, "{two}");
    assert_eq!(origin.seen()[0].body, "ok");
    for protocols in ["h2c", "websocket, H2C", "h2"] {
        let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        let said = gw.raw(format!("{head}Upgrade: {protocols}\r\n\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    }
    for seen in origin.seen() {
        let connection = seen.headers.get("connection").map(|value| value.to_str().unwrap().to_lowercase());
        assert!(!connection.is_some_and(|names| names.contains("upgrade")), "{seen:?}");
        assert!(!seen.headers.contains_key("upgrade") && !seen.headers.contains_key("http2-settings"), "{seen:?}");
    }
}

#[test]
fn one_host() {
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
}

#[test]
fn one_reading_of_the_path() {
    refused("GET /../etc HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    refused("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    refused("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    refused("GET /a\\b HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    refused("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405);
    refused("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 405);
}

#[test]
fn heads_and_bodies_have_limits() {
    refused(&format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(2000)), 414);
    refused(&format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(5000)), 431);
    refused(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(21)), 431);
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n", 413);
}

#[test]
fn a_body_without_a_length_is_counted() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let chunk = format!("200\r\n{}\r\n", "a".repeat(512));
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert!(gw.raw(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).starts_with("HTTP/1.1 200 "));
    assert!(gw.raw(format!("{head}{chunk}{chunk}{chunk}0\r\n\r\n").as_bytes()).starts_with("HTTP/1.1 413 "));
    assert_eq!(origin.seen().len(), 1, "a body that was cut off is not a request");
}

#[test]
fn unusual_but_valid_requests_pass() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    for head in [
        "GET http://h/absolute HTTP/1.1\r\nHost: h\r\n",
        "GET / HTTP/1.0\r\n",
        "brew / HTTP/1.1\r\nHost: h\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX-Empty:\r\n",
        "GET /?q=/../%zz HTTP/1.1\r\nHost: h\r\n",
    ] {
        let answer = gw.raw(format!("{head}Connection: close\r\n\r\n").as_bytes());
        assert!(answer.contains(" 200 "), "{head:?}: {answer}");
    }
    assert_eq!(origin.seen()[0].uri.to_string(), "/absolute");
}
