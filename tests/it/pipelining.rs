//! Requests that a client sends without waiting for the answers to those before them (RFC 9112 §9.3.2).

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::harness::{Gateway, Origin, eventually};

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ))
}

/// A connection on which answers are waited for.
struct Client(TcpStream, String);

impl Client {
    fn connect(gw: &Gateway) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(stream, String::new())
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads until `enough` has been said, or no more comes.
    fn read_until(&mut self, enough: impl Fn(&str) -> bool) {
        let mut buffer = [0; 4096];
        while !enough(&self.1) {
            let Ok(read @ 1..) = self.0.read(&mut buffer) else { return };
            self.1 += &String::from_utf8_lossy(&buffer[..read]);
        }
    }

    /// The statuses of the first `count` answers, or of fewer when no more come.
    fn statuses(&mut self, count: usize) -> Vec<String> {
        let found = |said: &str| -> Vec<_> {
            said.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect()
        };
        self.read_until(|said| {
            found(said).len() >= count && found(said).iter().all(|status: &String| status.len() == 3)
        });
        found(&self.1)
    }
}

fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunked(path: &str, chunks: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn bodies_sent_ahead_belong_to_their_requests() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let bodies: [&[u8]; 4] = [&[b'a'; 8000], &[b'b'; 8000], &[b'c'; 3000], &[b'd'; 5000]];
    for _ in 0..5 {
        let before = origin.seen().len();
        let mut client = Client::connect(&gw);
        client.send(
            &[
                request("POST", "/slow/50", bodies[0]),
                request("PUT", "/second", bodies[1]),
                chunked("/third", &[bodies[2], bodies[3]]),
                request("POST", "/fourth", bodies[3]),
            ]
            .concat(),
        );
        assert_eq!(client.statuses(4), ["200"; 4]);
        let seen = &origin.seen()[before..];
        let told: Vec<_> = seen.iter().map(|seen| (seen.uri.path(), &seen.body[..])).collect();
        let third = [bodies[2], bodies[3]].concat();
        let sent = [("/slow/50", bodies[0]), ("/second", bodies[1]), ("/third", &third[..]), ("/fourth", bodies[3])];
        assert!(told == sent, "{:?}", told.iter().map(|(path, body)| (path, body.len())).collect::<Vec<_>>());
    }
}

#[test]
fn a_request_within_a_body_sent_ahead_is_no_request() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\nX-Pad: ";
    let head = request("POST", "/b", &[]).len() + 3;
    // It begins at the 4096th byte of the request, where the gateway cuts what was read ahead.
    let body = [&vec![b'A'; 4096 - head][..], smuggled, &vec![b'B'; 1500], b"\r\n\r\n"].concat();
    let mut client = Client::connect(&gw);
    client.send(&[&b"GET /slow/300 HTTP/1.1\r\nHost: h\r\n\r\n"[..], &request("POST", "/b", &body)].concat());
    eventually("the first is under way", || origin.seen().len() == 1);
    std::thread::sleep(Duration::from_millis(100));
    client.send(&request("PUT", "/c", &[b'C'; 3000]));
    assert_eq!(client.statuses(3), ["200"; 3]);
    let seen = origin.seen();
    let paths: Vec<_> = seen.iter().map(|seen| seen.uri.path()).collect();
    assert_eq!(paths, ["/slow/300", "/b", "/c"]);
    assert!(seen[1].body == body && seen[2].body[..] == [b'C'; 3000], "bodies are told apart");
}

#[test]
fn a_malformed_body_sent_ahead_is_refused() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let mut malformed = chunked("/b", &[&[b'x'; 5000]]);
    // Beyond what is looked at together with the head.
    let end = malformed.len() - 5;
    malformed.splice(end.., *b"zz\r\n");
    let mut client = Client::connect(&gw);
    client.send(&[request("POST", "/slow/200", b""), malformed, request("GET", "/c", b"")].concat());
    assert_eq!(client.statuses(3), ["200", "400"]);
    assert!(client.1.contains("a chunk's size is malformed"), "{}", client.1);
    let seen = origin.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\n";

#[test]
fn a_refused_upgrade_is_followed_by_other_requests() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n").into_bytes();
    let second = request("POST", "/second", b"hello");
    let mut client = Client::connect(&gw);
    client.send(&[ask("/"), second.clone(), ask("/"), second.clone()].concat());
    assert_eq!(client.statuses(4), ["200"; 4], "in one piece");
    let mut client = Client::connect(&gw);
    client.send(&ask("/slow/400"));
    eventually("it is under way", || origin.seen().len() == 5);
    client.send(&second);
    assert_eq!(client.statuses(2), ["200"; 2], "while the backend thinks");
    client.send(&ask("/"));
    assert_eq!(client.statuses(3), ["200"; 3]);
    client.send(&second);
    assert_eq!(client.statuses(4), ["200"; 4], "after the answer");
    assert_eq!(origin.last().body, "hello");
}

#[test]
fn what_is_sent_along_with_an_upgrade_comes_after_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
            while !head.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut buffer).unwrap();
                head.extend_from_slice(&buffer[..length]);
            }
            // Whatever came too early would be seen before this.
            std::thread::sleep(Duration::from_millis(100));
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .unwrap();
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..length]).unwrap();
            }
        }
    });
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    for pause in [0, 50] {
        let mut client = Client::connect(&gw);
        let early = vec![b'x'; 30_000];
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n").as_bytes());
        std::thread::sleep(Duration::from_millis(pause));
        client.send(&early);
        let echo = |said: &str| said.split_once("\r\n\r\n").map_or(0, |(_, echo)| echo.len());
        client.read_until(|said| echo(said) == early.len());
        assert_eq!(echo(&client.1), early.len(), "{:?}", client.1.get(..200));
    }
}
