//! Raw requests, each with its outcome: nothing is smuggled, split, truncated or ambiguous.

mod recorder;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use self::recorder::Recorder;
use crate::harness::Gateway;

const MALFORMED: &str = include_str!("../../fixtures/corpus/malformed.txt");
const VALID: &str = include_str!("../../fixtures/corpus/valid.txt");

/// What follows every request that is to be refused.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

fn gateway(recorder: &Recorder) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"http://{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        recorder.address
    ))
}

/// The lines of a data file, split at ` | ` into so many parts.
fn cases(text: &'static str, parts: usize) -> Vec<Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.splitn(parts, " | ").collect())
        .inspect(|case: &Vec<_>| assert_eq!(case.len(), parts))
        .collect()
}

/// Bytes from their notation in the data files.
fn bytes(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'\\', [kind, tail @ ..]) => {
                rest = tail;
                match kind {
                    b'r' => out.push(b'\r'),
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'0' => out.push(0),
                    b'x' => {
                        out.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                        rest = &tail[2..];
                    }
                    other => out.push(*other),
                }
            }
            (b'{', tail) => match repetition(tail) {
                Some((repeated, left)) => {
                    out.extend_from_slice(&repeated);
                    rest = left;
                }
                None => out.push(b'{'),
            },
            _ => out.push(*first),
        }
    }
    out
}

/// `text*count}`.
fn repetition(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = text.iter().position(|byte| *byte == b'}')?;
    let inner = std::str::from_utf8(&text[..end]).ok()?;
    let (text_part, count) = inner.rsplit_once('*')?;
    Some((bytes(text_part).repeat(count.parse().ok()?), &text[end + 1..]))
}

/// What came back, and whether the connection was closed.
struct Answer {
    text: String,
    closed: bool,
}

impl Answer {
    fn status(&self) -> &str {
        self.text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("none")
    }
}

fn send(gw: &Gateway, bytes: &[u8], cut: bool, patience: Duration) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    // The gateway may close before it has read all of it.
    let _ = stream.write_all(bytes);
    if cut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut text, mut buffer) = (Vec::new(), [0; 8192]);
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(e) => break e.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    Answer { text: String::from_utf8_lossy(&text).into_owned(), closed }
}

