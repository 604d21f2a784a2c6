//! What two settings make of one another, and answers that say what they must not.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::{
    harness::{Gateway, H2Origin, Origin, eventually, free_port, raw_backend, read_head},
    http2::Frames,
};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A gateway with one service of these settings (in braces), and filters.
fn gateway(service: &str, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ {service} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, filters: [ {filters} ] }}\n"
    ))
}

/// A backend that answers each connection's first request with these bytes.
fn says(answer: &'static str) -> String {
    raw_backend(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.read(&mut [0; 1]);
    })
}

/// All heads of what comes back for these bytes, up to the first that is no interim one.
fn heads(gw: &Gateway, request: &str) -> Vec<String> {
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|head: &String| head.starts_with("HTTP/1.1 10") && !head.contains(" 101 ")) {
        all.push(read_head(&mut client));
    }
    all
}

#[test]
fn hedged_requests_go_where_the_others_do() {
    let origins = ["a", "b", "c"].map(Origin::start);
    let urls = origins.each_ref().map(Origin::url).join("\", \"");
    let service = |hedge| format!("urls: [\"{urls}\"], balance: {{ consistent_hash: \"header:X-Key\" }}{hedge}");
    let hide = "headers: { request: { remove: [X-Key] } }";
    let (plain, hedged) = (gateway(&service(""), hide), gateway(&service(", hedge: { after: 5s }"), hide));
    let ask = |gw: &Gateway, key: u32| gw.get("/").header("X-Key", &format!("key-{key}")).expect(200).body;
    let places: Vec<String> = (0..12).map(|key| ask(&plain, key)).collect();
    assert!(places.iter().collect::<BTreeSet<_>>().len() > 1, "{places:?}");
    // Hashing counts places in the list, which are the same.
    assert_eq!((0..12).map(|key| ask(&hedged, key)).collect::<Vec<_>>(), places);
}

#[test]
fn a_handshake_of_a_tunnel_is_repeated_like_any_other_request() {
    let tunnel = says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let busy = says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    for other in [format!("127.0.0.1:{}", free_port()), busy] {
        let gw = gateway(
            &format!(
                "urls: [\"http://{other}\", \"http://{tunnel}\"], retry: {{ on: [connect, reset, 503], backoff: {{ initial: 1ms }} }}, retry_budget: {{ min: 100 }}, outlier_ejection: {{ consecutive: 0 }}"
            ),
            "",
        );
        for _ in 0..6 {
            let answer = heads(&gw, UPGRADE);
            assert!(answer[0].starts_with("HTTP/1.1 101 "), "{other}: {answer:?}");
        }
    }
}

#[test]
fn who_waits_for_a_place_takes_one_at_a_backend_that_has_come_meanwhile() {
    let (full, new) = (Origin::start("full"), Origin::start("new"));
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    fs::write(&list, format!("{}\n", full.url())).unwrap();
    let gw = gateway(
        &format!(
            "discovery: {{ file: {} }}, in_flight: {{ per_backend: 1, queue: 5, wait: 20s }}, timeouts: {{ read: 60s }}",
            list.display()
        ),
        "",
    );
    std::thread::scope(|scope| {
        let long = scope.spawn(|| gw.get("/slow/9000").send().status);
        eventually("it is full", || gw.metric("gateway_requests_in_flight") == Some(1.0));
        let waiting = scope.spawn(|| gw.get("/").expect(200).body);
        eventually("one waits", || gw.metric("gateway_requests_in_flight") == Some(2.0));
        fs::write(&list, format!("{}\n{}\n", full.url(), new.url())).unwrap();
        assert_eq!(waiting.join().unwrap(), "new");
        assert!(!long.is_finished(), "nobody has left the other one");
        long.join().unwrap();
    });
}

