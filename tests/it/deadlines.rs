//! Whose doing a failure is: what a client brings about never counts against a backend.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    harness::{Fault, FaultProxy, Gateway, Origin, eventually},
    http2::Frames,
};

/// A gateway whose breaker opens at the second failure in a row.
fn gateway(url: &str, timeouts: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nlimits: {{ stall: 1s, body_rate: 0 }}\nservices:\n  main:\n    urls: [\"{url}\"]\n    timeouts: {{ {timeouts} }}\n    circuit_breaker: {{ failure_threshold: 2, reset_timeout: 60s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

fn is_open(gw: &Gateway) -> bool {
    gw.metric("gateway_circuit_breaker_state{backend=\"\",service=\"main\"}").is_some_and(|state| state > 0.5)
}

/// Sends `head` with a part of its body, and reads until the other side closes.
fn half(gw: &Gateway, head: &str) -> (String, Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (begun, mut said) = (Instant::now(), String::new());
    let _ = stream.read_to_string(&mut said);
    (said, begun.elapsed())
}

#[test]
fn a_deadline_of_the_client_or_of_the_whole_request_says_nothing_about_the_backend() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "total: 300ms");
    for _ in 0..4 {
        // Not gRPC: the field means nothing.
        gw.get("/slow/50").header("grpc-timeout", "5m").expect(200);
    }
    for _ in 0..3 {
        gw.get("/slow/600").expect(504);
        gw.request("POST", "/slow/600").body(b"x").expect(504);
    }
    // Over before the client has sent its request: the client was too slow.
    let (said, _) = half(&gw, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-type", b"application/grpc"), (b"grpc-timeout", b"5m")], true);
    assert_eq!(frames.end(), "status 200", "gRPC's own way to say that it was too late");
    assert!(!is_open(&gw));
    gw.get("/").expect(200);
}

#[test]
fn a_client_that_leaves_its_body_unsent_gets_408_and_blames_nobody() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "read: 300ms");
    for _ in 0..3 {
        let (said, time) = half(&gw, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!((900..3000).contains(&time.as_millis()), "{time:?}");
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", &[], false);
        frames.data(b"half", false);
        let begun = Instant::now();
        assert_eq!(frames.end(), "status 408");
        assert!((900..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }
    assert!(!is_open(&gw));
    gw.get("/").expect(200);
    // An upgrade that `Connection` does not name frees nobody from the time limits.
    let (said, time) = half(&gw, "POST / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 408 ") && time.as_millis() < 3000, "{time:?} {said}");
}

#[test]
fn a_body_over_http2_has_a_time_limit_for_all_of_it() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nlimits: {{ stall: 5s, body: 1s, body_rate: 0 }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[], false);
    let begun = Instant::now();
    for _ in 0..4 {
        frames.data(b"x", false);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(frames.end(), "status 408");
    assert!((900..3000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[test]
fn a_slow_upload_may_take_longer_than_the_backend_may() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "read: 300ms");
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\n").unwrap();
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[], false);
    for byte in b"hello" {
        std::thread::sleep(Duration::from_millis(150));
        stream.write_all(&[*byte]).unwrap();
        frames.data(&[*byte], *byte == b'o');
    }
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert_eq!(frames.end(), "status 200");
    assert!(origin.seen().iter().all(|seen| seen.body == "hello"));
}

#[test]
fn the_time_of_an_upload_is_not_the_backends() {
    let origin = Origin::start("o");
    let proxy = FaultProxy::start(origin.address, Fault::Stall);
    let gw = gateway(&proxy.url(), "read: 1s, total: 2s");
    for _ in 0..3 {
        // When the time is over, the backend has had 600 ms of its second.
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n").unwrap();
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", &[(b"content-type", b"application/grpc"), (b"grpc-timeout", b"1900m")], false);
        for end in [false, false, true] {
            std::thread::sleep(Duration::from_millis(450));
            stream.write_all(b"x").unwrap();
            frames.data(b"x", end);
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
        assert_eq!(frames.end(), "status 200", "gRPC's own way to say that it was too late");
    }
    assert!(!is_open(&gw));
}

#[test]
fn a_backend_that_is_silent_once_it_has_everything_is_to_blame() {
    let origin = Origin::start("o");
    let proxy = FaultProxy::start(origin.address, Fault::Stall);
    let url = format!("http://{}", proxy.address);
    for over_http2 in [false, true] {
        let gw = gateway(&url, "read: 300ms");
        for _ in 0..2 {
            let begun = Instant::now();
            if over_http2 {
                let mut frames = Frames::connect(&gw);
                frames.request(b"POST", &[], false);
                frames.data(b"whole", true);
                assert_eq!(frames.end(), "status 504");
            } else {
                gw.request("POST", "/").body(b"whole").expect(504).problem();
            }
            assert!((250..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        }
        assert!(is_open(&gw));
        gw.get("/").expect(503);
    }
}

/// Clients that send the head of a POST and a byte, and then nothing.
fn dawdlers(gw: &Gateway, path: &str, count: usize) -> Vec<TcpStream> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx");
    let connect = || {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    (0..count).map(|_| connect()).collect()
}

/// A gateway whose breaker has opened for a second.
fn opened(proxy: &FaultProxy) -> Gateway {
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"{}\"]\n    circuit_breaker: {{ failure_threshold: 2, reset_timeout: 1s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        proxy.url()
    ));
    for _ in 0..2 {
        gw.get("/").expect(503);
    }
    assert!(is_open(&gw));
    gw
}

#[test]
fn a_slow_client_does_not_keep_a_breaker_half_open() {
    let origin = Origin::start("o");
    let proxy = FaultProxy::start(origin.address, Fault::Status503);
    let gw = opened(&proxy);
    proxy.set(Fault::None);
    // Its time is over: the first to come is a client that never sends its body.
    let state = || gw.metric("gateway_circuit_breaker_state{backend=\"\",service=\"main\"}");
    let mut slow = Vec::new();
    eventually("the slow one is let in", || {
        slow.extend(dawdlers(&gw, "/", 1));
        std::thread::sleep(Duration::from_millis(100));
        state() == Some(2.0)
    });
    gw.get("/").expect(200);
    assert!(!is_open(&gw), "an honest request has decided");
    // A request with a body decides too, once it has been sent.
    proxy.set(Fault::Status503);
    eventually("it opens again", || {
        let _ = gw.get("/").send();
        state() == Some(1.0)
    });
    proxy.set(Fault::None);
    eventually("it closes", || gw.request("POST", "/").body(b"whole").send().status == 200 && state() == Some(0.0));
}

#[test]
fn few_requests_pass_a_half_open_breaker_whose_bodies_are_still_to_come() {
    let origin = Origin::start("o");
    let proxy = FaultProxy::start(origin.address, Fault::Status503);
    let gw = opened(&proxy);
    proxy.set(Fault::None);
    let state = || gw.metric("gateway_circuit_breaker_state{backend=\"\",service=\"main\"}");
    let mut slow = Vec::new();
    eventually("one is let in", || {
        slow = dawdlers(&gw, "/", 40);
        std::thread::sleep(Duration::from_millis(100));
        state() == Some(2.0)
    });
    let is_refused = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 503"
    };
    let refused = slow.iter_mut().map(is_refused).filter(|refused| *refused).count();
    assert!((31..40).contains(&refused), "{refused} of 40 were refused");
    gw.get("/").expect(200);
    assert_eq!(state(), Some(0.0), "an honest request has decided");
}

#[test]
fn the_time_that_a_client_takes_is_not_the_backends_latency() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "limits: {{ stall: 5s, body_rate: 0 }}\nservices:\n  main:\n    urls: [\"{}\"]\n    in_flight: {{ max: 500, adaptive: {{ min: 2, initial: 50 }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    gw.get("/").expect(200);
    let uploads: Vec<_> = (0..40u64)
        .map(|number| {
            let port = gw.port;
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream
                    .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\n")
                    .unwrap();
                std::thread::sleep(Duration::from_millis(number * 20));
                for byte in b"abc" {
                    std::thread::sleep(Duration::from_millis(400));
                    stream.write_all(&[*byte]).unwrap();
                }
                let mut said = String::new();
                stream.read_to_string(&mut said).unwrap();
                assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
            })
        })
        .collect();
    for upload in uploads {
        upload.join().unwrap();
    }
    let limit = gw.metric("gateway_concurrency_limit{service=\"main\"}").unwrap();
    assert!(limit > 4.0, "the limit fell to {limit}: 2 is the least that it may be");
}
