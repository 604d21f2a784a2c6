//! Answers that are given to others while they come and are stored: neither slow nor leaving clients hold up the others.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    harness::{Answer, Gateway, eventually, h2_request, raw_backend, read_head},
    http2::Frames,
    purge::purged,
};

/// A backend that sends the first half of an answer, and the second one once it is told to.
struct Halves {
    url: String,
    asked: Arc<AtomicUsize>,
    gate: Arc<(Mutex<Second>, Condvar)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Second {
    NotYet,
    Sent,
    /// The connection ends instead.
    Never,
}

impl Halves {
    fn start(length: usize, fields: &'static str) -> Self {
        Self::beginning_with(length / 2, length, fields)
    }

    fn beginning_with(first: usize, length: usize, fields: &'static str) -> Self {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(Second::NotYet), Condvar::new())));
        let (count, held) = (asked.clone(), gate.clone());
        let url = raw_backend(move |mut stream| {
            while !read_head(&mut stream).is_empty() {
                let body = content(length, count.fetch_add(1, SeqCst));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n\r\n");
                let (first, second) = body.split_at(first);
                if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first)).is_err() {
                    return;
                }
                let wait = |state: &mut Second| *state == Second::NotYet;
                let state = held.1.wait_timeout_while(held.0.lock().unwrap(), Duration::from_secs(20), wait).unwrap().0;
                if *state == Second::Never {
                    return;
                }
                drop(state);
                if stream.write_all(second).is_err() {
                    return;
                }
            }
        });
        Self { url, asked, gate }
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn now(&self, second: Second) {
        *self.gate.0.lock().unwrap() = second;
        self.gate.1.notify_all();
    }

    fn gateway(&self, more: &str) -> Gateway {
        let listener = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";
        Gateway::start(&format!(
            "{listener}services: {{ main: {{ urls: ['http://{}'], retry: {{ max_attempts: 1 }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}}{more} }} ]\n",
            self.url
        ))
    }
}

/// The body of the nth answer.
fn content(length: usize, number: usize) -> Vec<u8> {
    (0..length).map(|at| b"abcdefghijklmnopqrstuvwxyz0123456"[(at / 7 + at + number) % 33]).collect()
}

/// A client that has asked.
fn ask(gw: &Gateway, method: &str, fields: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{method} /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n").unwrap();
    stream
}

/// The head of the answer, in small letters.
fn head(stream: &mut TcpStream) -> String {
    read_head(stream).to_ascii_lowercase()
}

/// So many bytes.
fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    body
}

#[test]
fn whoever_waits_is_given_what_has_come() {
    for length in [10, 300_000] {
        let halves = Halves::start(length, "Cache-Control: max-age=60\r\nETag: \"1\"");
        let gw = halves.gateway("");
        let (body, half) = (content(length, 0), length / 2);
        let mut leader = ask(&gw, "GET", "");
        assert!(head(&mut leader).contains("x-cache: miss"));
        assert_eq!(read(&mut leader, half), body[..half]);
        let mut others: Vec<TcpStream> = (0..20).map(|_| ask(&gw, "GET", "")).collect();
        for other in &mut others {
            let head = head(other);
            assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("x-cache: hit"), "{head}");
            assert!(head.contains(&format!("content-length: {length}\r\n")) && head.contains("; collapsed"), "{head}");
            assert_eq!(read(other, half), body[..half], "the backend has not sent more");
        }
        halves.now(Second::Sent);
        for other in others.iter_mut().chain([&mut leader]) {
            assert_eq!(read(other, length - half), body[half..]);
            // The connection serves on, and the answer is stored.
            write!(other, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert!(head(other).contains("x-cache: hit"));
            assert_eq!(read(other, length), body);
        }
        assert_eq!(halves.asked(), 1);
    }
}

