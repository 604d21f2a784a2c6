//! HTTP/2 from clients: a load generator, and frames written by hand.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::harness::{Certs, Gateway, Origin, eventually, program};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn gateway(origin: &Origin, listener: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", {listener} }} ]\n{more}services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ))
}

#[test]
fn many_streams_on_few_connections() {
    let (certs, origin) = (Certs::new(), Origin::start("o"));
    certs.issue("a", "a", &["a.example"]);
    let tls = format!("tls: {{ certificates: [ {{ {} }} ] }}", certs.yaml("a"));
    for (listener, scheme) in [(tls.as_str(), "https"), ("h2c: true", "http")] {
        let gw = gateway(&origin, listener, "");
        let url = format!("{scheme}://127.0.0.1:{}/", gw.port);
        let output =
            Command::new(program("h2load", "nghttp2-client")).args(["-n5000", "-c10", "-m20", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("5000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("Application protocol: h2"), "{said}");
        eventually("all are logged", || gw.log(5000).iter().all(|line| line["protocol"] == "HTTP/2"));
    }
}

/// A field's name and value.
type Field = (&'static [u8], &'static [u8]);

/// A client that writes frames by hand: nothing stops it from sending what no library would.
pub(crate) struct Frames {
    stream: TcpStream,
    pub(crate) stream_id: u32,
}

/// A frame that came back.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frames {
    pub(crate) fn connect(gw: &Gateway) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        stream.write_all(PREFACE).unwrap();
        let mut this = Self { stream, stream_id: 1 };
        this.send(4, 0, 0, &[]);
        this
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let _ = self.stream.write_all(&[head, payload.to_vec()].concat());
    }

    /// A whole head.
    pub(crate) fn headers(&mut self, fields: &[(&[u8], &[u8])], end: bool) {
        self.send(1, 4 | u8::from(end), self.stream_id, &block(fields));
    }

    /// A request with the usual pseudo-fields, and these.
    pub(crate) fn request(&mut self, method: &[u8], more: &[(&[u8], &[u8])], end: bool) {
        let usual: [(&[u8], &[u8]); 4] =
            [(b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")];
        self.headers(&[&usual[..], more].concat(), end);
    }

    pub(crate) fn data(&mut self, bytes: &[u8], end: bool) {
        self.send(0, u8::from(end), self.stream_id, bytes);
    }

    /// The next frame, if one comes.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// How the request ended: `status NNN` (of answers without indexing tricks), `reset`, `goaway` or `closed`.
    pub(crate) fn end(&mut self) -> String {
        while let Some(frame) = self.next() {
            match frame.kind {
                1 if frame.stream == self.stream_id => return format!("status {}", status(&frame.payload)),
                3 if frame.stream == self.stream_id => return "reset".to_owned(),
                7 => return "goaway".to_owned(),
                _ => {}
            }
        }
        "closed".to_owned()
    }
}

/// Literal fields, neither indexed nor compressed.
fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    block
}

/// `:status` is the first field: indexed for common ones, else a literal with an indexed name.
fn status(block: &[u8]) -> u16 {
    // A table size update may come before it.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => {
            let raw = &block[2..2 + usize::from(block[1] & 0x7f)];
            if block[1] & 0x80 == 0 { String::from_utf8_lossy(raw).parse().unwrap() } else { huffman_digits(raw) }
        }
    }
}

/// Three digits in the code of RFC 7541, appendix B: five bits for 0, 1 and 2, six for the others.
fn huffman_digits(raw: &[u8]) -> u16 {
    let bits = raw.iter().map(|byte| format!("{byte:08b}")).collect::<Vec<_>>().concat();
    let (mut rest, mut number) = (bits.as_str(), 0u16);
    for _ in 0..3 {
        let five = u16::from_str_radix(&rest[..5], 2).unwrap();
        if five < 3 {
            (number, rest) = (number * 10 + five, &rest[5..]);
        } else {
            let six = u16::from_str_radix(&rest[..6], 2).unwrap();
            (number, rest) = (number * 10 + six - 0x19 + 3, &rest[6..]);
        }
    }
    number
}

#[test]
fn frames_by_hand_get_an_answer() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    let mut frames = Frames::connect(&gw);
    frames.request(b"GET", &[(b"x-a", b"b"), (b"te", b"trailers")], true);
    assert_eq!(frames.end(), "status 200");
    let seen = origin.last();
    assert_eq!(
        (seen.uri.path(), &seen.headers["host"], &seen.headers["x-a"]),
        ("/", &"h".parse().unwrap(), &"b".parse().unwrap())
    );
    frames.stream_id = 3;
    frames.request(b"POST", &[(b"content-length", b"5")], false);
    frames.data(b"hel", false);
    frames.data(b"lo", true);
    assert_eq!(frames.end(), "status 200");
    assert_eq!(origin.last().body, "hello");
}

