//! Breakers, ejection, limits on what is under way, and where requests go.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use crate::harness::{Fault, FaultProxy, Gateway, Origin, eventually};

fn gateway(urls: &[String], more: &str) -> Gateway {
    let urls = urls.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    Gateway::start(&format!(
        "services:\n  main:\n    urls: [{urls}]\n{more}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

fn counts(gw: &Gateway, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    (0..times).for_each(|_| *counts.entry(gw.get("/").expect(200).body).or_default() += 1);
    counts
}

const STATE: &str = "gateway_circuit_breaker_state{backend=\"\",service=\"main\"}";

#[test]
fn a_breaker_opens_probes_and_closes() {
    let origin = Origin::start("o");
    let more = "    retry: { max_attempts: 1 }\n    circuit_breaker: { failure_threshold: 3, reset_timeout: 400ms }\n";
    let gw = gateway(&[origin.url()], more);
    assert_eq!(gw.metric(STATE), Some(0.0));
    (0..3).for_each(|_| drop(gw.get("/status/500").expect(500)));
    let open = gw.get("/").expect(503).problem().says("the service is not available at the moment");
    assert_eq!(open.get("retry-after"), "1");
    assert_eq!(origin.seen().len(), 3, "open answers at once, without the backend");
    assert_eq!(gw.metric(STATE), Some(1.0));
    assert_eq!(gw.admin("/gateway/stats").expect(200).json()["services"]["main"]["breaker"], "open");
    std::thread::sleep(Duration::from_millis(450));
    // One probe at a time: while a slow one is out, others are refused.
    std::thread::scope(|scope| {
        let probe = scope.spawn(|| gw.get("/slow/300").expect(200));
        eventually("the probe is out", || gw.metric(STATE) == Some(2.0));
        gw.get("/").expect(503);
        probe.join().unwrap();
    });
    assert_eq!(gw.metric(STATE), Some(0.0));
    gw.get("/").expect(200);
    let log = gw.errors();
    for line in ["circuit breaker is open: 3 failures in a row", "is half_open", "is closed: 1 probe succeeded"] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
}

#[test]
fn what_the_client_or_the_gateway_did_is_no_failure() {
    let origin = Origin::start("o");
    let yaml = format!(
        "services:\n  main: {{ urls: [\"{}\"], circuit_breaker: {{ failure_threshold: 2 }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {{ rate_limit: {{ rate: 1/h, burst: 3 }} }} ]\n",
        origin.url()
    );
    let gw = Gateway::start(&yaml);
    (0..2).for_each(|_| drop(gw.get("/status/404").expect(404)));
    // A client that leaves before the answer.
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /slow/2000 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    eventually("the backend has it", || origin.seen().len() == 3);
    drop(stream);
    eventually("the abort is counted", || gw.metric("gateway_proxy_canceled_total") == Some(1.0));
    (0..5).for_each(|_| drop(gw.get("/").expect(429)));
    assert_eq!(gw.metric(STATE), Some(0.0));
}

#[test]
fn a_breaker_of_each_backend_leaves_the_others_alone() {
    let (bad, good) = (Origin::start("bad"), Origin::start("good"));
    let faulty = FaultProxy::start(bad.address, Fault::Status503);
    let more = "    outlier_ejection: { consecutive: 0 }\n    circuit_breaker: { failure_threshold: 2, per_backend: true, reset_timeout: 300ms }\n";
    let gw = gateway(&[faulty.url(), good.url()], more);
    let statuses: Vec<u16> = (0..20).map(|_| gw.get("/").send().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 2, "{statuses:?}");
    let state = format!("gateway_circuit_breaker_state{{backend=\"{}\",service=\"main\"}}", faulty.address);
    assert_eq!(gw.metric(&state), Some(1.0));
    faulty.set(Fault::None);
    eventually("it is closed again", || gw.get("/").send().status == 200 && gw.metric(&state) == Some(0.0));
}

#[test]
fn a_backend_that_fails_is_ejected_and_comes_back() {
    let (bad, good) = (Origin::start("bad"), Origin::start("good"));
    let faulty = FaultProxy::start(bad.address, Fault::Status503);
    let more = "    outlier_ejection: { consecutive: 3, base: 500ms }\n";
    let gw = gateway(&[faulty.url(), good.url()], more);
    let statuses: Vec<u16> = (0..30).map(|_| gw.get("/").send().status).collect();
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!((3..=6).contains(&failed), "{statuses:?}");
    let name = format!("gateway_backend_ejections_total{{backend=\"{}\",service=\"main\"}}", faulty.address);
    assert!(gw.metric(&name).unwrap() >= 1.0);
    assert!(gw.errors().contains("is ejected for 500ms: 3 failures in a row"));
    faulty.set(Fault::None);
    eventually("it is used again", || counts(&gw, 4).contains_key("bad"));
}

#[test]
fn the_last_backend_is_never_ejected() {
    let bad = Origin::start("bad");
    let gw = gateway(&[bad.url()], "    outlier_ejection: { consecutive: 2 }\n");
    (0..6).for_each(|_| drop(gw.get("/status/503").expect(503)));
    assert_eq!(bad.seen().len(), 6);
    gw.get("/").expect(200);
}

#[test]
fn requests_beyond_a_limit_wait_in_a_short_queue() {
    let origin = Origin::start("o");
    for more in [
        "    in_flight: { max: 2, queue: 1, wait: 300ms }\n",
        "    in_flight: { per_backend: 2, queue: 1, wait: 300ms }\n",
    ] {
        let gw = gateway(&[origin.url()], more);
        let mut statuses = at_once(&gw, "/slow/200", 5);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 503, 503], "{more}");
        gw.get("/").expect(200);
    }
    let yaml = format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main, in_flight: {{ max: 1 }} }}\n",
        origin.url()
    );
    let gw = Gateway::start(&yaml);
    let mut statuses = at_once(&gw, "/slow/300", 3);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503], "a route's limit, without a queue");
    let busy = std::thread::scope(|scope| {
        scope.spawn(|| gw.get("/slow/300").expect(200));
        std::thread::sleep(Duration::from_millis(100));
        gw.get("/").expect(503).problem().has("retry-after", "1")
    });
    assert!(busy.body.contains("is busy"));
}