#[test]
fn conditions_and_parts_are_answered_and_variants_kept_apart() {
    let halves = Halves::start(20_000, "Cache-Control: max-age=60\r\nVary: X-Kind\r\nETag: \"1\"");
    let gw = halves.gateway("");
    let mut leader = ask(&gw, "GET", "X-Kind: a\r\n");
    head(&mut leader);
    // What has come is enough for these.
    let body = content(20_000, 0);
    for (fields, status, part) in [
        ("X-Kind: a\r\nRange: bytes=0-9\r\n", "206", &body[..10]),
        ("X-Kind: a\r\nRange: bytes=500-8999\r\nIf-Range: \"1\"\r\n", "206", &body[500..9000]),
        ("X-Kind: a\r\nRange: bytes=90000-\r\n", "416", &[][..]),
        ("X-Kind: a\r\nIf-None-Match: \"1\"\r\n", "304", &[]),
    ] {
        let mut other = ask(&gw, "GET", fields);
        let head = head(&mut other);
        assert!(head.starts_with(&format!("http/1.1 {status}")) && head.contains("x-cache: hit"), "{fields}: {head}");
        assert_eq!(read(&mut other, part.len()), part, "{fields}");
        other.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(other.read(&mut [0]).is_err(), "{fields}: nothing follows");
    }
    assert_eq!(halves.asked(), 1);
    let (mut end, mut changed) =
        (ask(&gw, "GET", "X-Kind: a\r\nRange: bytes=-5\r\n"), ask(&gw, "GET", "X-Kind: a\r\nIf-None-Match: \"2\"\r\n"));
    // These go by themselves: another variant, and what asks for its own sake.
    let mut others =
        ["X-Kind: b\r\n", "X-Kind: a\r\nCache-Control: no-cache\r\n"].map(|fields| ask(&gw, "GET", fields));
    assert!(head(&mut end).contains("content-range: bytes 19995-19999/20000"));
    assert!(head(&mut changed).starts_with("http/1.1 200"));
    thread::sleep(Duration::from_millis(300));
    halves.now(Second::Sent);
    assert!(read(&mut end, 5) == body[19_995..] && read(&mut changed, 20_000) == body);
    for other in &mut others {
        let head = head(other);
        assert!(head.contains("x-cache: miss"), "{head}");
        let body = read(other, 20_000);
        assert!((1..3).any(|number| content(20_000, number) == body));
    }
    assert_eq!(halves.asked(), 3);
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_others() {
    let length = 6 << 20;
    let halves = Halves::start(length, "Cache-Control: max-age=60");
    halves.now(Second::Sent);
    let gw = halves.gateway("");
    let body = content(length, 0);
    let mut leader = ask(&gw, "GET", "");
    head(&mut leader);
    thread::sleep(Duration::from_millis(300));
    let mut other = ask(&gw, "GET", "");
    assert!(head(&mut other).contains("x-cache: hit"));
    assert!(read(&mut other, length) == body);
    assert!(gw.get("/x").header("Host", "h").expect(200).has("x-cache", "HIT").body.len() == length, "it is stored");
    assert!(read(&mut leader, length) == body, "the slow one gets all of it, too");
    // Over HTTP/2, where each stream has a window.
    for reads in [false, true] {
        let halves = Halves::start(length, "Cache-Control: max-age=60");
        halves.now(Second::Sent);
        let gw = halves.gateway("");
        let mut leader = Frames::connect(&gw);
        leader.headers(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"h")], true);
        assert_eq!(leader.end(), "status 200");
        thread::sleep(Duration::from_millis(300));
        let mut other = ask(&gw, "GET", "");
        assert!(head(&mut other).contains("x-cache: hit"));
        assert!(read(&mut other, length) == body);
        if reads {
            for stream in [0, 1] {
                leader.send(8, 0, stream, &(u32::try_from(length).unwrap()).to_be_bytes());
            }
            let mut got = Vec::new();
            while got.len() < length {
                let frame = leader.next().expect("the slow one gets all of it, too");
                if frame.kind == 0 {
                    got.extend_from_slice(&frame.payload);
                }
            }
            assert!(got == body);
        }
        assert_eq!(halves.asked(), 1);
    }
}

