//! Requests whose backend takes nothing of them, or does not come to an end: no request hangs, whatever side is stuck.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    harness::{Certs, Gateway, H2Origin, Origin, eventually, program, raw_backend as backend, read_head},
    http2::Frames,
};

const LISTENER: &str = "listeners: [ { address: \"127.0.0.1:{port}\", h2c: true } ]\n";

/// More than sockets keep by themselves.
const MUCH: usize = 24 << 20;

/// Keeps a connection, for as long as any test lasts.
fn keep(stream: TcpStream) {
    std::thread::sleep(Duration::from_secs(30));
    drop(stream);
}

/// A backend that speaks HTTP/2: it takes what fits into the first window, and that is all.
fn deaf_h2c() -> String {
    backend(|stream| {
        stream.set_nonblocking(true).unwrap();
        run(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut kept = Vec::new();
            while let Some(Ok(request)) = connection.accept().await {
                kept.push(request);
            }
        });
    })
}

fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// Services by name, each with the address of its backend and further settings; each has a route of its name.
fn gateway(more: &str, services: &[(&str, String, &str)]) -> Gateway {
    let (mut backends, mut routes) = (String::new(), String::new());
    for (name, url, more) in services {
        writeln!(backends, "  {name}: {{ urls: [\"{url}\"], {more} }}").unwrap();
        writeln!(routes, "  - {{ match: {{ path: /{name}/* }}, service: {name} }}").unwrap();
    }
    Gateway::start(&format!("{LISTENER}{more}services:\n{backends}routes:\n{routes}"))
}

/// Sends a head and a large body, as fast as they are taken; the first line of the answer.
fn upload(gw: &Gateway, head: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let (mut writer, head) = (stream.try_clone().unwrap(), format!("{head}\r\n\r\n"));
    std::thread::spawn(move || {
        let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&vec![b'a'; MUCH]));
    });
    read_head(&mut stream).lines().next().unwrap_or_default().to_owned()
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {MUCH}")
}

/// Sends until nothing is taken any more.
fn fill(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while stream.write(&[b'a'; 16_384]).is_ok() {}
}

/// Goes away at once, whatever has not been sent.
fn abort(stream: &TcpStream) {
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// The same over HTTP/2: the status.
fn upload_h2(gw: &Gateway, path: &str) -> u16 {
    run(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gw.port)).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        let request = http::Request::post(format!("http://h{path}")).body(()).unwrap();
        let (answer, mut body) = send.send_request(request, false).unwrap();
        body.send_data(Bytes::from(vec![b'a'; MUCH]), false).unwrap();
        tokio::time::timeout(Duration::from_secs(8), answer).await.unwrap().unwrap().status().as_u16()
    })
}

fn nothing_in_flight(gw: &Gateway) {
    eventually("nothing is under way", || gw.metric("gateway_requests_in_flight") == Some(0.0));
}

#[test]
fn a_backend_that_reads_nothing_holds_no_request() {
    let (h1, h2) = (backend(keep), deaf_h2c());
    let (h1, h2) = (format!("http://{h1}"), format!("h2c://{h2}"));
    let (total, write) = ("timeouts: { total: 3s }", "timeouts: { write: 1s }");
    let gw = gateway("", &[("a", h1.clone(), total), ("b", h1, write), ("c", h2.clone(), total), ("d", h2, write)]);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (gw, path) = (&gw, format!("/{name}/x"));
            let h1_path = path.clone();
            scope.spawn(move || {
                let begun = Instant::now();
                let answer = upload(gw, &post(&h1_path));
                assert!(answer.starts_with("HTTP/1.1 504 "), "{h1_path}: {answer}");
                assert!(begun.elapsed() < Duration::from_secs(6), "{h1_path}: {:?}", begun.elapsed());
            });
            scope.spawn(move || {
                let begun = Instant::now();
                assert_eq!(upload_h2(gw, &path), 504, "{path}: {:?}", gw.read("stdout"));
                assert!(begun.elapsed() < Duration::from_secs(6), "{path}: {:?}", begun.elapsed());
            });
        }
    });
    nothing_in_flight(&gw);
    let log = gw.log(8);
    for line in &log {
        assert_eq!(
            (&line["status"], &line["method"], &line["error"]),
            (&504.into(), &"POST".into(), &"ReadTimedout".into()),
            "{line}"
        );
        assert!(line["received"].as_u64().unwrap() > 10_000 && line["route"].is_string(), "{line}");
    }
}