fn at_once(gw: &Gateway, path: &str, count: usize) -> Vec<u16> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                scope.spawn(|| gw.get(path).send().status)
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn an_adaptive_limit_shrinks_when_the_service_gets_slow() {
    let origin = Origin::start("o");
    let more = "    in_flight: { max: 100, adaptive: { min: 2, initial: 10, tolerance: 10% } }\n";
    let gw = gateway(&[origin.url()], more);
    (0..10).for_each(|_| drop(at_once(&gw, "/slow/5", 8)));
    let limit = || gw.admin("/gateway/stats").expect(200).json()["services"]["main"]["limit"].as_u64().unwrap();
    let before = limit();
    (0..6).for_each(|_| drop(at_once(&gw, "/slow/150", 8)));
    assert!(limit() < before, "{} after {before}", limit());
    assert!(gw.metric("gateway_concurrency_limit{service=\"main\"}").is_some());
}

#[test]
fn p2c_prefers_the_fast_backend_and_a_new_one_does_not_get_everything() {
    let (fast, slow) = (Origin::start("fast"), Origin::start("slow"));
    let delayed = FaultProxy::start(slow.address, Fault::Delay);
    let gw = gateway(&[fast.url(), delayed.url()], "    balance: p2c_ewma\n");
    let counts = counts(&gw, 40);
    assert!(counts["fast"] > 30, "{counts:?}");
    let share = counts.get("slow").copied().unwrap_or(0);
    assert!((1..10).contains(&share), "the unknown one is tried, and no more: {counts:?}");
}

#[test]
fn a_backend_that_returns_starts_slowly() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let more = "    health_check: { path: /health, every: 50ms, unhealthy_after: 1 }\n    slow_start: 20s\n";
    let gw = gateway(&[a.url(), b.url()], more);
    assert_eq!(counts(&gw, 20)["b"], 10, "at the start all are equal");
    b.fail_health(true);
    eventually("b is out", || counts(&gw, 4).len() == 1);
    b.fail_health(false);
    eventually("b is back", || gw.get("/").expect(200).body == "b");
    let share = counts(&gw, 100).get("b").copied().unwrap_or(0);
    assert!(share < 30, "{share} of 100");
}

