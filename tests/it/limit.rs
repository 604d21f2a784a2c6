//! Rate limits through the running binary.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Origin, Request};

fn gateway(origin: &Origin, filters: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - id: r\n    match: {{ path: /* }}\n    service: main\n    filters: [{filters}]\n",
        origin.url()
    ))
}

/// Sends `count` requests from 8 threads and answers how many passed.
fn passed(make: impl Fn(usize) -> Request + Sync, count: usize) -> usize {
    let (next, passed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        break;
                    }
                    match make(i).send().status {
                        200 => _ = passed.fetch_add(1, Ordering::Relaxed),
                        429 => {}
                        other => panic!("status {other}"),
                    }
                }
            });
        }
    });
    passed.into_inner()
}

#[test]
fn exactly_burst_passes_at_once_and_then_the_rate() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "{ rate_limit: { rate: 10/s, burst: 20, by: \"header:X-User\" } }", "");
    for user in ["one", "two"] {
        let begun = Instant::now();
        let at_once = passed(|_| gw.get("/").header("X-User", user), 60);
        let refilled = usize::try_from(begun.elapsed().as_millis() / 100).unwrap();
        assert!((20..=20 + refilled + 1).contains(&at_once), "{at_once} passed, {refilled} came back meanwhile");
        // For one second and a half, as fast as it goes: what passes is what came back, give or take one.
        let (mut more, begun_again) = (0, Instant::now());
        while begun_again.elapsed() < Duration::from_millis(1500) {
            more += usize::from(gw.get("/").header("X-User", user).send().status == 200);
        }
        let total = at_once + more;
        let expected = 20 + usize::try_from(begun.elapsed().as_millis() / 100).unwrap();
        assert!(total.abs_diff(expected) <= 1, "{user}: {total} passed in all, {expected} expected");
    }
}

#[test]
fn the_client_is_told() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "{ rate_limit: { rate: 1/m, burst: 2 } }", "");
    gw.get("/")
        .expect(200)
        .has("ratelimit-policy", "\"default\";q=2;w=120")
        .has("x-ratelimit-limit", "2")
        .has("x-ratelimit-remaining", "1");
    let answer = gw.get("/").expect(200).has("x-ratelimit-remaining", "0");
    assert!(answer.get("ratelimit").starts_with("\"default\";r=0;t="), "{answer:?}");
    let refused = gw.get("/").expect(429).problem();
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(refused.json()["violated-policies"][0], "default");
    let wait: u64 = refused.get("retry-after").parse().unwrap();
    assert!((55..=60).contains(&wait), "{wait}");
    assert_eq!(refused.get("x-ratelimit-reset"), refused.get("retry-after"));
    assert_eq!(gw.metric("gateway_rate_limited_total{route=\"r\"}"), Some(1.0));
    let quiet = gateway(&origin, "{ rate_limit: { rate: 1/m, headers: off } }", "");
    quiet.get("/").expect(200).lacks("ratelimit").lacks("x-ratelimit-limit");
    assert_ne!(quiet.get("/").expect(429).get("retry-after"), "");
}

#[test]
fn of_two_limits_the_old_fields_name_the_one_that_refused() {
    let origin = Origin::start("o");
    let outer = "{ rate_limit: { rate: 1/h, burst: 2, name: outer } }";
    let gw = gateway(&origin, &format!("{outer}, {{ rate_limit: {{ rate: 1/m, burst: 1, name: inner }} }}"), "");
    gw.get("/").expect(200).has("x-ratelimit-limit", "1").has("x-ratelimit-remaining", "0");
    // Neither has anything left now, and only one of them has refused.
    let refused = gw.get("/").expect(429).has("x-ratelimit-limit", "1");
    assert_eq!(refused.json()["violated-policies"][0], "inner");
    assert_eq!(refused.get("x-ratelimit-reset"), refused.get("retry-after"));
}

#[test]
fn the_address_counts_as_trusted_proxies_tell_it() {
    let origin = Origin::start("o");
    let limit = "{ rate_limit: { rate: 1/m, burst: 3 } }";
    let spoofed = gateway(&origin, limit, "");
    assert_eq!(passed(|i| spoofed.get("/").header("X-Forwarded-For", &format!("203.0.113.{i}")), 20), 3);
    let trusted = gateway(&origin, limit, "trusted_proxies: [127.0.0.0/8]");
    assert_eq!(passed(|i| trusted.get("/").header("X-Forwarded-For", &format!("203.0.113.{i}")), 20), 20);
    // One /64 is one client.
    assert_eq!(passed(|i| trusted.get("/").header("X-Forwarded-For", &format!("2001:db8:0:1::{i:x}")), 20), 3);
}

#[test]
fn many_clients_leave_memory_bounded() {
    let origin = Origin::start("o");
    let more = "trusted_proxies: [127.0.0.0/8]\naccess_log: { enabled: false }";
    let gw = gateway(&origin, "{ rate_limit: { rate: 1/m, burst: 2, max_buckets: 100 } }", more);
    let before = gw.metric("gateway_memory_alloc_bytes").unwrap();
    let address = |i: usize| format!("{}.{}.{}.{}", 11 + i % 90, i / 90 % 250, i / 22_500 % 250, i % 250);
    assert_eq!(passed(|i| gw.get("/").header("X-Forwarded-For", &address(i)), 6000), 6000);
    assert!(gw.metric("gateway_limiter_evictions_total").unwrap() > 1000.0);
    let grown = gw.metric("gateway_memory_alloc_bytes").unwrap() - before;
    assert!(grown < 32e6, "{grown} bytes more after 6000 clients");
}