#[test]
fn a_client_that_leaves_while_the_backend_reads_nothing_is_missed() {
    let gw = gateway("", &[("a", format!("http://{}", backend(keep)), ""), ("b", format!("h2c://{}", deaf_h2c()), "")]);
    for (count, path) in [(1, "/a/x"), (2, "/b/x")] {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        client.write_all(format!("{}\r\n\r\n", post(path)).as_bytes()).unwrap();
        fill(&mut client);
        assert_eq!(gw.metric("gateway_requests_in_flight"), Some(1.0));
        abort(&client);
        drop(client);
        nothing_in_flight(&gw);
        let line = &gw.log(count)[count - 1];
        assert_eq!((&line["status"], &line["path"]), (&499.into(), &path.into()), "{line}");
    }
    // Over HTTP/2: one resets the stream, and one its connection.
    for (count, path, reset) in [(3, "/a/x", true), (4, "/b/x", true), (5, "/a/x", false), (6, "/b/x", false)] {
        run(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", gw.port)).await.unwrap();
            let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = http::Request::post(format!("http://h{path}")).body(()).unwrap();
            let (_answer, mut body) = send.send_request(request, false).unwrap();
            body.send_data(Bytes::from(vec![b'a'; MUCH]), false).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if reset {
                body.send_reset(h2::Reason::CANCEL);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            connection.abort();
            let _ = connection.await;
        });
        nothing_in_flight(&gw);
        assert_eq!(gw.log(count)[count - 1]["status"], 499, "{path} {reset}");
    }
    assert_eq!(gw.metric("gateway_proxy_canceled_total"), Some(6.0));
}

const ASKING: &str = "GET /a/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn tunnel(gw: &Gateway) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.write_all(ASKING.as_bytes()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    client
}

#[test]
fn a_tunnel_whose_backend_reads_nothing_ends() {
    let agrees = backend(|mut stream| {
        read_head(&mut stream);
        stream.write_all(AGREED).unwrap();
        keep(stream);
    });
    let url = format!("http://{agrees}");
    for (idle, leaves) in [("idle: 1s", false), ("idle: 60s", true)] {
        let gw = gateway(
            "",
            &[(
                "a",
                url.clone(),
                &format!("timeouts: {{ {idle}, read: 500ms }}, circuit_breaker: {{ failure_threshold: 1 }}"),
            )],
        );
        let mut client = tunnel(&gw);
        fill(&mut client);
        if leaves {
            abort(&client);
            drop(client);
        }
        let begun = Instant::now();
        nothing_in_flight(&gw);
        assert!(begun.elapsed() < Duration::from_secs(4), "{idle}: {:?}", begun.elapsed());
        assert_eq!(gw.log(1)[0]["status"], 101);
        tunnel(&gw);
    }
}

#[test]
fn a_tunnel_whose_client_reads_nothing_ends() {
    let floods = backend(|mut stream| {
        read_head(&mut stream);
        stream.write_all(AGREED).unwrap();
        fill(&mut stream);
        keep(stream);
    });
    let gw = gateway("", &[("a", format!("http://{floods}"), "timeouts: { idle: 1s }")]);
    let client = tunnel(&gw);
    let begun = Instant::now();
    nothing_in_flight(&gw);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(client);
}

/// A backend that speaks HTTP/2, and answers each request when it has been read to its end: with a body and trailers.
pub(crate) fn h2c() -> String {
    backend(|stream| {
        stream.set_nonblocking(true).unwrap();
        run(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        let _ = body.flow_control().release_capacity(data.len());
                    }
                    let Ok(mut writer) = respond.send_response(http::Response::new(()), false) else { return };
                    let _ = writer.send_data(Bytes::from_static(b"body"), false);
                    let trailers = [("x-trailer".parse().unwrap(), "last".parse().unwrap())];
                    let _ = writer.send_trailers(trailers.into_iter().collect());
                });
            }
        });
    })
}

