//! Slow and greedy clients, and load balancers that speak for others.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Origin, eventually, program};

fn gateway(origin: &Origin, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ))
}

/// Sends `head`, then a byte every 50 ms until the other side has had enough; answers what it said, and when.
fn drip(gw: &Gateway, head: &str) -> (String, Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (begun, mut said) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(10) {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => said.extend_from_slice(&buffer[..read]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        let _ = stream.write_all(b"x");
    }
    (String::from_utf8_lossy(&said).into_owned(), begun.elapsed())
}

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n";

#[test]
fn a_body_has_a_time_limit_for_all_of_it() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "limits: { body: 1s, body_rate: 0 }\n");
    let (said, time) = drip(&gw, POST);
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("application/problem+json"), "{said}");
    assert!((900..3000).contains(&time.as_millis()), "{time:?}");
    assert!(origin.seen().is_empty(), "the backend must not take it for a whole request");
}

#[test]
fn a_body_must_come_at_a_least_rate() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "limits: { stall: 1s, body_rate: 1000 }\n");
    let (said, time) = drip(&gw, POST);
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!((900..3000).contains(&time.as_millis()), "{time:?}");
    let silent = gateway(&origin, "limits: { stall: 1s, body_rate: 0 }\n");
    let mut stream = TcpStream::connect(("127.0.0.1", silent.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(POST.as_bytes()).unwrap();
    let (begun, mut said) = (Instant::now(), String::new());
    let _ = stream.read_to_string(&mut said);
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// The gateway sheds 300 slow connections of each kind within its limits, and serves others meanwhile.
#[test]
fn slowhttptest_finds_an_open_port() {
    let origin = Origin::start("o");
    let limits = "limits: { head: 3s, keepalive: 3s, stall: 3s, body: 3s }\n";
    for (kind, args) in [
        ("slow heads", vec!["-H", "-i", "1"]),
        ("slow bodies", vec!["-B", "-i", "1", "-s", "8192", "-t", "POST"]),
        ("slow reads", vec!["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1"]),
    ] {
        let gw = gateway(&origin, limits);
        let slow = std::thread::scope(|scope| {
            let attack = scope.spawn(|| {
                Command::new(program("slowhttptest", "slowhttptest"))
                    .args(["-c", "300", "-r", "300", "-l", "9", "-p", "3", "-v", "1"])
                    .args(&args)
                    .args(["-u", &format!("http://127.0.0.1:{}/big", gw.port)])
                    .output()
                    .unwrap()
            });
            eventually("the attack is on", || {
                gw.metric("gateway_connections").is_some_and(|open| open >= 250.0) || attack.is_finished()
            });
            for _ in 0..20 {
                let begun = Instant::now();
                gw.get("/").expect(200);
                assert!(begun.elapsed() < Duration::from_secs(1), "{kind}: {:?}", begun.elapsed());
            }
            let began = Instant::now();
            // The configured 3 seconds, two more, and one for connections that were opened last.
            eventually("they are shed", || gw.metric("gateway_connections").is_some_and(|open| open < 50.0));
            assert!(began.elapsed() < Duration::from_secs(6), "{kind}: {:?}", began.elapsed());
            attack.join().unwrap()
        });
        let said = String::from_utf8_lossy(&slow.stdout).into_owned();
        assert!(slow.status.success(), "{said} {}", String::from_utf8_lossy(&slow.stderr));
    }
}

#[test]
fn connections_are_limited_in_all_and_by_address() {
    let origin = Origin::start("o");
    for (limit, reason) in
        [("connections: 3", "connections"), ("connections_per_address: 3", "connections_per_address")]
    {
        let gw = gateway(&origin, &format!("limits: {{ {limit} }}\n"));
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream
        };
        let ask = |stream: &mut TcpStream| {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let mut buffer = [0; 1024];
            stream.read(&mut buffer).map_or(0, |read| read)
        };
        // Connections are accepted in order: after this answer, the harness's has been, too.
        gw.get("/").expect(200);
        eventually("the harness has gone", || gw.metric("gateway_connections") == Some(0.0));
        let mut kept: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
        assert!(kept.iter_mut().all(|stream| ask(stream) > 0), "{limit}");
        assert_eq!(ask(&mut connect()), 0, "{limit}: the fourth is closed");
        let name = format!("gateway_connections_refused_total{{reason=\"{reason}\"}}");
        eventually("it is counted", || gw.metric(&name).is_some_and(|count| count >= 1.0));
        kept.pop();
        eventually("there is room again", || ask(&mut connect()) > 0);
    }
}

#[test]
fn an_ipv6_network_counts_as_one_address() {
    let origin = Origin::start("o");
    let gw = gateway(
        &origin,
        "limits: { connections_per_address: 1 }\ntrusted_proxies: [127.0.0.0/8]\nlisteners: [ { address: \"127.0.0.1:{port}\", proxy_protocol: true } ]\n",
    );
    let ask = |from: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let request = format!("PROXY TCP6 {from} 2001:db8:ffff::1 4711 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let read = stream.read(&mut [0; 1024]).unwrap_or(0);
        (stream, read > 0)
    };
    let (kept, answered) = ask("2001:db8::1");
    assert!(answered);
    assert!(!ask("2001:db8::2").1, "the same network");
    assert!(ask("2001:db8:0:1::1").1, "another one");
    drop(kept);
    eventually("there is room again", || ask("2001:db8::2").1);
}

#[test]
fn the_proxy_protocol_tells_the_client_when_its_sender_is_trusted() {
    let origin = Origin::start("o");
    let listener = "listeners: [ { address: \"127.0.0.1:{port}\", proxy_protocol: true } ]\n";
    let gw = gateway(&origin, &format!("trusted_proxies: [127.0.0.0/8]\nlimits: {{ head: 1s }}\n{listener}"));
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let one = [&b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n"[..], request].concat();
    assert!(gw.raw(&one).starts_with("HTTP/1.1 200 "));
    assert_eq!(origin.last().headers["x-forwarded-for"], "192.0.2.7");
    let two = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 8, 127, 0, 0, 1, 0x12, 0x67, 0, 80], request]
        .concat();
    assert!(gw.raw(&two).starts_with("HTTP/1.1 200 "));
    assert_eq!(origin.last().headers["x-real-ip"], "192.0.2.8");
    assert_eq!(gw.log(2)[1]["client"], "192.0.2.8");
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], request].concat();
    assert!(gw.raw(&local).starts_with("HTTP/1.1 200 "), "a health check of the balancer's own");
    // Its family and addresses are nobody's, whatever they are.
    for block in [&b"\x11\0\0"[..], b"\x11\0\x03abc", b"\x7f\0\x02ab"] {
        let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20"[..], block, request].concat();
        assert!(gw.raw(&local).starts_with("HTTP/1.1 200 "), "{block:?}");
    }
    // Without it, and with half of it: closed without an answer.
    let signed = [&b"PROXY TCP4 192.0.2.7 127.0.0.1 +1 80\r\n"[..], request].concat();
    for wrong in [&request[..], b"PROXY TCP4 nonsense\r\n", b"PROXY", &signed] {
        assert_eq!(gw.raw(wrong), "");
    }
    eventually("they are counted", || {
        gw.metric("gateway_connections_refused_total{reason=\"proxy_protocol\"}").is_some_and(|count| count >= 3.0)
    });
    let elsewhere = gateway(&origin, &format!("trusted_proxies: [192.0.2.0/24]\n{listener}"));
    assert!(elsewhere.raw(&one).starts_with("HTTP/1.1 400 "), "from a stranger it is not a request");
    assert!(elsewhere.raw(request).starts_with("HTTP/1.1 200 "));
}