#[test]
fn malformed_requests_are_refused() {
    let recorder = Recorder::start();
    let gw = gateway(&recorder);
    let cases = cases(MALFORMED, 4);
    assert!(cases.len() >= 120, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let [outcome, name, source, raw] = case[..] else { unreachable!() };
        let (mut raw, cut) = (bytes(raw), outcome == "cut");
        if !cut {
            raw.extend_from_slice(SMUGGLED);
        }
        let answer = send(&gw, &raw, cut, Duration::from_secs(3));
        let mut complain = |what: String| wrong.push(format!("{name} ({source}): {what}"));
        if !answer.closed {
            complain(format!("the connection stays open: {}", answer.text));
        }
        if !cut {
            if !outcome.split('/').any(|status| status == answer.status()) {
                complain(format!("expected {outcome}, got {}", answer.text.chars().take(200).collect::<String>()));
            }
            if !answer.text.to_lowercase().contains("\r\nconnection: close\r\n") {
                complain("does not say that it closes".to_owned());
            }
            if answer.text.matches("\r\nDate: ").count() > 1 {
                complain(format!("more than one answer: {}", answer.text));
            }
        }
        for seen in recorder.take() {
            complain(format!("the backend saw {:?}", String::from_utf8_lossy(&seen.raw)));
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    wrong.extend(recorder.take().iter().map(|seen| format!("late: {:?}", String::from_utf8_lossy(&seen.raw))));
    assert!(wrong.is_empty(), "{} of {} cases: {wrong:#?}", wrong.len(), cases.len());
}

#[test]
fn unusual_requests_pass_as_they_are() {
    let recorder = Recorder::start();
    let gw = gateway(&recorder);
    let cases = cases(VALID, 5);
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let [line, body, name, source, raw] = case[..] else { unreachable!() };
        let answer = send(&gw, &bytes(raw), false, Duration::from_millis(250));
        let seen = recorder.take();
        let mut complain = |what: String| wrong.push(format!("{name} ({source}): {what}"));
        let text = answer.text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer.text);
        if !text.starts_with("HTTP/1.1 200 ") && !text.starts_with("HTTP/1.0 200 ") {
            complain(format!("not passed: {text}"));
        }
        match seen.as_slice() {
            [one] => {
                if one.line != line || one.body != body.as_bytes() {
                    complain(format!("expected {line} with '{body}', the backend saw {one:?}"));
                }
                if one.framings > 1 {
                    complain(format!("more than one framing: {one:?}"));
                }
            }
            other => complain(format!("the backend saw {} requests", other.len())),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases: {wrong:#?}", wrong.len(), cases.len());
}

/// Requests whose client does not wait for answers, and how many of them are answered (RFC 9112 §9.3.2).
const PIPELINES: [(&str, &[u8], &[&str]); 7] = [
    (
        "two",
        b"GET /one HTTP/1.1\r\nHost: h\r\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n",
        &["GET /one", "GET /two"],
    ),
    (
        "bodies of each kind",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloPUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX-T: u\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nGET http://h/d HTTP/1.1\r\nHost: h\r\n\r\n",
        &["POST /a", "PUT /b", "GET /c", "GET /d"],
    ),
    (
        "an empty line between",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        &["POST /a", "GET /b"],
    ),
    (
        "the first one closes",
        b"GET /one HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n",
        &["GET /one"],
    ),
    (
        "a malformed one",
        b"GET /one HTTP/1.1\r\nHost: h\r\n\r\nGET /two HTTP/1.1\r\n\r\nGET /three HTTP/1.1\r\nHost: h\r\n\r\n",
        &["GET /one"],
    ),
    (
        "a malformed body",
        b"GET /one HTTP/1.1\r\nHost: h\r\n\r\nPOST /two HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloGET /three HTTP/1.1\r\nHost: h\r\n\r\n",
        &["GET /one"],
    ),
    (
        "an upgrade that is not granted",
        b"GET /one HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nGET /two HTTP/1.1\r\nHost: h\r\n\r\n",
        &["GET /one", "GET /two"],
    ),
];

#[test]
fn pipelined_requests_are_answered_in_order() {
    let recorder = Recorder::start();
    let gw = gateway(&recorder);
    for (name, raw, expected) in PIPELINES {
        let answer = send(&gw, raw, false, Duration::from_secs(1));
        let lines: Vec<String> = recorder.take().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines, expected, "{name}: {}", answer.text);
        assert_eq!(answer.text.matches("HTTP/1.1 200 ").count(), expected.len(), "{name}: {}", answer.text);
        let malformed = name.starts_with("a malformed");
        assert_eq!(answer.text.contains("HTTP/1.1 400 "), malformed, "{name}: {}", answer.text);
        assert_eq!(answer.closed, malformed || expected.len() == 1, "{name}: {}", answer.text);
    }
}

/// However a row of requests is cut into packets, and more of them than are taken ahead: each is answered once, in order.
#[test]
fn long_pipelines_come_through_in_any_pieces() {
    let recorder = Recorder::start();
    let gw = gateway(&recorder);
    let (mut raw, mut expected) = (Vec::new(), Vec::new());
    for i in 0..300 {
        let (method, body) = match i % 3 {
            0 => ("GET", "\r\n".to_owned()),
            1 => ("POST", format!("Content-Length: {i}\r\n\r\n{}", "b".repeat(i))),
            _ => ("PUT", format!("Transfer-Encoding: chunked\r\n\r\n{i:x}\r\n{}\r\n0\r\n\r\n", "c".repeat(i))),
        };
        raw.extend_from_slice(format!("{method} /{i} HTTP/1.1\r\nHost: h\r\n{body}").as_bytes());
        expected.push(format!("{method} /{i}"));
    }
    for size in [97, 4096, raw.len()] {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 8192]);
        std::thread::scope(|scope| {
            scope.spawn(|| raw.chunks(size).for_each(|piece| writer.write_all(piece).unwrap()));
            while String::from_utf8_lossy(&text).matches("HTTP/1.1 200 ").count() < expected.len() {
                match stream.read(&mut buffer) {
                    Ok(read @ 1..) => text.extend_from_slice(&buffer[..read]),
                    other => panic!("pieces of {size}: {other:?} after {}", String::from_utf8_lossy(&text)),
                }
            }
        });
        let lines: Vec<String> = recorder.take().into_iter().map(|seen| seen.line).collect();
        assert_eq!(lines, expected, "pieces of {size}");
    }
}
