//! Who is waited for: what keeps a backend's bytes from its client is never taken for the backend's silence, and what a
//! backend breaks off is never taken for an answer.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    harness::{Gateway, eventually, raw_backend, read_head},
    http2::Frames,
};

const LISTENER: &str = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";

fn gateway(url: &str, service: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "{LISTENER}services:\n  main: {{ urls: [\"http://{url}\"], retry: {{ max_attempts: 1 }}, {service} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, {route} }}\n"
    ))
}

/// Reads a request with a body of 5 bytes, if it has one.
fn read_request(stream: &mut TcpStream) -> String {
    let head = read_head(stream);
    if head.to_lowercase().contains("content-length: 5\r\n") {
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    head
}

fn attempts(gw: &Gateway, outcome: &str) -> f64 {
    gw.metric(&format!("gateway_upstream_attempts_total{{outcome=\"{outcome}\",service=\"main\"}}")).unwrap_or_default()
}

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";

/// A client that reads nothing for three seconds, and then everything: how much.
fn slow_reader(gw: &Gateway, request: &str) -> usize {
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    all.len()
}

#[test]
fn a_client_that_reads_slowly_is_not_its_backends_silence() {
    // More than sockets keep.
    const MUCH: usize = 32 << 20;
    let url = raw_backend(|mut stream| {
        read_request(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b'a'; MUCH]));
    });
    let gw = gateway(&url, "timeouts: { read: 1s }, circuit_breaker: { failure_threshold: 1 }", "");
    let closing = |request: &str| request.replace("Host: h\r\n", "Host: h\r\nConnection: close\r\n");
    assert!(slow_reader(&gw, &closing(POST)) > MUCH);
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n";
    assert!(slow_reader(&gw, upgrade) > MUCH);
    // Over HTTP/2 the window is what the client does not open.
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-length", b"5")], false);
    frames.data(b"hello", true);
    std::thread::sleep(Duration::from_secs(2));
    frames.send(8, 0, 0, &[0x3f, 0xff, 0, 0]);
    frames.send(8, 0, 1, &[0x3f, 0xff, 0, 0]);
    let mut read = 0;
    while read < MUCH {
        let frame = frames.next().expect("the stream goes on");
        assert!(frame.kind != 3, "it is not reset");
        if frame.kind == 0 {
            read += frame.payload.len();
        }
    }
    gw.log(3);
    assert_eq!((attempts(&gw, "ok"), attempts(&gw, "timeout")), (3.0, 0.0));
}

#[test]
fn what_coding_keeps_back_is_not_its_backends_silence() {
    let url = raw_backend(|mut stream| {
        read_request(&mut stream);
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        for _ in 0..10 {
            let _ = stream.write_all(b"a\r\n0123456789\r\n");
            std::thread::sleep(Duration::from_millis(250));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
    });
    let gw = gateway(&url, "timeouts: { read: 1s }", "filters: [ compression ]");
    for coding in ["gzip", "br", "zstd"] {
        let answer = gw.request("POST", "/").header("Accept-Encoding", coding).body(b"hello").expect(200);
        assert!(answer.get("content-encoding") == coding, "{coding}");
    }
    gw.log(3);
    assert_eq!((attempts(&gw, "ok"), attempts(&gw, "timeout")), (3.0, 0.0));
}

#[test]
fn an_answer_with_a_length_reaches_its_client_as_it_comes() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let url = raw_backend(move |mut stream| {
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        let _ = wait.lock().unwrap().recv();
        let _ = stream.write_all(b"later");
    });
    let gw = gateway(&url, "", "");
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    let mut part = [0; 5];
    client.read_exact(&mut part).unwrap();
    assert_eq!(&part, b"first");
    go_on.send(()).unwrap();
    client.read_exact(&mut part).unwrap();
    assert_eq!(&part, b"later");
}

