//! What must no longer happen once something has been decided: after 101, on a further attempt, when nobody reads.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Fault, FaultProxy, Gateway, Origin, eventually, free_port};

/// A backend that does one thing with each connection, once it has read a head.
fn backend(act: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let (address, act) = (listener.local_addr().unwrap(), std::sync::Arc::new(act));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, act) = (stream.unwrap(), act.clone());
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                act(stream);
            });
        }
    });
    address
}

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

fn gateway(address: SocketAddr, more: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "limits: {{ stall: 1s }}\nservices:\n  main: {{ urls: [\"http://{address}\"]{more} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main{route} }}\n"
    ))
}

/// Sends `bytes` and reads to the end.
fn exchange(gw: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn nothing_of_ours_is_written_into_a_tunnel() {
    let resetting = backend(|mut stream| {
        stream.write_all(SWITCH).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        // Unread bytes make the close a reset.
        let _ = stream.peek(&mut [0]);
    });
    let silent = backend(|mut stream| {
        stream.write_all(SWITCH).unwrap();
        std::thread::sleep(Duration::from_secs(5));
    });
    for (address, more) in [(resetting, ""), (silent, ", timeouts: { idle: 300ms }")] {
        let gw =
            gateway(address, &format!("{more}, circuit_breaker: {{ failure_threshold: 1, reset_timeout: 60s }}"), "");
        for _ in 0..2 {
            let said = exchange(&gw, &[UPGRADE, b"unread"].concat());
            assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
            assert_eq!(said.split_once("\r\n\r\n").unwrap().1, "", "{said}");
        }
    }
}

#[test]
fn bytes_of_another_protocol_are_no_body() {
    let echo = backend(|mut stream| {
        stream.write_all(SWITCH).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read]).unwrap();
        }
    });
    let gw = gateway(echo, "", ", filters: [ { body_limit: { max: 10 } } ]");
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(UPGRADE).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream.write_all(&[b'x'; 1000]).unwrap();
    let mut back = [0; 1000];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, [b'x'; 1000]);
}

#[test]
fn an_upgrade_that_is_not_granted_has_the_ordinary_time_limits() {
    let stalling = backend(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        std::thread::sleep(Duration::from_secs(8));
    });
    let gw = gateway(stalling, ", timeouts: { read: 300ms }", "");
    let begun = Instant::now();
    let said = exchange(&gw, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("half"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_body_counts_once_however_often_it_is_sent() {
    let (good, shadow) = (Origin::start("good"), Origin::start("shadow"));
    let bad = FaultProxy::start(good.address, Fault::Reset);
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\", \"{}\"], retry: {{ max_attempts: 3, on: [connect, reset] }}, outlier_ejection: {{ consecutive: 1000 }} }}\n  shadow: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: shadow }}, filters: [ {{ body_limit: {{ max: 1000 }} }} ] }}\n",
        bad.url(),
        good.url(),
        shadow.url()
    ));
    for _ in 0..4 {
        gw.request("PUT", "/").body(&[b'x'; 600]).expect(200);
    }
    assert!(bad.requests() > 0, "no attempt failed");
    eventually("the copies come", || shadow.seen().len() == 4);
    assert!(shadow.seen().iter().all(|seen| seen.body.len() == 600));
}

#[test]
fn a_copy_whose_answer_never_ends_is_given_up() {
    let origin = Origin::start("o");
    let (ended, gone) = std::sync::mpsc::channel();
    let endless = backend(move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"400\r\n", &[b'x'; 0x400][..], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
        let _ = stream.shutdown(Shutdown::Both);
        let _ = ended.send(());
    });
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\n  shadow: {{ urls: [\"http://{endless}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: shadow }} }}\n",
        origin.url()
    ));
    gw.get("/").expect(200);
    gone.recv_timeout(Duration::from_secs(9)).expect("the copy goes on");
}

#[test]
fn a_client_that_never_reads_holds_nothing_for_long() {
    let origin = Origin::start("o");
    // Answers without a body: what fills up is their heads.
    let filters = format!(", filters: [ {{ headers: {{ response: {{ set: {{ X-Big: {} }} }} }} }} ]", "x".repeat(8000));
    let gw = gateway(origin.address, "", &filters);
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    setsockopt(&stream, sockopt::RcvBuf, &4096).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let requests = b"GET /status/204 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2000);
    let _ = stream.write_all(&requests);
    eventually("it waits for its client", || {
        let before = origin.seen().len();
        std::thread::sleep(Duration::from_millis(100));
        before > 0 && origin.seen().len() == before && gw.metric("gateway_requests_in_flight") == Some(1.0)
    });
    eventually("it is given up", || gw.metric("gateway_requests_in_flight") == Some(0.0));
    drop(stream);
}

#[test]
fn an_answer_must_be_read_at_a_least_rate() {
    let endless = backend(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
        while stream.write_all(&chunk).is_ok() {}
    });
    for (rate, ends) in [(1_000_000_000, true), (1, false)] {
        let gw = Gateway::start(&format!(
            "limits: {{ stall: 1s, body_rate: {rate} }}\nservices:\n  main: {{ urls: [\"http://{endless}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
        ));
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        // It never stalls for long, and gets nowhere.
        let (begun, mut buffer) = (std::time::Instant::now(), vec![0; 1 << 18]);
        while begun.elapsed() < Duration::from_millis(3500) && stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            std::thread::sleep(Duration::from_millis(20));
            if begun.elapsed() > Duration::from_millis(1500) && gw.metric("gateway_requests_in_flight") == Some(0.0) {
                break;
            }
        }
        assert_eq!(begun.elapsed() < Duration::from_millis(3500), ends, "rate {rate}: {:?}", begun.elapsed());
    }
}

#[test]
fn hedged_requests_are_copied_and_broken_off_like_others() {
    let (origin, shadow) = (Origin::start("o"), Origin::start("shadow"));
    let (ended, gone) = std::sync::mpsc::channel();
    let silent = backend(move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        // Nothing comes but the end.
        let _ = stream.read(&mut [0]);
        let _ = ended.send(());
    });
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"], hedge: {{ after: 100ms }} }}\n  silent: {{ urls: [\"http://{silent}\"], hedge: {{ after: 100ms }} }}\n  shadow: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /silent }}, service: silent }}\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: shadow }} }}\n",
        origin.url(),
        shadow.url()
    ));
    for _ in 0..3 {
        gw.get("/").expect(200);
    }
    eventually("the copies come", || shadow.seen().len() == 3);
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.write_all(b"GET /silent HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut said = [0; 64];
    assert!(stream.read(&mut said).unwrap() > 0);
    drop(stream);
    gone.recv_timeout(Duration::from_secs(5)).expect("the attempt goes on without its client");
}

#[test]
fn fields_of_the_backends_hop_end_here() {
    let origin = backend(|mut stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nUpgrade: h2c\r\nTE: x\r\nKeep-Alive: timeout=5\r\nX-Own: yes\r\n\r\n",
        );
    });
    let said =
        exchange(&gateway(origin, "", ""), b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").to_lowercase();
    assert!(said.contains("x-own: yes") && !said.contains("upgrade") && !said.contains("\r\nte:"), "{said}");
}