#[test]
fn interim_answers_keep_to_themselves_what_is_of_their_connection() {
    let url = says(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Secret, close\r\nX-Secret: a\r\nKeep-Alive: x\r\nProxy-Connection: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let gw = gateway(&format!("urls: [\"http://{url}\"]"), "");
    let all = heads(&gw, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let interim = all[0].to_lowercase();
    assert!(all.len() == 2 && interim.starts_with("http/1.1 103 ") && interim.contains("link: </a>"), "{all:?}");
    for word in ["x-secret", "connection", "keep-alive"] {
        assert!(!interim.contains(word), "{word}: {interim}");
    }
}

#[test]
fn a_backend_that_fails_fast_does_not_look_fast() {
    let (failing, slow) = (says("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), Origin::start("slow"));
    let gw = gateway(
        &format!(
            "urls: [\"http://{failing}\", \"{}\"], balance: p2c_ewma, outlier_ejection: {{ consecutive: 0 }}",
            slow.url()
        ),
        "",
    );
    let good = (0..60).filter(|_| gw.get("/slow/5").send().status == 200).count();
    assert!(good > 40, "{good} of 60");
}

#[test]
fn an_ejected_backend_is_better_than_one_whose_breaker_is_open() {
    let answers = |status: &'static str| {
        move || {
            raw_backend(move |mut stream| {
                while !read_head(&mut stream).is_empty() {
                    let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                }
            })
        }
    };
    let (ejected, open) = (answers("502")(), answers("500")());
    let gw = gateway(
        &format!(
            "urls: [\"http://{ejected}\", \"http://{open}\"], retry: {{ max_attempts: 1 }}, outlier_ejection: {{ consecutive: 2, base: 1m, share: 100%, failures: [502] }}, circuit_breaker: {{ failure_threshold: 2, failures: [500], per_backend: true, reset_timeout: 1m }}"
        ),
        "",
    );
    eventually("both are passed over", || {
        gw.get("/").send();
        let stats = gw.admin("/gateway/stats").expect(200).body;
        stats.contains("\"ejected\"") && stats.contains("\"open\"")
    });
    for _ in 0..6 {
        assert_eq!(gw.get("/").send().status, 502, "by the backend that is ejected");
    }
}

#[test]
fn a_kept_connection_that_had_been_closed_is_no_failure_of_a_post() {
    let url = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        // It takes the next request, and says nothing to it.
        read_head(&mut stream);
    });
    // Each thread has its own kept connections.
    let gw = Gateway::start(&format!(
        "pingora: {{ threads: 1, pid_file: {{dir}}/pid, upgrade_sock: {{dir}}/sock }}\nservices:\n  main: {{ urls: [\"http://{url}\"], circuit_breaker: {{ failure_threshold: 1 }}, outlier_ejection: {{ consecutive: 1 }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ));
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    let statuses: Vec<String> = (0..6).map(|_| heads(&gw, post)[0][9..12].to_owned()).collect();
    let has = |status: &str| statuses.iter().any(|other| other == status);
    assert!(has("502") && !has("503"), "{statuses:?}");
}

#[test]
fn a_tunnel_is_of_the_protocol_that_was_asked_for() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    for more in ["", "Upgrade: h2c\r\n", "Upgrade: websocket\r\nTransfer-Encoding: chunked\r\n"] {
        let url = says(Box::leak(format!("{head}{more}\r\n").into_boxed_str()));
        let gw = gateway(&format!("urls: [\"http://{url}\"], retry: {{ max_attempts: 1 }}"), "");
        let answer = heads(&gw, UPGRADE);
        assert!(answer[0].starts_with("HTTP/1.1 502 "), "{more}: {answer:?}");
        assert_eq!(gw.log(1)[0]["reason"], "malformed_response", "{more}");
    }
    let url =
        says("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n");
    let gw = gateway(&format!("urls: [\"http://{url}\"]"), "");
    assert_eq!(gw.get("/").expect(426).get("upgrade"), "websocket", "it must say which");
}

#[test]
fn what_is_malformed_is_called_so() {
    let origin = Origin::start("o");
    let gw = gateway(&format!("urls: [\"{}\"]", origin.url()), "");
    gw.raw(b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n");
    let line = &gw.log(1)[0];
    assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"malformed_request".into()), "{line}");

    let gw = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    for (length, body) in [(&b"5"[..], &b"abc"[..]), (b"2", b"abc")] {
        let mut frames = Frames::connect(&gw);
        frames.request(b"POST", &[(b"content-length", length)], false);
        frames.data(body, true);
        frames.end();
    }
    for line in gw.log(2) {
        let told = (&line["status"], &line["by"], &line["reason"]);
        assert_eq!(told, (&400.into(), &"gateway".into(), &"malformed_request".into()), "{line}");
    }
}

#[test]
fn an_http2_backend_whose_answer_cannot_be_read_is_told_apart() {
    let origin = H2Origin::start(|_, mut respond| {
        let head = http::Response::builder().header("content-length", "9").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(bytes::Bytes::from_static(b"four"), true).unwrap();
    });
    let gw = gateway(&format!("urls: [\"{}\"]", origin.url()), "");
    let _ = gw.get("/").try_send();
    let line = &gw.log(1)[0];
    assert_eq!(line["reason"], "malformed_response", "{line}");
}

#[test]
fn a_step_that_would_speak_for_another_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let jwt = concat!(
        "jwt: { algorithms: [RS256], keys: { pem: ",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/keys/test-rsa.public.pem } }"
    );
    for (filters, expected) in [
        (format!("{jwt}, {jwt}"), Some("filters[1]: there is a 'jwt' step before it")),
        (
            format!("client_cert, {jwt}"),
            Some("it tells backends 'x-auth-subject', and so does 'client_cert' before it"),
        ),
        (format!("client_cert: {{ identity_header: X-Cert }}, {jwt}"), None),
        (format!("api_key, {jwt}"), None),
    ] {
        let yaml = format!(
            "listeners: \"127.0.0.1:1\"\nadmin: {{ enabled: false }}\napi_keys: {{ id: a, sha256: {} }}\nservices: {{ s: {{ urls: \"http://127.0.0.1:1\" }} }}\nroutes: {{ match: {{ path: /* }}, service: s, filters: [ {filters} ] }}\n",
            "a".repeat(64)
        );
        let file = dir.path().join("t.yaml");
        fs::write(&file, yaml).unwrap();
        let output = std::process::Command::new(crate::harness::binary()).arg("check").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if expected.is_some() { 78 } else { 0 }), "{filters}: {said}");
        assert!(said.contains(expected.unwrap_or_default()), "{said}");
    }
}
