//! What gateways tell a Redis that comes back and has forgotten everything, or nothing.

use nix::sys::signal::Signal;

use crate::{
    cluster::{gateways, redis},
    harness::{Gateway, Redis, eventually},
};

/// Limits of 30 that count by gateway, of which nothing comes back while a test runs.
const TOTALS: [(&str, &str); 3] = [
    ("quota", "{ by: all, quota: 30/month }"),
    ("window", "{ by: all, rate: 30/d, algorithm: sliding_window }"),
    ("list", "{ by: all, rate: 1/h, burst: 40, quota: 30/month, limits: [{ rate: 36/d, algorithm: sliding_window }] }"),
];

/// Buckets of 30, of which nothing comes back while a test runs.
const BUCKETS: [(&str, &str); 3] = [
    ("strict", "{ by: all, rate: 1/h, burst: 30, sync: strict }"),
    ("lease", "{ by: all, rate: 1/h, burst: 30, sync: lease }"),
    ("pair", "{ by: all, rate: 1/h, burst: 30, limits: [{ rate: 2/h, burst: 40 }] }"),
];

/// Sends so many requests; how many passed.
fn passed(gateway: &Gateway, path: &str, count: u32) -> usize {
    (0..count).filter(|_| gateway.get(&format!("/{path}")).send().status == 200).count()
}

/// Does something while every gateway knows that Redis is gone, and comes back when each has told it what it knows.
fn outage(server: &mut Redis, all: &[Gateway], meanwhile: impl FnOnce()) {
    let is_up = |up: f64| {
        for gateway in all {
            eventually("redis is known to be there, or gone", || gateway.metric("gateway_redis_up") == Some(up));
        }
    };
    server.kill();
    is_up(0.0);
    meanwhile();
    server.restart();
    is_up(1.0);
    std::thread::sleep(std::time::Duration::from_millis(700));
}

#[test]
fn every_gateway_s_total_counts_though_together_they_exceed_the_limit() {
    let mut server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &TOTALS);
    let (a, b) = (&all[0], &all[1]);
    for (path, _) in TOTALS {
        assert_eq!((passed(a, path, 20), passed(b, path, 12)), (20, 10), "{path}");
    }
    outage(&mut server, &all, || {
        for (path, _) in TOTALS {
            assert_eq!((passed(a, path, 20), passed(b, path, 20)), (0, 5), "{path}, each by its share");
        }
    });
    for (path, _) in TOTALS {
        assert_eq!((passed(a, path, 20), passed(b, path, 20)), (0, 0), "{path}");
    }
}

#[test]
fn a_client_of_the_outage_alone_is_told_of() {
    let mut server = Redis::start(&[]);
    let routes = [TOTALS, BUCKETS].concat();
    let all = gateways(2, &redis(&server), &routes);
    let (a, b) = (&all[0], &all[1]);
    outage(&mut server, &all, || {
        for (path, _) in &routes {
            assert_eq!(passed(a, path, 40), 15, "{path}");
        }
    });
    for (path, _) in &routes {
        assert_eq!((passed(b, path, 40), passed(a, path, 5)), (15, 0), "{path}");
    }
}

#[test]
fn a_bucket_is_not_full_again_at_the_gateway_that_did_not_empty_it() {
    let mut server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &BUCKETS);
    let (a, b) = (&all[0], &all[1]);
    for (path, _) in BUCKETS {
        assert_eq!(passed(a, path, 35), 30, "{path}");
    }
    for turn in 0..2 {
        outage(&mut server, &all, || {});
        for (path, _) in BUCKETS {
            assert_eq!(passed(b, path, 10), 0, "{path}, {turn}");
        }
    }
}

#[test]
fn what_redis_still_knows_of_a_period_is_not_added_to_it_again() {
    let server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &TOTALS[..2]);
    let (a, b) = (&all[0], &all[1]);
    for (path, _) in &TOTALS[..2] {
        assert_eq!((passed(a, path, 10), passed(b, path, 10)), (10, 10), "{path}");
    }
    for _ in 0..2 {
        server.signal(Signal::SIGSTOP);
        for gateway in &all {
            eventually("redis is known to hang", || gateway.metric("gateway_redis_up") == Some(0.0));
        }
        server.signal(Signal::SIGCONT);
        for gateway in &all {
            eventually("redis is back", || gateway.metric("gateway_redis_up") == Some(1.0));
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    for (path, _) in &TOTALS[..2] {
        assert_eq!((passed(a, path, 5), passed(b, path, 20)), (5, 5), "{path}");
    }
}

#[test]
fn redis_is_told_of_every_client_without_being_asked_for_any() {
    let mut server = Redis::start(&[]);
    let limits = [
        ("strict", "{ by: \"header:X-C\", rate: 1/h, burst: 3, sync: strict }"),
        ("quota", "{ by: \"header:X-C\", quota: 3/month }"),
    ];
    let all = gateways(1, &redis(&server), &limits);
    for (path, _) in limits {
        for client in 0..300 {
            all[0].get(&format!("/{path}")).header("X-C", &client.to_string()).expect(200);
        }
    }
    server.restart();
    let buckets = || server.ask("KEYS tollgate:*:*").lines().filter(|line| line.starts_with("tollgate:{")).count();
    // The list of gateways is one more key of another name.
    eventually("every client's two keys are there again", || buckets() == 600);
}
