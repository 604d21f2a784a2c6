//! Answers made smaller: for whom, which, and that they can be read back to the last byte.

use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::http::{HeaderMap, Response};
use bytes::Bytes;

use crate::harness::{Gateway, H2Origin, h2_request, raw_backend, read_head};

/// A backend that answers with the fields that a test names in the path, and with text of 3000 bytes.
fn backend() -> String {
    let backend = raw_backend(|mut stream| {
        let head = read_head(&mut stream);
        let (method, path) = (head.split(' ').next().unwrap(), head.split(' ').nth(1).unwrap());
        let (status, fields) = match path {
            "/part" => (206, "Content-Length: 3000\r\nContent-Range: bytes 0-2999/9000\r\n"),
            "/known" => (304, "ETag: \"abc\"\r\n"),
            "/chunks" => (200, "Transfer-Encoding: chunked\r\n"),
            "/digest" => (200, "Content-Length: 3000\r\nContent-Digest: sha-256=:abc=:\r\n"),
            _ => (200, "Content-Length: 3000\r\nETag: \"abc\"\r\nAccept-Ranges: bytes\r\n"),
        };
        let body = match (method, path) {
            ("HEAD", _) | (_, "/known") => String::new(),
            (_, "/chunks") => format!("bb8\r\n{}\r\n0\r\n\r\n", text()),
            _ => text(),
        };
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: text/plain\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all([head, body].concat().as_bytes()).unwrap();
    });
    format!("http://{backend}")
}

/// What is answered: 3000 bytes.
fn text() -> String {
    let lines: Vec<_> = (1000..1300).map(|number| format!("line {number}")).collect();
    lines.join("\n") + "\n"
}

fn gateway(url: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [ compression ] }}\n"
    ))
}

/// What was said, decoded strictly: an error when its end is missing.
fn decoded(coding: &str, body: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_string(&mut text)?,
        "br" => brotli_decompressor::Decompressor::new(body, 4096).read_to_string(&mut text)?,
        "zstd" => zstd::stream::read::Decoder::new(body)?.read_to_string(&mut text)?,
        _ => return Ok(String::from_utf8_lossy(body).into_owned()),
    };
    Ok(text)
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn a_client_gets_the_coding_that_it_wants() {
    let gw = gateway(&backend());
    for (accepts, coding) in [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br, zstd", "zstd"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("gzip;q=0.1, deflate, br; q=0.2", "br"),
        ("gzip;q=0", ""),
        ("gzip;q=0.000, br;q=0.5", "br"),
        ("gzip;q=0, *", "br"),
        ("*", "gzip"),
        ("*;q=0", ""),
        ("*;q=0, gzip", "gzip"),
        ("identity;q=1, gzip;q=0.1", ""),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity", ""),
        ("deflate", ""),
        ("gzip;q=2", ""),
        ("", ""),
    ] {
        let answer = h2_request(gw.port, "GET", "/", &[("accept-encoding", accepts)]);
        let headers = answer.head.headers();
        assert_eq!(field(headers, "content-encoding"), coding, "{accepts}");
        assert_eq!(field(headers, "vary"), "Accept-Encoding", "{accepts}");
        assert_eq!(decoded(coding, &answer.body).unwrap(), text(), "{accepts}");
    }
    assert_eq!(field(h2_request(gw.port, "GET", "/", &[]).head.headers(), "content-encoding"), "");
    // In several lines it is one list.
    let two = h2_request(gw.port, "GET", "/", &[("accept-encoding", "foo"), ("accept-encoding", "gzip")]);
    assert_eq!(field(two.head.headers(), "content-encoding"), "gzip");
}

#[test]
fn coded_answers_are_whole_to_the_last_byte() {
    let gw = gateway(&backend());
    for coding in ["gzip", "br", "zstd"] {
        for path in ["/", "/chunks"] {
            let answer = h2_request(gw.port, "GET", path, &[("accept-encoding", coding)]);
            assert_eq!(decoded(coding, &answer.body).unwrap(), text(), "{coding}");
            let cut = &answer.body[..answer.body.len() - 1];
            assert!(decoded(coding, cut).is_err(), "{coding}: the test would not notice");
            let said = crate::harness::program("curl", "curl");
            let said = std::process::Command::new(said)
                .args(["-sf", "--compressed", "-H", &format!("Accept-Encoding: {coding}")])
                .arg(format!("http://127.0.0.1:{}{path}", gw.port))
                .output()
                .unwrap();
            assert!(said.status.success() && said.stdout == text().as_bytes(), "{coding}");
        }
    }
}

