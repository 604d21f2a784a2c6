//! Answers of the gateway's own are the same whichever way a request comes: over HTTP/1.1 without a body there is no session for
//! it, with a body there is one of ours, and HTTP/1.0 and HTTP/2 are read by others again.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use crate::{
    auth::sha256,
    harness::{Gateway, Origin, eventually, h2_request},
};

/// An answer, and what was written down of it, without what differs by its nature.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    fields: BTreeMap<String, Vec<String>>,
    body: String,
    line: Value,
}

/// Fields that tell of the moment, or of the connection.
const OF_THE_MOMENT: [&str; 6] =
    ["date", "x-request-id", "connection", "ratelimit", "x-ratelimit-reset", "retry-after"];

fn told(status: u16, fields: Vec<(String, String)>, body: &str, line: &Value) -> Told {
    let mut kept = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in fields {
        if !OF_THE_MOMENT.contains(&name.to_lowercase().as_str()) {
            kept.entry(name.to_lowercase()).or_default().push(value);
        }
    }
    let mut line = line.clone();
    let id = line["id"].as_str().unwrap().to_owned();
    for name in ["time", "id", "duration_ms", "protocol", "received", "first_byte_ms"] {
        line.as_object_mut().unwrap().remove(name);
    }
    Told { status, fields: kept, body: body.replace(&id, "ID"), line }
}

/// Sends bytes and reads until the gateway closes, or says no more.
fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut part) {
        all.extend_from_slice(&part[..length]);
    }
    String::from_utf8(all).unwrap()
}

fn parse(answer: &str) -> (u16, Vec<(String, String)>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned()));
    (status, fields.collect(), body.to_owned())
}

/// One request by each of the four ways, after so many others.
fn by_each_way(
    gw: &Gateway,
    before: usize,
    (method, path, fields): (&str, &str, &[(&str, &str)]),
) -> Vec<(&'static str, Told)> {
    let text: String = fields.iter().fold(String::new(), |mut all, (name, value)| {
        write!(all, "{name}: {value}\r\n").unwrap();
        all
    });
    let ways = [
        ("directly", format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{text}\r\n")),
        (
            "with a body",
            format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{text}Content-Length: 1\r\n\r\nx"),
        ),
        ("HTTP/1.0", format!("{method} {path} HTTP/1.0\r\nHost: h\r\n{text}\r\n")),
        ("HTTP/2", String::new()),
    ];
    let mut all = Vec::new();
    for (before, (way, request)) in (before..).zip(ways) {
        let (status, fields, body) = if way == "HTTP/2" {
            let answer = h2_request(gw.port, method, path, fields);
            let headers = answer.head.headers().iter();
            let fields = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            (answer.head.status().as_u16(), fields.collect(), String::from_utf8(answer.body).unwrap())
        } else {
            parse(&exchange(gw.port, request.as_bytes()))
        };
        let lines = gw.log(before + 1);
        all.push((way, told(status, fields, &body, &lines[before])));
    }
    all
}

/// Method, path, fields, and the status that is expected.
type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], u16);

#[test]
fn each_answer_of_the_gateways_own_is_the_same_by_each_way() {
    let origin = Origin::start("a");
    let gw = Gateway::start(&format!(
        r#"listeners: [{{ address: "127.0.0.1:{{port}}", h2c: true }}]
services: {{ a: {{ urls: ["{}"] }}, full: {{ urls: ["http://127.0.0.1:1"] }} }}
api_keys: [{{ id: k, sha256: {} , scopes: [read] }}]
routes:
  - {{ match: {{ path: /fixed }}, respond: {{ status: 200, body: "hello", headers: {{ X-One: "1" }} }} }}
  - {{ match: {{ path: /empty }}, respond: {{ status: 204 }} }}
  - {{ match: {{ path: "/moved/{{place}}" }}, redirect: {{ to: "https://other.example/{{place}}", status: 308 }} }}
  - {{ match: {{ path: /key }}, service: a, filters: [request_id, {{ headers: {{ response: {{ set: {{ X-Frame-Options: DENY }} }} }} }}, api_key] }}
  - {{ match: {{ path: /scope }}, service: a, filters: [{{ api_key: {{ scopes: [write] }} }}] }}
  - {{ match: {{ path: /ip }}, service: a, filters: [{{ ip: {{ deny: ["127.0.0.0/8"] }} }}] }}
  - {{ match: {{ path: /limited }}, service: a, filters: [{{ rate_limit: {{ rate: 1/h, burst: 1, by: "header:x-who" }} }}] }}
  - {{ match: {{ path: /cors }}, service: a, filters: [{{ cors: {{ origins: ["https://app.example"] }} }}] }}
  - {{ match: {{ path: /post, method: [POST] }}, service: a }}
"#,
        origin.url(),
        sha256("secret")
    ));
    // The bucket is empty from here on.
    gw.get("/limited").header("x-who", "me").send();
    let preflight = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")];
    let cases: [Case; 13] = [
        ("GET", "/fixed", &[], 200),
        ("HEAD", "/fixed", &[], 200),
        ("GET", "/empty", &[], 204),
        ("GET", "/moved/a?b=c", &[], 308),
        ("GET", "/key", &[], 401),
        ("HEAD", "/key", &[], 401),
        ("GET", "/scope", &[("x-api-key", "secret")], 403),
        ("GET", "/ip", &[], 403),
        ("GET", "/limited", &[("x-who", "me")], 429),
        ("OPTIONS", "/cors", &preflight, 204),
        ("GET", "/post", &[], 405),
        ("GET", "/nowhere", &[], 404),
        ("GET", "/a%zz", &[], 400),
    ];
    for (number, (method, path, fields, status)) in cases.into_iter().enumerate() {
        let all = by_each_way(&gw, 1 + 4 * number, (method, path, fields));
        assert_eq!(all[0].1.status, status, "{method} {path}");
        for (way, told) in &all[1..] {
            assert_eq!(told, &all[0].1, "{method} {path}: {way}, and directly");
        }
        let label = format!("status=\"{status}\"");
        let counted = gw.admin("/metrics").send().body;
        assert!(counted.lines().any(|line| line.contains(&label)), "{method} {path}: {status} is not counted");
    }
    // Four ways, and the one before; what was asked of the admin listener is not among them.
    let metrics = gw.admin("/metrics").send().body;
    let counters = metrics.lines().filter(|line| line.starts_with("gateway_requests_total{"));
    let total: f64 = counters.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((total - 53.0).abs() < 0.1, "{total}");
}

