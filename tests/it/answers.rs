//! What backends answer, well and badly, and what clients get to see of it over HTTP/1 and HTTP/2.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::harness::{Gateway, Origin, program};

/// What comes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It passes with this status and body.
    Passes(u16, &'static str),
    /// The client gets a problem in its place.
    Bad,
    /// The client sees that it broke off.
    Breaks,
}

use Outcome::{Bad, Breaks, Passes};

const CASES: [(&str, &str, Outcome); 38] = [
    ("a length", "200 OK\r\nContent-Length: 5\r\n\r\nhello", Passes(200, "hello")),
    ("no reason phrase", "200\r\nContent-Length: 5\r\n\r\nhello", Passes(200, "hello")),
    ("an unknown status", "599 Odd\r\nContent-Length: 5\r\n\r\nhello", Passes(599, "hello")),
    ("chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX-T: v\r\n\r\n", Passes(200, "hello")),
    ("until the end", "200 OK\r\n\r\nhello", Passes(200, "hello")),
    ("one length twice", "200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Passes(200, "hello")),
    ("one length in a list", "200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", Passes(200, "hello")),
    ("more than announced", "200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", Passes(200, "hello")),
    ("204 with a length", "204 No Content\r\nContent-Length: 5\r\n\r\nhello", Passes(204, "")),
    ("204 with chunks", "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Passes(204, "")),
    (
        "hints first",
        "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Passes(200, "hello"),
    ),
    ("bytes beyond ASCII", "200 OK\r\nX: \u{fc}\r\nContent-Length: 5\r\n\r\nhello", Passes(200, "hello")),
    ("two lengths", "200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", Bad),
    ("two lengths in a list", "200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!", Bad),
    ("a negative length", "200 OK\r\nContent-Length: -5\r\n\r\nhello", Bad),
    ("a length with a sign", "200 OK\r\nContent-Length: +5\r\n\r\nhello", Bad),
    ("a length beyond 64 bits", "200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello", Bad),
    ("a coding that nobody knows", "200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Bad),
    ("a coding beneath the chunks", "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Bad),
    ("chunks twice", "200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Bad),
    ("identity", "200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", Bad),
    ("101 unasked", "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello", Bad),
    ("a status of two digits", "99 X\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("a status of four digits", "1000 X\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("a status of letters", "abc X\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("NUL in a field", "200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("CR in a field", "200 OK\r\nX: a\rSet-Cookie: b=c\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("no colon", "200 OK\r\nfield\r\nContent-Length: 5\r\n\r\nhello", Bad),
    ("half a head", "200 OK\r\nContent-Len", Bad),
    ("nothing of a head", "", Bad),
    ("cut within a length", "200 OK\r\nContent-Length: 10\r\n\r\nhello", Breaks),
    ("cut within a chunk", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", Breaks),
    ("cut between chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Breaks),
    ("cut within the last chunk", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Breaks),
    ("a chunk size of letters", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", Breaks),
    (
        "a negative chunk size",
        "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n-5\r\nhello\r\n0\r\n\r\n",
        Breaks,
    ),
    ("an empty chunk size", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\r\n", Breaks),
    ("a chunk beyond its size", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n", Breaks),
];

/// A backend that answers with whatever bytes it is given, and closes.
struct Parrot {
    address: SocketAddr,
    says: Arc<Mutex<String>>,
}

impl Parrot {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, says) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
        let shared = says.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(shared.lock().as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
                // Closing over unread bytes would be a reset.
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                std::thread::spawn(move || stream.read(&mut [0; 1]));
            }
        });
        Self { address, says }
    }

    fn gateway(&self) -> Gateway {
        Gateway::start(&format!(
            "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main:\n    urls: [\"http://{}\"]\n    retry: {{ max_attempts: 1 }}\n    outlier_ejection: {{ consecutive: 0 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
            self.address
        ))
    }
}

/// What curl sees, with these options.
fn curl(port: u16, option: &str) -> Outcome {
    let output = Command::new(program("curl", "curl"))
        .args(["-s", "-m", "5", option, "-w", "\n%{http_code}"])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    match (output.status.code(), status) {
        (Some(0), "502") if body.contains("request_id") => Bad,
        (Some(0), status) => {
            let known = ["hello", ""].into_iter().find(|known| *known == body);
            Passes(status.parse().unwrap(), known.unwrap_or("something else"))
        }
        _ => Breaks,
    }
}

#[test]
fn answers_pass_in_one_form_or_not_at_all() {
    let parrot = Parrot::start();
    let gw = parrot.gateway();
    for (name, answer, outcome) in CASES {
        let line = if answer.is_empty() { "" } else { "HTTP/1.1 " };
        *parrot.says.lock() = format!("{line}{answer}");
        // HTTP/1.0 cannot tell a body that is cut off from one that has ended.
        let old = (outcome != Breaks).then_some("--http1.0");
        for option in ["--http1.1", "--http2-prior-knowledge"].into_iter().chain(old) {
            assert_eq!(curl(gw.port, option), outcome, "{name}, {option}");
        }
    }
    assert_eq!(gw.metric("gateway_panics_total"), Some(0.0));
}

#[test]
fn http_1_0_backends_are_spoken_for_in_1_1() {
    let parrot = Parrot::start();
    let gw = parrot.gateway();
    *parrot.says.lock() = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    let said = gw.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nhello"), "{said}");
    *parrot.says.lock() = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned();
    gw.get("/").expect(502).problem();
}

/// HTTP/1.0 knows neither chunks nor interim answers, and closes unless asked not to.
#[test]
fn http_1_0_clients_get_what_they_can_read() {
    let parrot = Parrot::start();
    let gw = parrot.gateway();
    let old = |more: &str| gw.raw(format!("GET / HTTP/1.0\r\n{more}\r\n").as_bytes());
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        *parrot.says.lock() = answer.to_owned();
        let framed = answer.contains("Length");
        for more in ["", "Connection: keep-alive\r\n", "Accept-Encoding: gzip\r\n"] {
            let begun = Instant::now();
            let said = old(more).to_lowercase();
            assert!(said.starts_with("http/1.1 200 ok\r\n") && said.ends_with("\r\n\r\nhello"), "{said}");
            let kept = framed && more.starts_with("Connection");
            assert_eq!(said.contains("connection: keep-alive"), kept, "{said}");
            assert_eq!(begun.elapsed() < Duration::from_millis(900), !kept, "closed or not: {said}");
        }
    }
}

#[test]
fn connections_end_when_either_side_says_so() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    for (fields, closes) in [
        ("Connection: close\r\n", true),
        ("Connection: CLOSE\r\n", true),
        ("Connection: x, close\r\n", true),
        ("Connection: x\r\nConnection: close\r\n", true),
        ("Connection: keep-alive, close\r\n", true),
        ("Connection: x\r\n", false),
        ("", false),
    ] {
        let begun = Instant::now();
        let said = gw.raw(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()).to_lowercase();
        assert_eq!(said.contains("connection: close"), closes, "{fields:?}: {said}");
        assert_eq!(begun.elapsed() < Duration::from_millis(900), closes, "{fields:?}");
    }
}

#[test]
fn a_request_without_a_host_gets_the_backends() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    assert!(gw.raw(b"GET / HTTP/1.0\r\n\r\n").contains(" 200 "));
    assert_eq!(origin.last().headers.get("host").unwrap().to_str().unwrap(), origin.address.to_string());
    gw.get("/").header("Host", "h.example").expect(200);
    assert_eq!(origin.last().headers["host"], "h.example");
}

#[test]
fn lengths_are_told_once() {
    let parrot = Parrot::start();
    let gw = parrot.gateway();
    for lengths in ["Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5 , 5"] {
        *parrot.says.lock() = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nhello");
        let said = gw.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").to_lowercase();
        assert_eq!(said.matches("content-length: 5\r\n").count(), 1, "{said}");
        assert_eq!(said.matches("content-length").count(), 1, "{said}");
    }
}

#[test]
fn the_common_log_has_one_line_of_fixed_fields_whatever_stands_in_them() {
    let origin = crate::harness::Origin::start("o");
    let gw = crate::harness::Gateway::start(&format!(
        "access_log: {{ format: common, query: true }}\napi_keys: [{{ id: a, owner: \"acme \\\"corp\\\"\\u0085\\u202e x\", sha256: {} }}]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [api_key: {{}}] }}\n",
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        origin.url()
    ));
    gw.get("/plain?a=1").key("secret").expect(200);
    crate::harness::eventually("the line is there", || gw.read("stdout").contains("/plain"));
    let log = gw.read("stdout");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.trim_end().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{log:?}");
    let fields: Vec<&str> = log.split_whitespace().collect();
    assert_eq!(fields[2], r"acme\x20\x22corp\x22\xC2\x85\xE2\x80\xAE\x20x", "{log}");
    assert_eq!((fields[5], fields[6], fields.len()), ("\"GET", "/plain?a=1", 10), "{log}");
}