#[test]
fn a_part_stays_as_it_is() {
    let gw = gateway(&backend());
    for (path, kept, value) in
        [("/part", "content-range", "bytes 0-2999/9000"), ("/digest", "content-digest", "sha-256=:abc=:")]
    {
        let answer = h2_request(gw.port, "GET", path, &[("accept-encoding", "gzip"), ("range", "bytes=0-2999")]);
        let headers = answer.head.headers();
        assert_eq!((field(headers, "content-encoding"), field(headers, "content-length")), ("", "3000"));
        assert_eq!(field(headers, kept), value);
        assert_eq!(answer.body, text().as_bytes());
    }
}

#[test]
fn head_says_what_get_would() {
    let gw = gateway(&backend());
    let names = ["content-encoding", "content-length", "etag", "vary", "accept-ranges", "content-type"];
    for accepts in ["gzip", "identity"] {
        let [head, get] = ["HEAD", "GET"].map(|method| {
            let answer = h2_request(gw.port, method, "/", &[("accept-encoding", accepts)]);
            names.map(|name| field(answer.head.headers(), name).to_owned())
        });
        assert_eq!(head, get);
        let coded = accepts == "gzip";
        assert_eq!((&head[1][..], &head[2][..]), if coded { ("", "W/\"abc\"") } else { ("3000", "\"abc\"") });
        // Over HTTP/1.1 nothing follows either, and the connection stays.
        let one = format!("HEAD / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {accepts}\r\n");
        let said = gw.raw(format!("{one}\r\n{one}Connection: close\r\n\r\n").as_bytes()).to_lowercase();
        assert_eq!(said.matches("http/1.1 200").count(), 2, "{said}");
        assert_eq!(said.matches("content-encoding: gzip").count(), if coded { 2 } else { 0 }, "{said}");
        assert!(said.ends_with("\r\n\r\n") && !said.contains("line"), "{said}");
    }
}

#[test]
fn what_is_known_keeps_the_tag_that_it_was_given() {
    let gw = gateway(&backend());
    for (known, tag) in [("W/\"abc\"", "W/\"abc\""), ("\"abc\"", "\"abc\""), ("\"x\", W/\"abc\"", "W/\"abc\"")] {
        let fields = [("accept-encoding", "gzip"), ("if-none-match", known)];
        let answer = h2_request(gw.port, "GET", "/known", &fields);
        assert_eq!(answer.head.status(), 304);
        let headers = answer.head.headers();
        assert_eq!((field(headers, "etag"), field(headers, "vary")), (tag, "Accept-Encoding"));
    }
}