#[test]
fn pipelined_requests_are_answered_in_order_with_and_without_a_backend() {
    let origin = Origin::start("a");
    let gw = Gateway::start(&format!(
        r#"services: {{ a: {{ urls: ["{}"] }} }}
routes:
  - {{ match: {{ path: "/own/{{n}}" }}, redirect: {{ to: "/to/{{n}}", status: 302 }} }}
  - {{ match: {{ path: /* }}, service: a }}
"#,
        origin.url()
    ));
    let mut bytes = String::new();
    for number in 0..20 {
        match number % 4 {
            0 => write!(bytes, "GET /own/{number} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap(),
            1 => write!(bytes, "GET /far/{number} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap(),
            2 => write!(bytes, "POST /own/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").unwrap(),
            _ => write!(
                bytes,
                "POST /far/{number} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            )
            .unwrap(),
        }
    }
    bytes += "GET /own/20 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /own/never HTTP/1.1\r\nHost: h\r\n\r\n";
    let text = exchange(gw.port, bytes.as_bytes());
    let seen: Vec<String> = origin.seen().iter().map(|seen| seen.uri.to_string()).collect();
    let far: Vec<String> = (0..20).filter(|number| number % 2 == 1).map(|number| format!("/far/{number}")).collect();
    assert_eq!(seen, far);
    let heads: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    let expected: Vec<&str> = (0..21).map(|number| if number % 2 == 1 { "200" } else { "302" }).collect();
    assert_eq!(heads, expected, "{text}");
    let places: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("location: ")).collect();
    let own: Vec<String> = (0..21).filter(|number| number % 2 == 0).map(|number| format!("/to/{number}")).collect();
    assert_eq!(places, own, "{text}");
    eventually("all have their lines", || gw.log(0).len() == 21);
}

#[test]
fn names_of_fields_are_handed_on_as_it_is_said() {
    for (setting, expected, own) in [
        ("canonical", "x-mixed-case: 1", "\r\nx-own-case: 1\r\n"),
        ("as_sent", "X-Mixed-Case: 1", "\r\nX-Own-Case: 1\r\n"),
    ] {
        let backend = crate::harness::raw_backend(move |mut stream| {
            let head = crate::harness::read_head(&mut stream);
            let _ =
                write!(stream, "HTTP/1.1 200 Fine\r\ncontent-length: {}\r\nX-Own-Case: 1\r\n\r\n{head}", head.len());
        });
        let gw = Gateway::start(&format!(
            "header_names: {setting}\nservices: {{ a: {{ urls: [\"http://{backend}\"] }}, h: {{ urls: [\"http://{backend}\"], hedge: {{ after: 1s }} }} }}\nroutes: [{{ match: {{ path: /* }}, service: a }}, {{ match: {{ path: /hedged }}, service: h }}]\n"
        ));
        for path in ["/", "/hedged"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nX-Mixed-Case: 1\r\nConnection: close\r\n\r\n");
            let answer = exchange(gw.port, request.as_bytes());
            assert!(answer.contains(expected), "{setting}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 200 Fine\r\n") && answer.contains(own), "{setting} {path}: {answer}");
        }
    }
}
