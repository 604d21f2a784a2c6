//! Backends: who is next, who is well, and what happens when one is not.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Origin, eventually, free_port};

/// One service over `urls` with `more` settings.
fn gateway(urls: &[String], more: &str) -> Gateway {
    let urls = urls.join("\", \"");
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{urls}\"]{more} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n"
    ))
}

fn counts(gw: &Gateway, requests: usize, with: impl Fn(usize) -> (String, String)) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for i in 0..requests {
        let (name, value) = with(i);
        *counts.entry(gw.get("/").header(&name, &value).expect(200).body).or_default() += 1;
    }
    counts
}

fn same(_: usize) -> (String, String) {
    ("X-None".into(), "1".into())
}

#[test]
fn round_robin_is_fair_and_keeps_weights() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = gateway(&[a.url(), b.url()], "");
    assert_eq!(counts(&gw, 20, same), [("a".into(), 10), ("b".into(), 10)].into());
    let yaml = format!(
        "services:\n  main: {{ urls: [{{ url: \"{}\", weight: 3 }}, {{ url: \"{}\", weight: 1 }}] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n",
        a.url(),
        b.url()
    );
    assert_eq!(counts(&Gateway::start(&yaml), 20, same), [("a".into(), 15), ("b".into(), 5)].into());
}

#[test]
fn random_and_least_connections_use_every_backend() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    for balance in ["random", "least_connections"] {
        let gw = gateway(&[a.url(), b.url()], &format!(", balance: {balance}"));
        let counts = counts(&gw, 40, same);
        assert!(counts.len() == 2 && counts.values().all(|count| *count >= 5), "{balance}: {counts:?}");
    }
}

#[test]
fn least_connections_avoids_the_busy_one() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = gateway(&[a.url(), b.url()], ", balance: least_connections");
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| gw.get("/slow/1500").expect(200).body);
        eventually("the slow request is under way", || !a.seen().is_empty() || !b.seen().is_empty());
        let others = counts(&gw, 10, same);
        // An answered request counts until its log line is written, so that the next may see two equals.
        let at_busy = others.get(&busy.join().unwrap()).copied().unwrap_or_default();
        assert!(at_busy <= 2, "{others:?}");
    });
}

#[test]
fn consistent_hash_keeps_a_key_at_its_backend() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    for (by, name, value) in [("\"header:X-User\"", "X-User", "u"), ("\"cookie:sid\"", "Cookie", "x=1; sid=u")] {
        let gw = gateway(&[a.url(), b.url()], &format!(", balance: {{ consistent_hash: {by} }}"));
        let one = counts(&gw, 10, |_| (name.into(), value.into()));
        assert_eq!(one.len(), 1, "{by}: {one:?}");
        let many = counts(&gw, 40, |i| (name.into(), format!("{value}{i}")));
        assert_eq!(many.len(), 2, "{by}: {many:?}");
    }
}

#[test]
fn a_backend_that_refuses_is_passed_over() {
    let a = Origin::start("a");
    let gw = gateway(&[format!("http://127.0.0.1:{}", free_port()), a.url()], "");
    assert_eq!(counts(&gw, 10, same), [("a".into(), 10)].into());
    assert!(gw.metric("gateway_retries_total{service=\"main\"}").unwrap() >= 5.0);
    gw.request("POST", "/").body(b"once").expect(200);
    let alone = gateway(&[format!("http://127.0.0.1:{}", free_port())], "");
    alone.get("/").expect(502).problem();
    assert_eq!(alone.log(1)[0]["error"], "ConnectRefused");
    let none = gateway(&[format!("http://127.0.0.1:{}", free_port()), a.url()], ", retry: { max_attempts: 1 }");
    let statuses: Vec<u16> = (0..4).map(|_| none.get("/").send().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2, "{statuses:?}");
}

#[test]
fn killing_one_of_two_backends_under_load_costs_no_request() {
    let (mut a, b) = (Origin::start("a"), Origin::start("b"));
    let check = ", health_check: { path: /health, every: 100ms, timeout: 500ms, unhealthy_after: 2 }";
    let gw = gateway(&[a.url(), b.url()], check);
    let address = a.address;
    let up = format!("gateway_backend_up{{backend=\"{address}\",service=\"main\"}}");
    assert_eq!(gw.metric(&up), Some(1.0));
    let (stop, failed, done) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let fine = gw.get("/").try_send().is_ok_and(|answer| answer.status == 200);
                    (if fine { &done } else { &failed }).fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("load is on", || done.load(Ordering::Relaxed) > 100);
        a.kill();
        eventually("the health metric turns", || gw.metric(&up) == Some(0.0));
        let then = done.load(Ordering::Relaxed);
        eventually("load goes on", || done.load(Ordering::Relaxed) > then + 100);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", done.load(Ordering::Relaxed));
    let _again = Origin::start_on("a", address.port());
    eventually("the backend is used again", || gw.metric(&up) == Some(1.0) && gw.get("/").expect(200).body == "a");
}

#[test]
fn without_a_healthy_backend_the_policy_decides() {
    let a = Origin::start("a");
    a.fail_health(true);
    let check = "health_check: { path: /health, every: 50ms, unhealthy_after: 1 }";
    let fail = gateway(&[a.url()], &format!(", {check}, required: true"));
    eventually("the backend is unhealthy", || fail.get("/").send().status == 503);
    fail.get("/").expect(503).has("retry-after", "1").problem();
    fail.admin("/health/ready").expect(503).says("main");
    let any = gateway(&[a.url()], &format!(", {check}, when_all_unhealthy: any"));
    eventually("the backend is unhealthy", || {
        any.admin("/gateway/stats").expect(200).json()["services"]["main"]["available"] == false
    });
    any.get("/").expect(200).says("a");
    a.fail_health(false);
    eventually("the backend is well again", || fail.get("/").send().status == 200);
    fail.admin("/health/ready").expect(200);
}

#[test]
fn slow_backends_are_given_up() {
    let a = Origin::start("a");
    let read = gateway(&[a.url()], ", timeouts: { read: 200ms }");
    let begun = Instant::now();
    read.get("/slow/3000").expect(504).problem();
    assert!(begun.elapsed() < Duration::from_secs(2));
    let total = gateway(&[a.url()], ", timeouts: { total: 300ms }");
    total.get("/slow/3000").expect(504).problem();
    total.get("/slow/50").expect(200);
    assert!(begun.elapsed() < Duration::from_secs(3));
}