#[test]
fn a_body_that_is_refused_in_the_middle_is_refused_at_once_whatever_the_backend_speaks() {
    let url = format!("h2c://{}", h2c());
    let gw = Gateway::start(&format!(
        "{LISTENER}limits: {{ stall: 2s, body: 1s, body_rate: 0 }}\nservices:\n  main: {{ urls: [\"{url}\"] }}\nroutes:\n  - {{ match: {{ path: /small }}, service: main, filters: [ {{ body_limit: {{ max: 1000 }} }} ] }}\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    let begun = Instant::now();
    let chunk = format!("600\r\n{}\r\n", "a".repeat(1536));
    let said =
        gw.raw(format!("POST /small HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes());
    assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("application/problem+json"), "{said}");
    let mut frames = Frames::connect(&gw);
    let head: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/small"), (b":authority", b"h")];
    frames.headers(&head, false);
    frames.data(&[b'a'; 1536], false);
    assert_eq!(frames.end(), "status 413");
    // Too slow: a byte now and then, beyond the time for all of it.
    let mut slow = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n").unwrap();
    let mut frames = Frames::connect(&gw);
    frames.request(b"POST", &[], false);
    for _ in 0..7 {
        let _ = slow.write_all(b"a");
        frames.data(b"a", false);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(read_head(&mut slow).starts_with("HTTP/1.1 408 "));
    assert_eq!(frames.end(), "status 408");
    nothing_in_flight(&gw);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn the_time_for_all_attempts_bounds_a_head_that_comes_by_and_by() {
    let drips = backend(|mut stream| {
        read_head(&mut stream);
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: aaaaaaaaaaaaaaaaa\r\n\r\n" {
            std::thread::sleep(Duration::from_millis(100));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let hints = backend(|mut stream| {
        read_head(&mut stream);
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (drips, hints, total) = (format!("http://{drips}"), format!("http://{hints}"), "timeouts: { total: 1s }");
    let hedge = "timeouts: { total: 1s }, hedge: { after: 200ms }";
    let gw = gateway(
        "",
        &[("a", drips.clone(), total), ("b", hints.clone(), total), ("c", drips, hedge), ("d", hints, hedge)],
    );
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let gw = &gw;
            scope.spawn(move || {
                let begun = Instant::now();
                gw.get(&format!("/{name}/x")).expect(504);
                assert!(begun.elapsed() < Duration::from_secs(3), "{name}: {:?}", begun.elapsed());
            });
        }
    });
}

#[test]
fn a_copy_ends_when_its_answer_does_not_begin() {
    let hints = backend(|mut stream| {
        read_head(&mut stream);
        while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\n  copy: {{ urls: [\"http://{hints}\"], timeouts: {{ connect: 300ms, write: 300ms, read: 300ms }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: copy }} }}\n",
        origin.url()
    ));
    gw.get("/").expect(200);
    let ended = "gateway_upstream_attempts_total{outcome=\"unknown\",service=\"copy\"}";
    eventually("it ends", || gw.metric(ended) == Some(1.0));
}

#[test]
fn a_client_is_not_too_slow_because_its_backend_is() {
    let late = backend(|mut stream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(1700));
        let mut left = MUCH;
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => left -= read,
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        keep(stream);
    });
    let gw = gateway("limits: { body: 1s, body_rate: 0 }\n", &[("a", format!("http://{late}"), "")]);
    let answer = upload(&gw, &post("/a/x"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_client_with_expect_is_invited_whatever_the_backend_speaks() {
    let gw = gateway("", &[("a", format!("h2c://{}", h2c()), "timeouts: { read: 2s }")]);
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(b"POST /a/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    let invited = read_head(&mut client);
    assert!(invited.starts_with("HTTP/1.1 100 "), "{invited}");
    client.write_all(b"hello").unwrap();
    let answer = read_head(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut frames = Frames::connect(&gw);
    let head: [(&[u8], &[u8]); 6] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/a/x"),
        (b":authority", b"h"),
        (b"expect", b"100-continue"),
        (b"content-length", b"5"),
    ];
    frames.headers(&head, false);
    assert_eq!(frames.end(), "status 100");
    frames.data(b"hello", true);
    assert_eq!(frames.end(), "status 200");
    // One that does not wait gets its answer all the same.
    let said = gw.raw(b"POST /a/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    assert!(said.contains("HTTP/1.1 200 "), "{said}");
}

#[test]
fn hedged_requests_keep_the_trailers_of_their_answers() {
    let url = format!("h2c://{}", h2c());
    let gw = gateway("", &[("a", url.clone(), "hedge: { after: 1s }"), ("b", url, "")]);
    // A client of HTTP/1 gets the answer, at least.
    let said = gw.raw(b"GET /a/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("body"), "{said}");
    run(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gw.port)).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        for path in ["/a/x", "/b/x"] {
            let request = http::Request::get(format!("http://h{path}")).body(()).unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                text.extend_from_slice(&data.unwrap());
            }
            assert_eq!(text, b"body", "{path}");
            let trailers = body.trailers().await.unwrap().unwrap_or_default();
            assert_eq!(trailers.get("x-trailer").map(http::HeaderValue::as_bytes), Some(&b"last"[..]), "{path}");
        }
    });
}

#[test]
fn a_stream_that_waits_leaves_its_neighbours_their_windows() {
    let (silent, origin) = (format!("http://{}", backend(keep)), Origin::start("o"));
    let gw = gateway(
        "limits: { stall: 1s }\n",
        &[("a", silent, "in_flight: { max: 1, queue: 50, wait: 8s }"), ("b", origin.url(), "")],
    );
    let _first = {
        let mut first = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        first.write_all(b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        first
    };
    eventually("the only place is taken", || gw.metric("gateway_requests_in_flight") == Some(1.0));
    run(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gw.port)).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        let mut post = |path: &str| {
            send.send_request(http::Request::post(format!("http://h{path}")).body(()).unwrap(), false).unwrap()
        };
        let mut waiting: Vec<_> = (0..20).map(|_| post("/a/x")).collect();
        for (_, body) in &mut waiting {
            body.send_data(Bytes::from(vec![b'a'; 100_000]), false).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (answer, mut body) = post("/b/x");
        body.send_data(Bytes::from_static(b"four"), true).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    });
}

#[test]
fn what_is_said_last_comes_encrypted_too() {
    let certs = Certs::new();
    certs.issue("a", "a", &["a.example"]);
    let tls = format!("tls: {{ certificates: [ {{ {} }} ] }}", certs.yaml("a"));
    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", {tls} }} ]\nservices:\n  main: {{ urls: [\"http://{}\"], timeouts: {{ write: 1s }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        backend(keep)
    ));
    std::fs::write(gw.path("body"), vec![b'a'; MUCH]).unwrap();
    let body = format!("@{}", gw.path("body").display());
    let output = std::process::Command::new(program("curl", "curl"))
        .args(["-sk", "--http1.1", "-H", "Expect:", "--data-binary", &body, &format!("https://127.0.0.1:{}/", gw.port)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"status\":504"), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn clients_that_do_not_read_leave_others_their_part_of_a_connection() {
    let backend = H2Origin::start(|request, mut respond| {
        let size = if request.uri().path().contains("big") { 30 << 20 } else { 3 };
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data(vec![b'x'; size].into(), true).unwrap();
    });
    let gw = gateway("", &[("a", backend.url(), "")]);
    let deaf: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
            client.write_all(b"GET /a/big HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            client
        })
        .collect();
    eventually("all have their heads", || backend.seen().len() == 12);
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    gw.get("/a/small").expect(200).says("xxx");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(deaf);
}

#[test]
fn a_client_that_leaves_after_an_interim_answer_has_seen_no_status() {
    let interim = |stream: TcpStream, head: &str| {
        let mut stream = stream;
        read_head(&mut stream);
        stream.write_all(head.as_bytes()).unwrap();
        keep(stream);
    };
    let early = backend(move |stream| interim(stream, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"));
    let inviting = backend(move |stream| interim(stream, "HTTP/1.1 100 Continue\r\n\r\n"));
    let gw = gateway("", &[("a", format!("http://{early}"), ""), ("b", format!("http://{inviting}"), "")]);
    let expecting = "POST /b/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    for (count, request, status) in [(1, "GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n", "103"), (2, expecting, "100")] {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        assert!(read_head(&mut client).starts_with(&format!("HTTP/1.1 {status} ")));
        drop(client);
        nothing_in_flight(&gw);
        let line = &gw.log(count)[count - 1];
        assert_eq!((&line["status"], &line["by"]), (&499.into(), &"client".into()), "{line}");
    }
    assert_eq!(gw.metric("gateway_proxy_canceled_total"), Some(2.0));
}
