//! Requests that the gateway sends beside the one of its client, hedges and copies: limits hold for them, and what comes
//! of them is counted and logged.

use std::{io::Write as _, net::TcpStream, time::Duration};

use crate::harness::{Gateway, Origin, eventually, free_port, raw_backend, read_head};

fn copying(main: &Origin, shadow: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\n  shadow: {{ {shadow} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, mirror: {{ service: shadow }} }}\n",
        main.url(),
    ))
}

/// A backend that never answers; its host and port.
fn silent() -> String {
    raw_backend(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

fn hedging(urls: &[String], more: &str) -> Gateway {
    let urls = urls.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    Gateway::start(&format!(
        "services:\n  main:\n    urls: [{urls}]\n    hedge: {{ after: 30ms }}\n    retry_budget: {{ min: 100 }}\n    outlier_ejection: {{ consecutive: 0 }}\n{more}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

#[test]
fn copies_keep_to_the_limit_of_their_service() {
    for limit in ["max: 2, queue: 100, wait: 10s", "max: 2, adaptive: { initial: 2, min: 1 }"] {
        let (main, held) = (Origin::start("main"), silent());
        let gw = copying(&main, &format!("urls: [\"http://{held}\"], in_flight: {{ {limit} }}"));
        (0..6).for_each(|_| drop(gw.get("/").expect(200)));
        assert_eq!(gw.metric("gateway_mirror_dropped_total{service=\"shadow\"}"), Some(4.0), "{limit}");
    }
}

#[test]
fn copies_that_fail_are_counted_and_their_backend_is_named() {
    let (main, port) = (Origin::start("main"), free_port());
    let gw = copying(&main, &format!("urls: [\"http://127.0.0.1:{port}\"]"));
    gw.get("/").expect(200);
    let name = "gateway_upstream_failures_total{reason=\"connect_refused\",service=\"shadow\"}";
    eventually("it is counted", || gw.metric(name) == Some(1.0));
    eventually("it is named", || gw.errors().contains(&format!("service shadow: backend 127.0.0.1:{port}")));
}

#[test]
fn the_line_of_a_hedged_request_names_every_backend() {
    let (fast, slow) = (Origin::start("fast"), silent());
    let gw = hedging(&[fast.url(), format!("http://{slow}")], "");
    (0..4).for_each(|_| drop(gw.get("/").expect(200)));
    let lines = gw.log(4);
    let hedged: Vec<_> = lines.iter().filter(|line| line["attempts"] == 2).collect();
    assert!(!hedged.is_empty(), "{lines:?}");
    for line in hedged {
        assert_eq!(line["upstream"], fast.address.to_string(), "{line}");
        assert_eq!(line["tried"], serde_json::json!([slow]), "{line}");
    }
    assert!(lines.iter().all(|line| line["connect_ms"].is_number()), "{lines:?}");
}

#[test]
fn the_line_of_a_hedged_request_whose_client_left_says_where_it_was() {
    let (one, two) = (silent(), silent());
    let gw = hedging(&[format!("http://{one}"), format!("http://{two}")], "");
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    eventually("both are asked", || gw.metric("gateway_hedges_total{service=\"main\"}") == Some(1.0));
    drop(client);
    let line = gw.log(1).remove(0);
    assert_eq!((&line["status"], &line["attempts"]), (&499.into(), &2.into()), "{line}");
    let mut named = [line["upstream"].as_str().unwrap(), line["tried"][0].as_str().unwrap()];
    let mut all = [one.as_str(), two.as_str()];
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all, "{line}");
}

#[test]
fn failures_of_hedges_that_lose_are_counted() {
    let late_reset = raw_backend(|mut stream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(80));
    });
    let slow = Origin::start("slow");
    let gw = hedging(&[slow.url(), format!("http://{late_reset}")], "");
    (0..4).for_each(|_| drop(gw.get("/slow/400").expect(200)));
    let name = "gateway_upstream_failures_total{reason=\"connection_reset\",service=\"main\"}";
    assert_eq!(gw.metric(name), Some(4.0));
}