#[test]
fn a_sticky_cookie_keeps_a_client_at_its_backend() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = gateway(&[a.url(), b.url()], "    sticky: { cookie: srv, ttl: 1h }\n");
    let first = gw.get("/").expect(200);
    let cookie = first.get("set-cookie").to_owned();
    assert!(cookie.starts_with("srv=") && cookie.contains("; HttpOnly; SameSite=Lax; Max-Age=3600"), "{cookie}");
    assert!(!cookie.contains("Secure"), "the client does not speak TLS");
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..10 {
        let again = gw.get("/").header("Cookie", &format!("x=1; {pair}")).expect(200).lacks("set-cookie");
        assert_eq!(again.body, first.body);
    }
    let invented = gw.get("/").header("Cookie", "srv=nobody").expect(200);
    assert!(invented.get("set-cookie").starts_with("srv="));
}

#[test]
fn split_and_canary_share_out_requests() {
    let (stable, canary) = (Origin::start("stable"), Origin::start("canary"));
    let gw = Gateway::start(&format!(
        "services:\n  stable: {{ urls: [\"{}\"] }}\n  canary: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /split }}\n    split: [ {{ service: stable, weight: 9 }}, {{ service: canary, weight: 1 }} ]\n  - match: {{ path: /none }}\n    split: [ {{ service: stable, weight: 1 }}, {{ service: canary, weight: 0 }} ]\n  - match: {{ path: /canary }}\n    service: stable\n    canary: {{ service: canary, header: X-Canary, value: please }}\n  - match: {{ path: /share }}\n    service: stable\n    canary: {{ service: canary, share: 50% }}\ntests:\n  - {{ request: GET /split, expect: {{ service: canary }} }}\n",
        stable.url(),
        canary.url()
    ));
    let canaries = |path: &str, times: usize| (0..times).filter(|_| gw.get(path).expect(200).body == "canary").count();
    let share = canaries("/split", 300);
    assert!((8..=70).contains(&share), "{share} of 300");
    assert_eq!(canaries("/none", 30), 0);
    assert_eq!(canaries("/canary", 10), 0);
    gw.get("/canary").header("X-Canary", "please").expect(200).says("canary");
    gw.get("/canary").header("X-Canary", "no").expect(200).says("stable");
    assert!((20..=80).contains(&canaries("/share", 100)));
    let count = gw.metric("gateway_requests_total{method=\"GET\",route=\"/canary\",service=\"canary\",status=\"200\"}");
    assert_eq!(count, Some(1.0));
}

#[test]
fn attempts_and_waiting_stay_within_the_total_time() {
    let origin = Origin::start("o");
    let faulty = FaultProxy::start(origin.address, Fault::Stall);
    let more = "    timeouts: { read: 200ms, total: 500ms }\n    retry: { max_attempts: 9, on: [timeout] }\n    retry_budget: { min: 100 }\n";
    let gw = gateway(&[faulty.url()], more);
    let begun = Instant::now();
    gw.get("/").expect(504).problem();
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!((2..=4).contains(&faulty.requests()), "{}", faulty.requests());
}

/// A backend that begins an answer and falls silent in the middle of it.
#[test]
fn the_total_time_holds_in_the_middle_of_an_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            open.push(stream);
        }
    });
    let gw = gateway(&[format!("http://{address}")], "    timeouts: { read: 20s, total: 500ms }\n");
    let begun = Instant::now();
    assert!(gw.get("/").try_send().is_err(), "a body that breaks off must not look whole");
    assert!((400..2000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let line = gw.log(1)[0].clone();
    assert_eq!(
        (&line["status"], &line["error"], &line["by"]),
        (&200.into(), &"ReadTimedout".into(), &"upstream".into())
    );
    assert_eq!(gw.metric("gateway_proxy_canceled_total"), Some(0.0), "the client did not go away");
}

#[test]
fn a_late_answer_is_asked_for_elsewhere() {
    let (fast, slow) = (Origin::start("fast"), Origin::start("slow"));
    let stalling = FaultProxy::start(slow.address, Fault::Stall);
    let more = "    hedge: { after: 50ms }\n    outlier_ejection: { consecutive: 0 }\n    timeouts: { read: 5s }\n    retry_budget: { min: 50 }\n";
    let gw = gateway(&[fast.url(), stalling.url()], more);
    for _ in 0..10 {
        let begun = Instant::now();
        gw.get("/big").expect(200).says("tollgate");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    assert!(gw.metric("gateway_hedges_total{service=\"main\"}").unwrap() >= 3.0);
    assert!(gw.log(10).iter().any(|line| line["attempts"] == 2));
    // What is not idempotent, or has a body, is never sent twice.
    let before = (fast.seen().len(), stalling.requests());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| gw.request("POST", "/").body(b"x").try_send());
        }
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(fast.seen().len() + stalling.requests(), before.0 + before.1 + 2);
        stalling.set(Fault::None);
    });
    gw.request("HEAD", "/").expect(200);
    gw.get("/status/204").expect(204);
    gw.get("/status/404").expect(404);
}