#[test]
fn trailers_follow_a_coded_answer() {
    let origin = H2Origin::start(|request, mut respond| {
        let head = Response::builder().header("content-type", "text/plain").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        let text = text();
        // In one batch with what comes before, or in one of their own.
        let parts = if request.uri().path() == "/parts" { 3 } else { 1 };
        for part in text.as_bytes().chunks(text.len().div_ceil(parts)) {
            body.send_data(Bytes::copy_from_slice(part), false).unwrap();
        }
        body.send_trailers([("x-sum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect()).unwrap();
    });
    let gw = gateway(&origin.url());
    for coding in ["gzip", "br", "zstd", "identity"] {
        for path in ["/", "/parts"] {
            let answer = h2_request(gw.port, "GET", path, &[("accept-encoding", coding)]);
            let told = field(answer.head.headers(), "content-encoding");
            assert_eq!(told, if coding == "identity" { "" } else { coding });
            assert_eq!(decoded(told, &answer.body).unwrap(), text(), "{coding}");
            assert_eq!(answer.trailers.map(|trailers| field(&trailers, "x-sum").to_owned()), Some("1".to_owned()));
            let said = crate::harness::program("curl", "curl");
            let said = std::process::Command::new(said)
                .args(["-sf", "--http1.1", "-H", &format!("Accept-Encoding: {coding}")])
                .arg(format!("http://127.0.0.1:{}{path}", gw.port))
                .output()
                .unwrap();
            assert_eq!(decoded(told, &said.stdout).unwrap(), text(), "{coding} over HTTP/1.1");
        }
    }
}

#[test]
fn what_is_kept_is_coded_for_each_client_as_it_wants() {
    let backend = crate::cache::Backend::start();
    let gw = kept_and_coded(&backend.address, "64MiB");
    let path = format!("/c?{}&h=Content-Type:text/plain&h=ETag:%22a%22&b=*300000", crate::cache::FRESH);
    let expected = "x".repeat(300_000);
    for (accepts, coding) in [("identity", ""), ("gzip", "gzip"), ("br", "br"), ("zstd", "zstd"), ("gzip", "gzip")] {
        let two = h2_request(gw.port, "GET", &path, &[("host", "h"), ("accept-encoding", accepts)]);
        let headers = two.head.headers();
        assert_eq!((field(headers, "content-encoding"), field(headers, "vary")), (coding, "Accept-Encoding"));
        assert!(decoded(coding, &two.body).unwrap() == expected, "{accepts} over HTTP/2");
        // The same connection twice: the first answer has an end.
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {accepts}\r\n\r\n");
        let head =
            format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {accepts}\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.write_all((request + &head).as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let (first, body, last) = split(&answer);
        assert!(decoded(coding, &body).unwrap() == expected, "{accepts} over HTTP/1");
        for head in [first.to_lowercase(), last.to_lowercase()] {
            assert_eq!(head.contains("content-encoding: "), !coding.is_empty(), "{head}");
            assert!(head.contains("x-cache: hit") && head.contains("vary: accept-encoding"), "{head}");
            assert_eq!(head.contains("content-length: 300000"), coding.is_empty(), "{head}");
        }
    }
    let part = gw.get(&path).header("host", "h").header("accept-encoding", "gzip").header("range", "bytes=0-9").send();
    assert_eq!((part.status, part.get("content-encoding"), part.body.as_str()), (206, "", "xxxxxxxxxx"));
    assert_eq!(part.get("vary"), "Accept-Encoding", "as on the whole (RFC 9110 15.3.7)");
    assert_eq!(backend.asked(), 1);
    let coded = |gw: &Gateway| gw.admin("/api/v1/cache").expect(200).json()["coded"]["entries"].as_u64();
    assert_eq!(coded(&gw), Some(3), "each is made once");
    // What is large is coded for each.
    let large = path.replace("300000", "3000000");
    for _ in 0..2 {
        let answer = h2_request(gw.port, "GET", &large, &[("host", "h"), ("accept-encoding", "gzip")]);
        assert!(decoded("gzip", &answer.body).unwrap().len() == 3_000_000);
    }
    assert_eq!(coded(&gw), Some(3));
}

#[test]
fn what_was_coded_goes_with_what_it_was_made_of() {
    let count = Arc::new(AtomicUsize::new(0));
    let backend = raw_backend(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let body = format!("{} {}", count.fetch_add(1, SeqCst), text());
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nVary: X-Kind\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all([head, body].concat().as_bytes()).unwrap();
        }
    });
    let gw = kept_and_coded(&backend, "64MiB");
    let number = |kind: &str| {
        let fields = [("host", "h"), ("accept-encoding", "gzip"), ("x-kind", kind)];
        let answer = h2_request(gw.port, "GET", "/a", &fields);
        let text = decoded("gzip", &answer.body).unwrap();
        let hit = field(answer.head.headers(), "x-cache") == "HIT";
        (text.split(' ').next().unwrap().parse::<usize>().unwrap(), hit)
    };
    for kind in ["a", "b"] {
        let (first, _) = number(kind);
        assert_eq!([number(kind), number(kind)], [(first, true); 2]);
    }
    assert_eq!([number("a"), number("b")], [(0, true), (1, true)]);
    assert_eq!(crate::purge::purged(&gw, &serde_json::json!({ "all": true })), 2);
    assert_eq!([number("a"), number("a"), number("b")], [(2, false), (2, true), (3, false)]);
}

#[test]
fn what_is_found_to_be_good_or_given_instead_of_an_error_is_coded_too() {
    let path = |said: &str, tag: &str| {
        format!("/c?h=Cache-Control:{said}&h=Content-Type:text/plain&h=ETag:%22{tag}%22&b=*3000")
    };
    let failing = path("max-age=0,%20stale-if-error=60", "a") + "&later=503";
    for (path, word, tag) in [(&path("no-cache", "same"), "REVALIDATED", "\"same\""), (&failing, "STALE", "\"a\"")] {
        let backend = crate::cache::Backend::start();
        let (gw, weak) = (kept_and_coded(&backend.address, "64MiB"), format!("W/{tag}"));
        for (number, accepts) in ["gzip", "gzip", "br", "zstd", "identity"].into_iter().enumerate() {
            // Their own tag would be answered with 304.
            let two = h2_request(gw.port, "GET", path, &[("host", "h"), ("accept-encoding", accepts)]);
            let headers = two.head.headers();
            let word = if number == 0 { "MISS" } else { word };
            assert_eq!(field(headers, "x-cache"), word, "{accepts}");
            let coding = if accepts == "identity" { "" } else { accepts };
            assert_eq!((field(headers, "content-encoding"), field(headers, "vary")), (coding, "Accept-Encoding"));
            assert_eq!(field(headers, "etag"), if coding.is_empty() { tag } else { &weak }, "{word}");
            assert!(decoded(coding, &two.body).unwrap() == "x".repeat(3000), "{accepts} {word}");
            let head = h2_request(gw.port, "HEAD", path, &[("host", "h"), ("accept-encoding", accepts)]);
            if field(head.head.headers(), "x-cache") == "STALE" {
                assert_eq!(field(head.head.headers(), "content-encoding"), coding, "HEAD");
            }
        }
        let has =
            |tag: &str| gw.get(path).header("host", "h").header("accept-encoding", "gzip").header("if-none-match", tag);
        for tag in [tag, &weak] {
            let known = has(tag).send();
            assert_eq!((known.status, known.get("etag"), known.get("x-cache")), (304, tag, word));
        }
    }
}

#[test]
fn a_stale_answer_that_takes_the_place_of_an_error_is_coded_as_what_it_is() {
    let backend = crate::cache::Backend::start();
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices: {{ a: {{ urls: [\"http://{}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: a, filters: [ compression ], cache: {{ query: {{ include: [k] }}, stale_if_error: 1m }} }} ]\n",
        backend.address
    ));
    let ask = |query: &str| {
        let path = format!("/c?k=1&h=Content-Type:text/plain&{query}");
        h2_request(gw.port, "GET", &path, &[("host", "h"), ("accept-encoding", "gzip")])
    };
    ask("h=Cache-Control:max-age=1&b=*5000");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let stale = ask("s=503&b=*9000");
    let headers = stale.head.headers();
    assert_eq!((field(headers, "content-encoding"), field(headers, "x-cache")), ("gzip", "STALE"));
    assert_eq!(field(headers, "content-length"), stale.body.len().to_string());
    assert!(decoded("gzip", &stale.body).unwrap() == "x".repeat(5000));
}

#[test]
fn the_date_of_one_form_is_not_that_of_another() {
    let backend = crate::cache::Backend::start();
    let gw = kept_and_coded(&backend.address, "64MiB");
    let date = "Wed, 01 Jan 2020 00:00:00 GMT";
    let modified = date.replace(' ', "%20");
    let path = format!("/c?{}&h=Content-Type:text/plain&h=Last-Modified:{modified}&b=*3000", crate::cache::FRESH);
    gw.get(&path).expect(200);
    let part = |accepts| {
        let asked =
            gw.get(&path).header("accept-encoding", accepts).header("range", "bytes=0-9").header("if-range", date);
        asked.send().status
    };
    assert_eq!((part("gzip"), part("identity")), (200, 206));
    // Of what is not compressed there is one form only.
    let picture = path.replace("text/plain", "image/png");
    gw.get(&picture).expect(200);
    let asked = gw.get(&picture).header("accept-encoding", "gzip").header("range", "bytes=0-9");
    assert_eq!(asked.header("if-range", date).send().status, 206);
}

#[test]
fn slow_readers_of_coded_answers_hold_no_more_than_their_part() {
    let backend = raw_backend(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            let Some(number) = head.split(['/', ' ']).nth(2).and_then(|number| number.parse::<u64>().ok()) else {
                return;
            };
            let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut random = number + 1;
            let body: Vec<u8> = (0..400_000)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    digits[usize::try_from(random >> 58).unwrap()]
                })
                .collect();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nContent-Length: 400000\r\n\r\n";
            stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    let gw = kept_and_coded(&backend, "8MiB");
    let urls = 8;
    (0..urls).for_each(|number| drop(gw.get(&format!("/{number}")).expect(200)));
    let readers: Vec<_> = (0..8 * urls)
        .map(|reader| {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
            let request = format!("GET /{} HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n", reader % urls);
            // More than the sockets take.
            stream.write_all(request.repeat(60).as_bytes()).unwrap();
            stream
        })
        .collect();
    let held = || gw.metric("gateway_cache_held_bytes").unwrap();
    let mut before = -1.0;
    crate::harness::eventually("all of them wait", || std::mem::replace(&mut before, held()) >= held() && before > 0.0);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(held() <= f64::from(3 << 20), "{}", held());
    assert_eq!(gw.get("/100").send().get("x-cache"), "MISS");
    assert_eq!(gw.get("/100").send().get("x-cache"), "HIT", "they do not keep others from the cache");
    drop(readers);
}

fn kept_and_coded(backend: &str, memory: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\ncache: {{ memory: {memory} }}\nservices: {{ a: {{ urls: [\"http://{backend}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: a, filters: [ compression ], cache: {{}} }} ]\n"
    ))
}

/// The first head, its body, and what follows.
fn split(answer: &[u8]) -> (String, Vec<u8>, String) {
    let end = |from: &[u8], what: &[u8]| from.windows(what.len()).position(|part| part == what).unwrap() + what.len();
    let (head, rest) = answer.split_at(end(answer, b"\r\n\r\n"));
    let head = String::from_utf8(head.to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let (body, rest) = rest.split_at(length.parse().unwrap());
    (head, body.to_vec(), String::from_utf8(rest.to_vec()).unwrap())
}