/// Sends all of `request` before it reads anything, as simple clients do.
fn send_then_read(gw: &Gateway, request: &[u8], pause: u64) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    for part in request.chunks(16 << 10) {
        stream.write_all(part)?;
        std::thread::sleep(Duration::from_millis(pause));
    }
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn a_client_that_reads_when_it_has_sent_everything_gets_its_answer() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "limits: {{ body: 1s, body_rate: 0 }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /small/* }}, service: main, filters: [ {{ body_limit: {{ max: 1000 }} }} ] }}\n  - {{ match: {{ path: /no/* }}, respond: {{ status: 403 }} }}\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    let upload = |path: &str, size: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n");
        [head.as_bytes(), &vec![b'x'; size]].concat()
    };
    // A limit that is found in the middle, an answer that reads no body, and a body that takes too long.
    for (path, size, status) in [("/small/", 1 << 20, "413"), ("/no/", 1 << 20, "403"), ("/status/200", 7 << 18, "408")]
    {
        for _ in 0..3 {
            let said = send_then_read(&gw, &upload(path, size), 12).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {said}");
            assert!(said.ends_with('}') || status == "403", "{said}");
        }
    }
    // Requests sent after one that ends the connection.
    let last = "GET /status/200 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let more = "GET /status/200 HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2000);
    let said = send_then_read(&gw, [last, &more].concat().as_bytes(), 1).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}
