//! Limits that gateways keep together, with a real Redis.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Gateway, Redis, Tally, eventually, load};

/// Routes that answer by themselves: `(path, settings of the limit)`.
fn yaml(redis: &str, routes: &[(&str, &str)]) -> String {
    let route = |(path, limit): &(&str, &str)| {
        format!("  - {{ id: {path}, match: {{ path: /{path} }}, respond: {{ status: 200 }}, filters: [{{ rate_limit: {limit} }}] }}\n")
    };
    let routes: String = routes.iter().map(route).collect();
    format!("access_log: {{ enabled: false }}\nlog: {{ level: info }}\nredis: {{ {redis} }}\nroutes:\n{routes}")
}

/// So many gateways with the same file, all of which know of one another.
fn gateways(count: usize, redis: &str, routes: &[(&str, &str)]) -> Vec<Gateway> {
    let yaml = yaml(redis, routes);
    let all: Vec<Gateway> = (0..count).map(|_| Gateway::start(&yaml)).collect();
    for gateway in &all {
        let known = || gateway.metric("gateway_redis_gateways");
        eventually("the gateways know of one another", || known().is_some_and(|known| known >= count as f64));
    }
    all
}

fn timeout() -> &'static str {
    // A machine that is busy with other tests is no Redis that does not answer.
    "timeout: 500ms"
}

fn redis(redis: &Redis) -> String {
    format!("url: \"{}\", {}", redis.url(), timeout())
}

/// The most that may pass in the time of this tally.
fn most(tally: &Tally, rate: f64, burst: f64) -> f64 {
    rate * tally.took.as_secs_f64() + burst
}

#[test]
fn two_gateways_together_let_pass_what_one_limit_says() {
    let server = Redis::start(&[]);
    let routes: Vec<(String, String)> = ["strict", "lease"]
        .iter()
        .flat_map(|sync| {
            ["half", "four", "forty"].map(|load| {
                (format!("{sync}-{load}"), format!("{{ rate: 10/s, burst: 20, by: all, sync: {sync} }}"))
            })
        })
        .collect();
    let routes: Vec<(&str, &str)> = routes.iter().map(|(path, limit)| (path.as_str(), limit.as_str())).collect();
    let all = gateways(2, &redis(&server), &routes);
    let all: Vec<&Gateway> = all.iter().collect();
    let seconds = 3.0;
    std::thread::scope(|scope| {
        for (path, _) in &routes {
            let all = &all;
            scope.spawn(move || {
                let factor = if path.ends_with("half") { 0.5 } else if path.ends_with("four") { 4.0 } else { 40.0 };
                let tally = load(all, &format!("/{path}"), 10.0 * factor, seconds);
                let (passed, most) = (f64::from(tally.count(200)), most(&tally, 10.0, 20.0));
                eprintln!("{path}: {:?} of at most {most:.0}, p99 {:?}", tally.statuses, tally.within(0.99));
                assert_eq!(tally.count(200) + tally.count(429), tally.all(), "{path}: {tally:?}");
                assert!(passed <= most, "{path}: {passed} passed of {most}");
                if factor < 1.0 {
                    assert_eq!(tally.count(429), 0, "{path}: {:?}", tally.statuses);
                } else {
                    // Whole tokens, and one lease for each node.
                    let withheld = if path.starts_with("lease") { 2.0 * 5.0 } else { 0.0 };
                    assert!(passed >= most - withheld - 3.0, "{path}: {passed} passed of {most}");
                }
            });
        }
    });
}