#[test]
fn what_http1_could_misread_is_refused() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    let cases: &[(&str, &[Field])] = &[
        ("transfer-encoding", &[(b"transfer-encoding", b"chunked")]),
        ("connection", &[(b"connection", b"close")]),
        ("keep-alive", &[(b"keep-alive", b"1")]),
        ("proxy-connection", &[(b"proxy-connection", b"close")]),
        ("upgrade", &[(b"upgrade", b"websocket")]),
        ("te", &[(b"te", b"gzip")]),
        ("upper case name", &[(b"X-Upper", b"1")]),
        ("line feed in a value", &[(b"x-a", b"b\nx-evil: 1")]),
        ("carriage return in a value", &[(b"x-a", b"b\rx")]),
        ("NUL in a value", &[(b"x-a", b"b\0c")]),
        ("colon in a name", &[(b"x:a", b"b")]),
        ("space in a name", &[(b"x a", b"b")]),
        ("line feed in a name", &[(b"x\na", b"b")]),
        ("pseudo-field after others", &[(b"x-a", b"b"), (b":path", b"/evil")]),
        ("repeated pseudo-field", &[(b":path", b"/evil")]),
        ("unknown pseudo-field", &[(b":evil", b"1")]),
        ("answer's pseudo-field", &[(b":status", b"200")]),
        ("another host", &[(b"host", b"evil")]),
        ("two hosts", &[(b"host", b"h"), (b"host", b"h")]),
        ("length that is not a number", &[(b"content-length", b"+0")]),
        ("two lengths", &[(b"content-length", b"0"), (b"content-length", b"1")]),
    ];
    let mut wrong = Vec::new();
    for (what, fields) in cases {
        let mut frames = Frames::connect(&gw);
        frames.request(b"GET", fields, true);
        let end = frames.end();
        if !["status 400", "reset", "goaway", "closed"].contains(&end.as_str()) || !origin.seen().is_empty() {
            wrong.push(format!("{what}: {end}, the backend saw {:?}", origin.seen().pop()));
        }
    }
    for (what, fields) in [
        ("no path", [(&b":method"[..], &b"GET"[..]), (b":scheme", b"http"), (b":authority", b"h")]),
        ("no method", [(b":path", b"/"), (b":scheme", b"http"), (b":authority", b"h")]),
        ("no scheme", [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"h")]),
        ("no authority", [(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http")]),
        ("connect", [(b":method", b"CONNECT"), (b":authority", b"h:80"), (b"x-a", b"b")]),
    ] {
        let mut frames = Frames::connect(&gw);
        frames.headers(&fields, true);
        let end = frames.end();
        if end == "status 200" || !origin.seen().is_empty() {
            wrong.push(format!("{what}: {end}"));
        }
    }
    for (what, path) in
        [("space", &b"/a b"[..]), ("line feed", b"/a\nb"), ("no slash", b"a"), ("up and out", b"/../x"), ("empty", b"")]
    {
        let mut frames = Frames::connect(&gw);
        frames.headers(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"h")], true);
        let end = frames.end();
        if end == "status 200" || !origin.seen().is_empty() {
            wrong.push(format!("path with {what}: {end}, {:?}", origin.seen().pop()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_length_that_disagrees_with_the_data_is_never_a_whole_request() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    for (length, data) in [(&b"10"[..], &b"hello"[..]), (b"3", b"hello"), (b"0", b"x")] {
        // A request of length 0 is whole with its head; what follows must not become part of anything.
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", &[(b"content-length", length)], false);
        frames.data(data, true);
        assert_ne!(frames.end(), "status 200");
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    // An end that comes a little later is an end all the same.
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-length", b"0")], false);
    frames.data(b"", false);
    frames.data(b"", true);
    assert_eq!(frames.end(), "status 200");
}

#[test]
fn every_refusal_has_our_form_an_id_a_line_and_a_count() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    let head = |method: &'static [u8], authority: &'static [u8], more: &[Field]| -> Vec<Field> {
        let usual: [Field; 4] =
            [(b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", authority)];
        [&usual[..], more].concat()
    };
    let cases = [
        ("user information", head(b"GET", b"u@h", &[]), 400),
        ("another host", head(b"GET", b"h", &[(b"host", b"evil")]), 400),
        ("padding", head(b"GET", b"h", &[(b"x-a", b" b")]), 400),
        ("two lengths", head(b"GET", b"h", &[(b"content-length", b"0"), (b"content-length", b"0")]), 400),
        ("connect", vec![(b":method", b"CONNECT"), (b":authority", b"h:80")], 405),
        ("trace", head(b"TRACE", b"h", &[]), 405),
    ];
    for (number, (what, fields, status)) in cases.iter().enumerate() {
        let mut frames = Frames::connect(&gw);
        frames.headers(fields, true);
        assert_eq!(frames.end(), format!("status {status}"), "{what}");
        let body = std::iter::from_fn(|| frames.next()).find(|frame| frame.kind == 0 && !frame.payload.is_empty());
        let body = String::from_utf8(body.unwrap().payload).unwrap();
        let line = gw.log(number + 1).pop().unwrap();
        assert!(body.contains(line["id"].as_str().unwrap()) && body.contains("about:blank"), "{what}: {body} {line}");
        assert_eq!((line["status"].as_u64(), &line["by"]), (Some(*status), &"gateway".into()), "{what}: {line}");
    }
    assert!(origin.seen().is_empty());
}

#[test]
fn early_hints_pass() {
    let backend = std::net::TcpListener::bind(("127.0.0.1", crate::harness::free_port())).unwrap();
    let address = backend.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in backend.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
            let _ = stream.write_all(format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").as_bytes());
        }
    });
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"http://{address}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    let output = Command::new(program("nghttp", "nghttp2-client"))
        .args(["-nv", &format!("http://127.0.0.1:{}/", gw.port)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (hints, answer) = (said.find(":status: 103"), said.find(":status: 200"));
    assert!(hints.is_some() && hints < answer && said.contains("rel=preload"), "{said}");
}

#[test]
fn a_refusal_of_grpc_is_one_frame() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /a }}, service: main }}\n",
        origin.url()
    ));
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[(b"content-type", b"application/grpc")], true);
    let answer = std::iter::from_fn(|| frames.next()).find(|frame| frame.stream == 1).unwrap();
    // END_STREAM on HEADERS: "Trailers-Only" of gRPC's protocol.
    assert_eq!((answer.kind, answer.flags & 1), (1, 1), "{answer:?}");
}

