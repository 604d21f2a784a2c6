//! Clients that send what nobody expects, or nothing at all, and what it does to others.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::{
    harness::{Gateway, Origin, eventually, free_port},
    http2::Frames,
};

fn gateway(urls: &[String], root: &str, service: &str) -> Gateway {
    let urls = urls.join("\", \"");
    Gateway::start(&format!(
        "{root}services:\n  main:\n    urls: [\"{urls}\"]\n{service}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

/// A request with fields that no library would send.
fn get(fields: &[u8]) -> Vec<u8> {
    [&b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"[..], fields, b"\r\n"].concat()
}

#[test]
fn a_byte_beyond_ascii_does_not_make_the_balancer_the_client() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "trusted_proxies: [127.0.0.0/8]\n", "");
    for (fields, client, list) in [
        (&b"X-Forwarded-For: \xff, 203.0.113.9, 127.0.0.3\r\n"[..], "203.0.113.9", "unknown, 203.0.113.9, 127.0.0.3, "),
        (
            b"X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: \xff, 127.0.0.3\r\n",
            "127.0.0.3",
            "9.9.9.9, unknown, 127.0.0.3, ",
        ),
        (b"Forwarded: for=\"\xff\", for=203.0.113.9;by=\"\xff\"\r\n", "203.0.113.9", ""),
    ] {
        let said = gw.raw(&get(fields));
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        let seen = origin.last().headers;
        assert_eq!(seen["x-real-ip"], client, "{}", fields.escape_ascii());
        assert_eq!(seen["x-forwarded-for"], format!("{list}127.0.0.1"), "{}", fields.escape_ascii());
    }
    gw.raw(&get(b"Via: 1.0 fred (\xff)\r\n"));
    assert_eq!(origin.last().headers["via"].as_bytes(), b"1.0 fred (\xff), 1.1 tollgate");
}

#[test]
fn a_cookie_is_found_beside_one_with_bytes_beyond_ascii() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = gateway(&[a.url(), b.url()], "", "    sticky: { cookie: srv }\n");
    let answer = gw.get("/").expect(200);
    let pair = answer.get("set-cookie").split(';').next().unwrap().to_owned();
    for _ in 0..6 {
        let said = gw.raw(&get(&[b"Cookie: x=\xff; ", pair.as_bytes(), b"\r\n"].concat()));
        assert!(said.ends_with(&answer.body) && !said.contains("et-cookie"), "{said}");
    }
    let gw = gateway(&[a.url(), b.url()], "", "    balance: { consistent_hash: \"cookie:user\" }\n");
    let mut told = std::collections::HashSet::new();
    for user in 0..30 {
        let said = gw.raw(&get(&[b"Cookie: x=\xff; user=", user.to_string().as_bytes(), b"\r\n"].concat()));
        told.insert(said.chars().last());
    }
    assert_eq!(told.len(), 2, "users are told apart");
}

/// Sends bytes and reads to the end of the connection.
fn converse(gw: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

#[test]
fn there_is_no_grpc_over_http1_for_those_who_are_slow() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "limits: { stall: 1s }\n", "");
    let said =
        converse(&gw, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\nContent-Length: 9\r\n\r\n");
    assert!(said.to_lowercase().contains("grpc-status: 4\r\n"), "{said}");
    assert_eq!(gw.log(1)[0]["status"], 408);
}

fn over_http2(gw: &Gateway) -> Frames {
    let mut frames = Frames::connect(gw);
    frames.send(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    frames
}

#[test]
fn a_grpc_client_that_grants_no_room_may_be_silent() {
    let origin = Origin::start("o");
    let gw = gateway(
        &[origin.url()],
        "limits: { stall: 1s }\nlisteners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n",
        "",
    );
    let mut frames = over_http2(&gw);
    frames.request(b"POST", &[(b"content-type", b"application/grpc")], true);
    assert_eq!(frames.end(), "status 200");
    // For longer than `stall`.
    let early = std::iter::from_fn(|| frames.next()).find(|frame| frame.stream == 1);
    assert!(early.is_none(), "{early:?}");
    frames.send(8, 0, 1, &[0, 0, 0, 100]);
    let data = std::iter::from_fn(|| frames.next()).find(|frame| frame.kind == 0);
    assert_eq!(data.map(|frame| frame.payload), Some(b"o".to_vec()));
}

#[test]
fn over_http2_a_body_longer_than_its_length_is_no_request() {
    let origin = Origin::start("o");
    let gw = gateway(
        &[origin.url()],
        "limits: { stall: 1s }\nlisteners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n",
        "",
    );
    for parts in [&[&b"hel"[..], b"lo"][..], &[b"he", b"l", b"l", b"o"], &[b"hel"]] {
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", &[(b"content-length", b"3")], false);
        for (number, part) in parts.iter().enumerate() {
            // Each by itself: what follows must not come in time to warn of what went before.
            std::thread::sleep(Duration::from_millis(100 * u64::from(number > 0)));
            frames.data(part, false);
        }
        assert_ne!(frames.end(), "status 200");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-length", b"3")], false);
    frames.data(b"hel", false);
    frames.data(b"", true);
    assert_eq!(frames.end(), "status 200");
    assert_eq!(origin.last().body, "hel");
}

/// A backend that takes one connection at a time, asks for the body after a while, and answers when it has it.
fn slow_to_ask(after: Duration) -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            std::thread::sleep(after);
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    url
}

#[test]
fn a_client_that_has_not_been_asked_for_its_body_is_not_late() {
    let backend = slow_to_ask(Duration::from_millis(1500));
    let gw = gateway(&[backend], "limits: { stall: 1s }\n", "    in_flight: { max: 1, queue: 5, wait: 9s }\n");
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let head =
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let (mut said, mut buffer) = (String::new(), [0; 1024]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            said += std::str::from_utf8(&buffer[..read]).unwrap();
            if said.ends_with("100 Continue\r\n\r\n") {
                stream.write_all(b"hello").unwrap();
            }
        }
        said
    };
    // One waits for the backend, the other one in the queue.
    let said = std::thread::scope(|scope| [scope.spawn(ask), scope.spawn(ask)].map(|asked| asked.join().unwrap()));
    assert!(said.iter().all(|said| said.contains("HTTP/1.1 200 ")), "{said:?}");
}

#[test]
fn a_client_that_is_asked_for_its_body_has_to_send_it() {
    let gw = gateway(&[slow_to_ask(Duration::ZERO)], "limits: { stall: 1s }\n", "");
    let said = converse(&gw, b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(said.contains("HTTP/1.1 408 "), "{said}");
    let silent =
        gateway(&[slow_to_ask(Duration::from_secs(60))], "limits: { stall: 1s }\n", "    timeouts: { read: 1s }\n");
    let said = converse(&silent, b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert!(said.contains("HTTP/1.1 504 "), "{said}");
}

#[test]
fn a_client_that_leaves_behind_a_crowd_of_requests_is_missed() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "", "");
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all((request("/slow/15000") + &request("/").repeat(1000)).as_bytes()).unwrap();
    eventually("the first one is there", || !origin.seen().is_empty());
    // All is in the gateway's hands or the kernel's, and it has seen that.
    std::thread::sleep(Duration::from_millis(100));
    drop(stream);
    assert_eq!(gw.log(1)[0]["status"], 499);
}

#[test]
fn a_call_of_grpc_that_is_reset_in_the_queue_leaves_it() {
    let origin = Origin::start("o");
    let h2c = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";
    let gw = gateway(&[origin.url()], h2c, "    in_flight: { max: 1, queue: 1, wait: 15s }\n");
    let request = b"GET /slow/15000 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut holder = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    holder.write_all(request).unwrap();
    eventually("the place is taken", || !origin.seen().is_empty());
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-type", b"application/grpc")], false);
    frames.data(b"x", false);
    eventually("it waits", || gw.metric("gateway_requests_in_flight").is_some_and(|count| count >= 2.0));
    frames.send(3, 0, 1, &[0, 0, 0, 8]);
    assert_eq!(gw.log(1)[0]["status"], 499);
}

#[test]
fn at_the_upper_ends_of_the_limits_refusals_have_our_form() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "limits: { headers: 250, header_size: 980000, uri: 65000 }\n", "");
    // What is within the limits is the backend's to refuse, and it says nothing of 400.
    for fields in [248, 250, 252, 253, 256, 260] {
        let said = gw.raw(&get("x: y\r\n".repeat(fields - 2).as_bytes()));
        assert!(!said.starts_with("HTTP/1.1 400 "), "{fields}: {said}");
        assert!(fields <= 250 || said.contains("application/problem+json"), "{fields}: {said}");
    }
    for length in [979_800, 981_000, 1_060_000] {
        let head = format!("GET /{} HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "p".repeat(64_980), "x".repeat(length));
        let said = gw.raw(head.as_bytes());
        assert!(!said.starts_with("HTTP/1.1 400 "), "{length}: {said}");
        assert!(length < 980_000 || said.contains("application/problem+json"), "{length}: {said}");
    }
}

#[test]
fn over_http2_a_connection_serves_so_many_requests_and_no_more() {
    let origin = Origin::start("o");
    let h2c = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\nlimits: { requests_per_connection: 3 }\n";
    let gw = gateway(&[origin.url()], h2c, "");
    let mut frames = Frames::connect(&gw);
    for number in [1, 3] {
        frames.stream_id = number;
        frames.request(b"GET", &[], true);
        assert_eq!(frames.end(), "status 200");
    }
    frames.stream_id = 5;
    frames.request(b"GET", &[], true);
    let (mut answered, mut last) = (false, Vec::new());
    while let Some(frame) = frames.next() {
        match frame.kind {
            1 => answered = frame.stream == 5,
            6 if frame.flags == 0 => frames.send(6, 1, 0, &frame.payload),
            7 => last = frame.payload,
            _ => {}
        }
    }
    assert!(answered, "the last one too");
    assert_eq!(last, [0, 0, 0, 5, 0, 0, 0, 0], "no more after it, and no error");
}