#[test]
fn a_client_that_leaves_does_not_take_the_answer_along() {
    for http2 in [false, true] {
        let length = 300_000;
        let halves = Halves::start(length, "Cache-Control: max-age=60");
        let gw = halves.gateway("");
        let (body, half) = (content(length, 0), length / 2);
        let (mut frames, mut plain) = (None, None);
        if http2 {
            let mut leader = Frames::connect(&gw);
            leader.headers(
                &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"h")],
                true,
            );
            assert_eq!(leader.end(), "status 200");
            frames = Some(leader);
        } else {
            let mut leader = ask(&gw, "GET", "");
            head(&mut leader);
            plain = Some(leader);
        }
        let mut other = ask(&gw, "GET", "");
        assert!(head(&mut other).contains("x-cache: hit"));
        assert_eq!(read(&mut other, half), body[..half]);
        if let Some(mut frames) = frames.take() {
            frames.send(3, 0, 1, &8u32.to_be_bytes());
        }
        drop(plain.take());
        thread::sleep(Duration::from_millis(200));
        halves.now(Second::Sent);
        assert_eq!(read(&mut other, length - half), body[half..]);
        let stored = || gw.get("/x").header("Host", "h").expect(200).has("x-cache", "HIT").body;
        assert!(stored().as_bytes() == body && halves.asked() == 1, "it is stored");
        // That its client has left is in the log all the same.
        let lines = gw.log(3);
        assert!(lines.iter().any(|line| line["error"] == json!("ConnectionClosed")), "{lines:?}");
    }
}

#[test]
fn nor_does_one_that_leaves_before_any_of_the_body_has_come() {
    for others in [true, false] {
        let length = 100_000;
        let halves = Halves::beginning_with(0, length, "Cache-Control: max-age=60");
        let gw = halves.gateway("");
        let mut leader = ask(&gw, "GET", "");
        head(&mut leader);
        let mut other = others.then(|| ask(&gw, "GET", ""));
        if let Some(other) = &mut other {
            assert!(head(other).contains("x-cache: hit"));
        }
        drop(leader);
        thread::sleep(Duration::from_millis(300));
        halves.now(Second::Sent);
        let (mut other, asked) = other.map_or_else(|| (None, 2), |other| (Some(other), 1));
        // Nobody is let in to an answer that will not come to its end.
        let other = other.get_or_insert_with(|| {
            let mut late = ask(&gw, "GET", "");
            assert!(head(&mut late).contains("x-cache: miss"));
            late
        });
        assert!(read(other, length) == content(length, asked - 1));
        assert_eq!(halves.asked(), asked);
    }
}

#[test]
fn what_breaks_off_is_no_whole_answer_to_anybody() {
    let length = 100_000;
    let halves = Halves::start(length, "Cache-Control: max-age=60");
    let gw = halves.gateway("");
    let mut leader = ask(&gw, "GET", "");
    head(&mut leader);
    let mut other = ask(&gw, "GET", "");
    assert!(head(&mut other).contains("x-cache: hit"));
    let port = gw.port;
    let http2 = thread::spawn(move || h2_request(port, "GET", "/x", &[]));
    assert_eq!(read(&mut other, length / 2), content(length, 0)[..length / 2]);
    thread::sleep(Duration::from_millis(200));
    halves.now(Second::Never);
    let mut rest = Vec::new();
    let ended = other.read_to_end(&mut rest);
    assert!(rest.is_empty() && ended.is_ok_and(|read| read == 0), "the connection ends, and the answer is too short");
    let http2 = http2.join().unwrap();
    assert!(http2.body.len() == length / 2 && http2.reset.is_some(), "{:?}", http2.reset);
    assert_eq!(halves.asked(), 1);
    halves.now(Second::Sent);
    assert!(gw.get("/x").header("Host", "h").expect(200).has("x-cache", "MISS").body.as_bytes() == content(length, 1));
}