#[test]
fn cookies_in_pieces_are_joined() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    let mut frames = Frames::connect(&gw);
    frames.request(b"GET", &[(b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2; d=3")], true);
    assert_eq!(frames.end(), "status 200");
    let cookies: Vec<_> = origin.last().headers.get_all("cookie").iter().cloned().collect();
    assert_eq!(cookies, ["a=1; c=2; d=3"]);
    let mut frames = Frames::connect(&gw);
    frames.request(b"GET", &[(b"cookie", b""), (b"cookie", b"a=1"), (b"cookie", b"")], true);
    assert_eq!(frames.end(), "status 200");
    assert_eq!(origin.last().headers["cookie"], "a=1");
}

#[test]
fn rapid_resets_end_the_connection() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "limits: { h2_resets: 20 }\n");
    let mut frames = Frames::connect(&gw);
    for stream in (1..4001).step_by(2) {
        frames.stream_id = stream;
        frames.request(b"GET", &[], true);
        frames.send(3, 0, stream, &8u32.to_be_bytes());
    }
    frames.stream_id = 0;
    assert!(["goaway", "closed"].contains(&frames.end().as_str()));
    assert!(origin.seen().len() < 1500, "{} of 2000 reached the backend", origin.seen().len());
    gw.get("/").expect(200);
}

#[test]
fn streams_are_limited_and_silent_connections_closed() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "limits: { h2_streams: 3, head: 1s, keepalive: 1s }\n");
    let mut frames = Frames::connect(&gw);
    let settings = std::iter::from_fn(|| frames.next()).find(|frame| frame.kind == 4 && !frame.payload.is_empty());
    let settings = settings.unwrap().payload;
    let most = settings.chunks(6).find(|setting| setting[1] == 3).map(|setting| setting[5]);
    assert_eq!(most, Some(3), "{settings:?}");
    let begun = Instant::now();
    while frames.next().is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(3), "idle: {:?}", begun.elapsed());

    // A preface that never ends, and a head that never ends.
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(&PREFACE[..20]).unwrap();
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    assert!(begun.elapsed() < Duration::from_secs(3), "preface: {:?}", begun.elapsed());
    let mut frames = Frames::connect(&gw);
    frames.send(1, 0, 1, &[0, 1, b'x', 1, b'y']);
    let begun = Instant::now();
    while frames.next().is_some() {}
    assert!(begun.elapsed() < Duration::from_secs(3), "head: {:?}", begun.elapsed());
}

