//! Rate limits through the running binary.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::harness::{Gateway, Origin, Request, eventually};

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
fn what_is_announced_is_what_was_written_and_each_limit_has_its_name() {
    let origin = Origin::start("o");
    for (rate, policy) in [("7/m", "q=7;w=60"), ("7/h", "q=7;w=3600"), ("11/s", "q=11;w=1"), ("3/10m", "q=3;w=600")] {
        let gw = gateway(&origin, &format!("{{ rate_limit: {rate} }}"), "");
        gw.get("/").expect(200).has("ratelimit-policy", &format!("\"default\";{policy}"));
    }
    let gw = gateway(
        &origin,
        "{ rate_limit: 9/h }, { rate_limit: { rate: 1/h, by: path } }, { rate_limit: { rate: 8/h, name: mine } }, { rate_limit: { limits: [5/h, 6/h] } }",
        "",
    );
    let mut policies: Vec<String> =
        gw.get("/").expect(200).all("ratelimit-policy").into_iter().map(str::to_owned).collect();
    policies.sort();
    let wanted = [
        "\"default\";q=9;w=3600",
        "\"default-2\";q=1;w=3600",
        "\"default-3\";q=5;w=3600, \"default-4\";q=6;w=3600",
        "\"mine\";q=8;w=3600",
    ];
    assert_eq!(policies, {
        let mut wanted = wanted.map(str::to_owned);
        wanted.sort();
        wanted
    });
    assert_eq!(gw.get("/").expect(429).json()["violated-policies"], serde_json::json!(["default-2"]));
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

#[test]
fn several_limits_are_taken_together_or_not_at_all() {
    let origin = Origin::start("o");
    let limits = "{ rate_limit: { by: \"header:X-User\", rate: 1/h, burst: 30, limits: [{ rate: 20/s, burst: 4, name: fast }, 40/h] } }";
    let gw = gateway(&origin, limits, "");
    let policy = "\"default\";q=30;w=108000, \"fast\";q=4;w=1, \"default-3\";q=40;w=3600";
    gw.get("/")
        .expect(200)
        .has("ratelimit-policy", policy)
        .has("x-ratelimit-limit", "4")
        .has("x-ratelimit-remaining", "3");
    let (begun, mut all) = (Instant::now(), 1);
    all += passed(|_| gw.get("/"), 60);
    let back = usize::try_from(begun.elapsed().as_millis() / 50).unwrap();
    assert!((4..=4 + back + 1).contains(&all), "{all} passed");
    let refused = (0..9).map(|_| gw.get("/").send()).find(|answer| answer.status == 429).unwrap().problem();
    assert_eq!(refused.json()["violated-policies"][0], "fast");
    assert!(refused.get("ratelimit").starts_with("\"fast\";r=0;t="), "{refused:?}");
    // Dozens were refused: the limit of 30 has been charged for those that passed only. It is the tightest one at its end.
    let mut last = String::new();
    eventually("the long limit ends it", || {
        let answer = gw.get("/").send();
        all += usize::from(answer.status == 200);
        last = answer.get("ratelimit").to_owned();
        answer.status == 429 && last.starts_with("\"default\"")
    });
    assert_eq!(all, 30, "{last}");
    assert_eq!(passed(|_| gw.get("/").header("X-User", "other"), 4), 4);
}

#[test]
fn a_sliding_window_lets_no_more_than_its_count_pass_in_a_window() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "{ rate_limit: { rate: 20/2s, algorithm: sliding_window } }", "");
    gw.get("/").expect(200).has("ratelimit-policy", "\"default\";q=20;w=2").has("x-ratelimit-limit", "20");
    let begun = Instant::now();
    let mut all = 1 + passed(|_| gw.get("/"), 60);
    assert!((20..=29).contains(&all) || begun.elapsed() > Duration::from_secs(1), "{all} at once");
    while begun.elapsed() < Duration::from_secs(4) {
        all += usize::from(gw.get("/").send().status == 200);
    }
    // Of a steady load the rate passes, and less than one window more.
    let seconds = begun.elapsed().as_secs_f64();
    let all = f64::from(u32::try_from(all).unwrap());
    assert!(all <= 10.0 * seconds + 20.0 && all >= 10.0 * (seconds - 2.0), "{all} in {seconds} s");
    let refused = (0..99).map(|_| gw.get("/").send()).find(|answer| answer.status == 429).unwrap();
    let wait: u64 = refused.get("retry-after").parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
}

#[test]
fn a_calendar_quota_ends_with_its_period() {
    let origin = Origin::start("o");
    let unix = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let day = gateway(&origin, "{ rate_limit: 3/day }", "");
    assert_eq!(day.get("/").expect(200).get("ratelimit-policy"), "\"default\";q=3;w=86400");
    assert_eq!(passed(|_| day.get("/"), 20), 2);
    let (before, refused, after) = (unix(), day.get("/").expect(429), unix());
    let wait: u64 = refused.get("retry-after").parse().unwrap();
    let ends = |now: u64| 86_400 - now % 86_400;
    assert!((ends(after)..=ends(before) + 1).contains(&wait) || ends(after) > ends(before), "{wait}");
    assert_eq!(refused.get("x-ratelimit-reset"), refused.get("retry-after"));
    let second = gateway(&origin, "{ rate_limit: { quota: 5/second } }", "");
    let (first, begun, mut all) = (unix(), Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(2_300) {
        all += usize::from(second.get("/").send().status == 200);
    }
    let seconds = usize::try_from(unix() - first + 1).unwrap();
    assert!((5 * (seconds - 2)..=5 * seconds).contains(&all), "{all} in {seconds} seconds of the calendar");
}

#[test]
fn a_flood_is_refused_and_two_thousand_others_are_not() {
    let origin = Origin::start("o");
    let more = "trusted_proxies: [127.0.0.0/8]\naccess_log: { enabled: false }";
    let gw = gateway(&origin, "{ flood: { rate: 40/h, others: 3000 } }, { rate_limit: 1000/h }", more);
    let address = |i: usize| format!("{}.{}.{}.7", 11 + i % 90, i / 90 % 250, i / 22_500 % 250);
    // Every other request is the flood's.
    passed(
        |i| {
            let from = if i % 2 == 0 { "192.0.2.1".to_owned() } else { address(i / 2) };
            gw.get("/").header("X-Forwarded-For", &from)
        },
        4_000,
    );
    let from = |client: &str| gw.get("/").header("X-Forwarded-For", client);
    let refused = from("192.0.2.1").expect(429).problem();
    assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#abnormal-usage-detected");
    assert_eq!(refused.get("retry-after"), "3600");
    let refusals = gw.metric("gateway_filter_refusals_total{filter=\"flood\",route=\"r\"}").unwrap();
    assert!((1_961.0..=1_971.0).contains(&refusals), "{refusals} refusals: others were among them");
    for innocent in 0..20 {
        assert_eq!(passed(|_| from(&format!("198.51.100.{innocent}")), 30), 30);
    }
}