#[test]
fn whoever_comes_after_a_purge_is_not_given_what_was_on_its_way() {
    let length = 100_000;
    let halves = Halves::start(length, "Cache-Control: max-age=60");
    let gw = halves.gateway("");
    let mut leader = ask(&gw, "GET", "");
    head(&mut leader);
    let mut before = ask(&gw, "GET", "");
    assert!(head(&mut before).contains("x-cache: hit"));
    purged(&gw, &json!({ "all": true }));
    let mut after: Vec<TcpStream> = (0..10).map(|_| ask(&gw, "GET", "")).collect();
    eventually("one of them does not wait for what was purged", || halves.asked() == 2);
    halves.now(Second::Sent);
    assert!(read(&mut before, length) == content(length, 0));
    let misses = after.iter_mut().map(|after| {
        let said = head(after);
        assert!(read(after, length) == content(length, 1));
        said.contains("x-cache: miss")
    });
    assert_eq!(
        (misses.filter(|miss| *miss).count(), halves.asked()),
        (1, 2),
        "one of them has fetched it for the others"
    );
}

#[test]
fn what_is_changed_for_its_client_is_for_nobody_else() {
    let halves = Halves::start(40_000, "Cache-Control: max-age=60\r\nContent-Type: text/plain");
    let gw = halves.gateway(", filters: [ compression ]");
    let mut leader = ask(&gw, "GET", "Accept-Encoding: gzip\r\n");
    let said = head(&mut leader);
    assert!(said.contains("content-encoding: gzip"), "{said}");
    // Waits for the whole.
    let mut other = ask(&gw, "GET", "");
    thread::sleep(Duration::from_millis(300));
    halves.now(Second::Sent);
    assert!(head(&mut other).contains("x-cache: hit"));
    assert!(read(&mut other, 40_000) == content(40_000, 0));
    // Of one that comes as it is, another client may want a compressed copy.
    let halves = Halves::start(40_000, "Cache-Control: max-age=60\r\nContent-Type: text/plain");
    let gw = halves.gateway(", filters: [ compression ]");
    let mut leader = ask(&gw, "GET", "");
    head(&mut leader);
    let coded = thread::spawn({
        let request = gw.get("/x").header("Host", "h").header("Accept-Encoding", "gzip");
        move || -> Answer { request.send() }
    });
    thread::sleep(Duration::from_millis(300));
    halves.now(Second::Sent);
    let coded = coded.join().unwrap();
    assert_eq!((coded.get("content-encoding"), coded.get("x-cache"), halves.asked()), ("gzip", "HIT", 1));
    assert!(read(&mut leader, 40_000) == content(40_000, 0));
    let _ = leader.shutdown(Shutdown::Both);
}

#[test]
fn an_answer_that_there_is_no_room_for_comes_all_the_same() {
    let length = 6 << 20;
    for http2 in [false, true] {
        // All at once want more than there is, and nobody else has asked for any.
        let halves = Halves::start(length, "Cache-Control: max-age=60");
        let listener = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";
        let gw = Gateway::start(&format!(
            "{listener}cache: {{ memory: 16MiB }}\nservices: {{ main: {{ urls: ['http://{}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{ max_object: 8MiB }} }} ]\n",
            halves.url
        ));
        let (port, get) = (gw.port, |path: &'static str| {
            let request = gw.get(path);
            move || request.send().body.into_bytes()
        });
        let clients = ["/1", "/2", "/3", "/4"].map(|path| {
            let get = get(path);
            thread::spawn(move || if http2 { h2_request(port, "GET", path, &[]).body } else { get() })
        });
        eventually("all have begun", || halves.asked() == 4);
        thread::sleep(Duration::from_millis(300));
        halves.now(Second::Sent);
        for client in clients {
            let body = client.join().unwrap();
            assert!((0..4).any(|number| content(length, number) == body), "{} bytes", body.len());
        }
    }
}