#[test]
fn heads_over_http2_have_a_time_limit() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "limits: { head: 1s, keepalive: 30s }\n");
    // A head without its end; one that goes on for ever; the beginning of a frame.
    for (first, more) in [(&b"\x00"[..], None), (b"\x00", Some(9)), (b"", None)] {
        let mut client = Frames::connect(&gw);
        if first.is_empty() {
            client.stream.write_all(b"\x00\x00").unwrap();
        } else {
            client.send(1, 0, 1, first);
        }
        let begun = Instant::now();
        client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 1024];
        while client
            .stream
            .read(&mut buffer)
            .map_or_else(|e| e.kind() == std::io::ErrorKind::WouldBlock, |read| read > 0)
        {
            assert!(begun.elapsed() < Duration::from_secs(3), "it may go on");
            if let Some(kind) = more {
                client.send(kind, 0, 1, b"\x00");
            }
        }
        assert!(begun.elapsed() > Duration::from_millis(850), "{:?}", begun.elapsed());
    }
    // In time, in pieces.
    let mut client = Frames::connect(&gw);
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")];
    client.send(1, 1, 1, &block(&fields[..2]));
    std::thread::sleep(Duration::from_millis(100));
    client.send(9, 4, 1, &block(&fields[2..]));
    assert_eq!(client.end(), "status 200");
    std::thread::sleep(Duration::from_millis(1300));
    client.stream_id = 3;
    client.request(b"GET", &[], true);
    assert_eq!(client.end(), "status 200", "an idle connection has time");
}

#[test]
fn an_answer_over_http2_must_be_read_at_a_least_rate() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "limits: { stall: 1s, body_rate: 10000 }\n");
    for (step, whole) in [(1u32, false), (2000, true)] {
        let mut client = Frames::connect(&gw);
        // The window of a stream is one byte.
        client.send(4, 0, 0, &[0, 4, 0, 0, 0, 1]);
        let usual: [(&[u8], &[u8]); 4] =
            [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/big"), (b":authority", b"h")];
        client.headers(&usual, true);
        client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (begun, mut got, mut end) = (Instant::now(), 0, None);
        while end.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(4), "{got} bytes, and no end");
            match client.next() {
                Some(frame) if frame.kind == 0 => {
                    got += frame.payload.len();
                    end = (frame.flags & 1 == 1).then_some(true);
                }
                Some(frame) if frame.kind == 3 => end = Some(false),
                Some(_) => {}
                None => client.send(8, 0, 1, &step.to_be_bytes()),
            }
        }
        assert_eq!(end, Some(whole), "{got} bytes after {:?}", begun.elapsed());
        eventually("nothing is under way", || gw.metric("gateway_requests_in_flight") == Some(0.0));
    }
}

#[test]
fn a_body_that_ends_with_an_empty_frame_ends_once() {
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", backend.local_addr().unwrap());
    let (note, noted) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in backend.incoming() {
            let (mut stream, mut said, mut buffer) = (stream.unwrap(), Vec::new(), [0; 4096]);
            while !said.ends_with(b"0\r\n\r\n") {
                let length = stream.read(&mut buffer).unwrap();
                said.extend_from_slice(&buffer[..length]);
            }
            // What is written beyond the end comes at once.
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let more = stream.read(&mut buffer).unwrap_or(0);
            said.extend_from_slice(&buffer[..more]);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
            note.send(String::from_utf8(said).unwrap()).unwrap();
        }
    });
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    // Empty ones in the middle are no end either.
    for (frames, body) in [
        (&[&b"abc"[..], b""][..], "3\r\nabc\r\n0\r\n\r\n"),
        (&[b"", b"abc", b"", b"", b""], "3\r\nabc\r\n0\r\n\r\n"),
        (&[b""], "0\r\n\r\n"),
    ] {
        let mut client = Frames::connect(&gw);
        client.request(b"POST", &[], false);
        for (number, data) in frames.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(20));
            client.data(data, number + 1 == frames.len());
        }
        assert_eq!(client.end(), "status 200");
        let said = noted.recv().unwrap();
        assert_eq!(said.split_once("\r\n\r\n").unwrap().1, body);
    }
}

#[test]
fn trailers_that_came_too_late_for_what_they_say_are_refused() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "h2c: true", "");
    let ask = |length: &[Field], trailers: &[Field]| {
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", length, false);
        frames.data(b"hello", false);
        frames.headers(trailers, true);
        frames.end()
    };
    for length in [&[][..], &[(&b"content-length"[..], &b"5"[..])]] {
        assert_eq!(ask(length, &[(b"x-checksum", b"1")]), "status 200");
        for name in [&b"host"[..], b"content-length", b"authorization", b"content-type", b"cookie"] {
            let before = origin.seen().len();
            assert_eq!(ask(length, &[(name, b"5")]), "status 400", "{}", String::from_utf8_lossy(name));
            assert_eq!(origin.seen().len(), before);
        }
    }
}
