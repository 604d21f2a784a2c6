//! Time limits, breakers and retries of requests that had to wait, or whose answer is worth keeping.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Barrier,
    time::{Duration, Instant},
};

use crate::harness::{Fault, FaultProxy, Gateway, Origin, eventually};

fn gateway(urls: &[String], more: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main:\n    urls: [{}]\n{more}routes:\n  - {{ match: {{ path: /* }}, service: main{route} }}\n",
        urls.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ")
    ))
}

#[test]
fn the_time_for_all_attempts_bounds_the_waiting_for_a_place() {
    let total = "    timeouts: { total: 500ms }\n";
    let limits = "in_flight: { max: 1, queue: 5, wait: 8s }";
    let per_backend = "in_flight: { per_backend: 1, queue: 5, wait: 8s }";
    for (more, route) in [
        (format!("{total}    {limits}\n"), String::new()),
        (format!("{total}    {per_backend}\n"), String::new()),
        (total.to_owned(), format!(", {limits}")),
    ] {
        let origin = Origin::start("o");
        let gw = gateway(&[origin.url()], &more, &route);
        // Whoever began a moment later has that moment left when the place is free, and may be sent: three that began
        // together are hard to have, so the three are tried again.
        let alone = (0..6).any(|_| {
            let before = origin.seen().len();
            let together = Barrier::new(3);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        together.wait();
                        let begun = Instant::now();
                        gw.get("/slow/3000").expect(504);
                        let time = begun.elapsed();
                        assert!(time < Duration::from_millis(1200), "{more}{route}: {time:?}");
                    });
                }
            });
            origin.seen().len() == before + 1
        });
        assert!(alone, "{more}{route}: more than one of three was sent, each time");
    }
}

#[test]
fn a_request_that_has_waited_sees_the_breaker_as_it_is_now() {
    let origin = Origin::start("o");
    let proxy = FaultProxy::start(origin.address, Fault::None);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"{}\"]\n    circuit_breaker: {{ failure_threshold: 1, reset_timeout: 1s }}\nroutes:\n  - {{ match: {{ path: /other }}, service: main }}\n  - {{ match: {{ path: /* }}, service: main, in_flight: {{ max: 1, queue: 5, wait: 8s }} }}\n",
        proxy.url()
    ));
    std::thread::scope(|scope| {
        scope.spawn(|| gw.get("/slow/2500").send());
        eventually("the only place is taken", || origin.seen().len() == 1);
        let waiter = scope.spawn(|| gw.get("/").send().status);
        std::thread::sleep(Duration::from_millis(300));
        proxy.set(Fault::Status503);
        gw.get("/other").expect(503);
        proxy.set(Fault::None);
        gw.get("/other").expect(503).problem();
        assert!(!waiter.is_finished());
        assert_eq!(waiter.join().unwrap(), 200, "by then the breaker's time is over");
    });
}

#[test]
fn an_answer_is_kept_when_there_is_nowhere_else_to_ask() {
    let origin = Origin::start("o");
    let open = "    retry: { max_attempts: 2, on: [503] }\n    circuit_breaker: { failure_threshold: 1, reset_timeout: 60s }\n";
    let gw = gateway(&[origin.url()], open, "");
    let answer = gw.get("/status/503").expect(503);
    assert!(answer.body.is_empty(), "the backend's own, and no problem of ours: {}", answer.body);
    assert!(gw.metric("gateway_retries_total{service=\"main\"}").is_none_or(|count| count < 0.5));
    // A place at the only backend does not stand in the way of another attempt at it.
    let (origin, one) = (
        Origin::start("o"),
        "    retry: { max_attempts: 2, on: [503] }\n    in_flight: { per_backend: 1, queue: 0 }\n",
    );
    let gw = gateway(&[origin.url()], one, "");
    gw.get("/status/503").expect(503);
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn a_half_open_backend_is_passed_over_when_another_one_is_well() {
    let (bad, good) = (Origin::start("bad"), Origin::start("good"));
    let proxy = FaultProxy::start(bad.address, Fault::Status503);
    let more = "    outlier_ejection: { consecutive: 1000 }\n    circuit_breaker: { failure_threshold: 1, reset_timeout: 1s, per_backend: true }\n";
    let gw = gateway(&[proxy.url(), good.url()], more, "");
    eventually("one breaker is open", || {
        let _ = gw.get("/").send();
        gw.errors().contains("circuit breaker is open")
    });
    proxy.set(Fault::None);
    std::thread::sleep(Duration::from_millis(1100));
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    let mut clients: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
            stream.write_all(head).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    for client in &mut clients {
        let mut answer = String::new();
        let _ = client.write_all(b"ab");
        let _ = client.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_client_that_leaves_the_queue_is_missed_whatever_it_has_sent() {
    let origin = Origin::start("o");
    let gw = gateway(&[origin.url()], "    in_flight: { max: 1, queue: 5, wait: 8s }\n", "");
    let long = format!("Content-Length: 65537\r\n\r\n{}", "a".repeat(65_537));
    let sent = [
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &long,
        "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| gw.get("/slow/4000").send());
        eventually("the only place is taken", || origin.seen().len() == 1);
        for rest in sent {
            let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
            client.write_all(format!("POST /left HTTP/1.1\r\nHost: h\r\n{rest}").as_bytes()).unwrap();
        }
        eventually("they are missed", || gw.metric("gateway_proxy_canceled_total") == Some(3.0));
        assert_eq!(gw.metric("gateway_requests_in_flight"), Some(1.0), "the first one is still under way");
    });
    assert_eq!(origin.seen().len(), 1, "nobody works for them");
}