#[test]
fn hedges_come_out_of_the_budget_and_by_percentile() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let more = "    hedge: { after: 5ms }\n    retry_budget: { share: 10%, min: 2 }\n";
    let gw = gateway(&[one.url(), two.url()], more);
    (0..40).for_each(|_| drop(gw.get("/slow/30").expect(200)));
    let hedges = gw.metric("gateway_hedges_total{service=\"main\"}").unwrap();
    assert!((2.0..=4.0).contains(&hedges), "{hedges} of 40");
    let more = "    hedge: { after: p95 }\n    retry_budget: { min: 100 }\n";
    let gw = gateway(&[one.url(), two.url()], more);
    (0..30).for_each(|_| drop(gw.get("/").expect(200)));
    (0..5).for_each(|_| drop(gw.get("/slow/100").expect(200)));
    let hedges = gw.metric("gateway_hedges_total{service=\"main\"}").unwrap();
    assert!(hedges >= 2.0, "{hedges}");
}

#[test]
fn a_hedge_that_fails_both_ways_is_an_honest_error() {
    let origin = Origin::start("o");
    let (one, two) = (FaultProxy::start(origin.address, Fault::Stall), FaultProxy::start(origin.address, Fault::Stall));
    let more = "    hedge: { after: 20ms }\n    timeouts: { read: 200ms }\n    retry: { max_attempts: 1 }\n";
    let gw = gateway(&[one.url(), two.url()], more);
    gw.get("/").expect(504).problem();
    assert_eq!(one.requests() + two.requests(), 2);
    let none = gateway(&[format!("http://127.0.0.1:{}", crate::harness::free_port())], "    hedge: { after: 20ms }\n");
    none.get("/").expect(502).problem();
}

#[test]
fn copies_go_to_another_service_and_nobody_waits_for_them() {
    let (main, shadow) = (Origin::start("main"), Origin::start("shadow"));
    let stalling = FaultProxy::start(shadow.address, Fault::None);
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\n  shadow: {{ urls: [\"{}\"], timeouts: {{ read: 1s }} }}\nroutes:\n  - match: {{ path: /some }}\n    service: main\n    mirror: {{ service: shadow, share: 0% }}\n  - match: {{ path: /* }}\n    service: main\n    mirror: {{ service: shadow, max_body: 1KiB }}\n    filters: [ {{ headers: {{ request: {{ set: {{ X-Set: yes }} }} }} }} ]\n",
        main.url(),
        stalling.url()
    ));
    gw.request("PUT", "/a?b=c").header("X-A", "1").body(b"hello").expect(200).says("main");
    eventually("the copy arrives", || shadow.seen().len() == 1);
    let copy = shadow.last();
    assert_eq!((copy.method.as_str(), copy.uri.to_string().as_str(), &copy.body[..]), ("PUT", "/a?b=c", &b"hello"[..]));
    assert_eq!((&copy.headers["x-a"], &copy.headers["x-set"]), (&"1".parse().unwrap(), &"yes".parse().unwrap()));
    gw.get("/").expect(200);
    eventually("the copy arrives", || shadow.seen().len() == 2);
    gw.request("PUT", "/").body(&vec![b'x'; 2000]).expect(200);
    (0..5).for_each(|_| drop(gw.get("/some").expect(200)));
    stalling.set(Fault::Stall);
    let begun = Instant::now();
    gw.get("/").expect(200).says("main");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(shadow.seen().len(), 2, "too large, or not chosen");
    assert_eq!(gw.metric("gateway_mirror_dropped_total{service=\"shadow\"}"), Some(1.0));
}
