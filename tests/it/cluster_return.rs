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