#[test]
fn interim_answers_show_that_a_backend_is_at_work() {
    let url = raw_backend(|mut stream| {
        read_request(&mut stream);
        for _ in 0..6 {
            let _ = stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n");
            std::thread::sleep(Duration::from_millis(300));
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let gw = gateway(&url, "timeouts: { read: 1s }", "");
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-length", b"5")], false);
    frames.data(b"hello", true);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        client.write_all(POST.replace("HTTP/1.1", version).as_bytes()).unwrap();
        let mut said = String::new();
        while !said.contains(" 200 ") {
            said = read_head(&mut client);
            assert!(!said.is_empty(), "{version}");
        }
    }
    let log = gw.log(3);
    assert!(log.iter().all(|line| line["status"] == 200), "{log:?}");
}

#[test]
fn interim_answers_without_end_are_not_kept_for_a_client_that_does_not_read() {
    let url = raw_backend(|mut stream| {
        read_head(&mut stream);
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".repeat(1000);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) && stream.write_all(&hints).is_ok() {}
    });
    let gw = gateway(&url, "", "");
    let memory = |gw: &Gateway| gw.metric("gateway_memory_alloc_bytes").unwrap();
    let before = memory(&gw);
    let mut frames = Frames::connect(&gw);
    frames.request(b"GET", &[], true);
    std::thread::sleep(Duration::from_secs(2));
    assert!(memory(&gw) < before + 30e6, "{before} became {}", memory(&gw));
}

#[test]
fn an_answer_that_breaks_off_is_booked_once_and_in_a_row() {
    let half = || {
        raw_backend(|mut stream| {
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nhalf");
        })
    };
    for hedge in ["", ", hedge: { after: 5s }"] {
        let gw = gateway(&half(), &format!("circuit_breaker: {{ failure_threshold: 3 }}{hedge}"), "");
        for count in 1..=3 {
            assert!(gw.get("/").try_send().is_err(), "it breaks off");
            gw.log(count);
        }
        assert_eq!((attempts(&gw, "ok"), attempts(&gw, "reset")), (0.0, 3.0), "{hedge}");
        gw.get("/").expect(503);
    }
}

#[test]
fn what_was_sent_through_a_tunnel_before_its_end_arrives() {
    const MUCH: usize = 1 << 20;
    let (sender, received) = std::sync::mpsc::channel();
    let url = raw_backend(move |mut stream| {
        read_head(&mut stream);
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(agreed.as_bytes()).unwrap();
        let (mut all, mut buffer) = (0, vec![0; 64 << 10]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            all += read;
            std::thread::sleep(Duration::from_millis(15));
        }
        sender.send(all).unwrap();
    });
    let gw = gateway(&url, "", "");
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(ask.as_bytes()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    client.write_all(&vec![b'a'; MUCH]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(received.recv_timeout(Duration::from_secs(20)), Ok(MUCH));
}

#[test]
fn an_invitation_to_send_the_body_does_not_cost_the_connection() {
    let url = raw_backend(|mut stream| {
        while !read_head(&mut stream).is_empty() {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            if stream.read_exact(&mut [0; 5]).is_err() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gw = gateway(&url, "", "");
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for _ in 0..2 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 100 "));
        std::thread::sleep(Duration::from_millis(100));
        client.write_all(b"hello").unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("keep-alive"), "{head}");
    }
}

#[test]
fn an_upgrade_that_is_not_granted_is_bounded_like_any_other_request() {
    let url = raw_backend(|mut stream| {
        read_head(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(&vec![b'a'; 65_536]).is_ok() {}
    });
    let gw = Gateway::start(&format!(
        "limits: {{ stall: 1s, body_rate: 10000000 }}\nservices:\n  main: {{ urls: [\"http://{url}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    for protocol in ["x", "websocket"] {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        setsockopt(&client, sockopt::RcvBuf, &4096).unwrap();
        let ask = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        client.write_all(ask.as_bytes()).unwrap();
        // A little is read within each `stall`, and after the end there is still a lot in the sockets.
        std::thread::spawn(move || {
            while matches!(client.read(&mut [0; 16 << 10]), Ok(1..)) {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
    eventually("both have begun", || gw.metric("gateway_requests_in_flight") == Some(2.0));
    eventually("both are over", || gw.metric("gateway_requests_in_flight") == Some(0.0));
}

#[test]
fn a_backend_that_gives_up_on_a_client_that_does_not_read_is_not_blamed() {
    let url = raw_backend(|mut stream| {
        read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        // As nginx's `send_timeout` has it.
        stream.set_nonblocking(true).unwrap();
        let mut moved = Instant::now();
        while moved.elapsed() < Duration::from_millis(1500) {
            match stream.write(&[b'a'; 16_384]) {
                Ok(1..) => moved = Instant::now(),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    });
    let gw = gateway(&url, "circuit_breaker: { failure_threshold: 1 }", "");
    let read = slow_reader(&gw, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(read > 1000 && read < 100_000_000, "{read} {}", gw.read("stdout"));
    assert_eq!(gw.log(1)[0]["reason"], "connection_reset");
    assert_eq!((attempts(&gw, "ok"), attempts(&gw, "reset")), (1.0, 0.0));
}
