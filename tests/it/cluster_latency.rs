//! What an outage of Redis adds to the time of requests, beside the time before, in the same run: `-- --nocapture` shows the table.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    cluster::gateways,
    harness::{Gateway, Redis, Tally, eventually, load},
};

const MODES: [&str; 2] = ["lease", "strict"];
const POLICIES: [&str; 3] = ["local_share", "allow", "deny"];

/// How long a phase is.
const SECONDS: f64 = 1.2;

/// How long Redis hangs: a request in the first few hundredths of a second waits, so of a whole outage fewer than one in a hundred.
const OUTAGE: f64 = 6.0;

/// Every mode and policy under load, at the same time.
fn phase(gateway: &Gateway, seconds: f64, harm: impl FnOnce()) -> Vec<Tally> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = MODES
            .iter()
            .flat_map(|mode| POLICIES.map(|policy| format!("/{mode}-{policy}")))
            .map(|path| scope.spawn(move || load(&[gateway], &path, 150.0, seconds)))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        harm();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "a table to look at")]
fn an_outage_adds_no_more_than_the_time_limit_of_a_call() {
    let mut server = Redis::start(&[]);
    let routes: Vec<(String, String)> = MODES
        .iter()
        .flat_map(|mode| {
            let limit =
                |policy| format!("{{ rate: 1000/s, burst: 500, by: all, sync: {mode}, on_store_down: {policy} }}");
            POLICIES.map(|policy| (format!("{mode}-{policy}"), limit(policy)))
        })
        .collect();
    let routes: Vec<(&str, &str)> = routes.iter().map(|(path, limit)| (path.as_str(), limit.as_str())).collect();
    let all = gateways(1, &format!("url: \"{}\", timeout: 20ms", server.url()), &routes);
    let up = || eventually("redis is asked again", || all[0].metric("gateway_redis_up") == Some(1.0));
    let before = phase(&all[0], SECONDS, || {});
    let stopped = phase(&all[0], OUTAGE, || server.signal(Signal::SIGSTOP));
    let woken = phase(&all[0], SECONDS, || server.signal(Signal::SIGCONT));
    up();
    let killed = phase(&all[0], SECONDS, || server.kill());
    let back = phase(&all[0], SECONDS, || server.restart());
    up();
    println!(
        "| p99 in ms (of before) | before | stopped | goes on | killed | back, empty |\n|---|---|---|---|---|---|"
    );
    let millis = |tally: &Tally| tally.within(0.99).as_secs_f64() * 1e3;
    for (i, (path, _)) in routes.iter().enumerate() {
        let first = millis(&before[i]);
        let cell = |phase: &[Tally]| format!("{:.1} ({:.1})", millis(&phase[i]), millis(&phase[i]) / first);
        let cells = [&stopped, &woken, &killed, &back].map(|phase| cell(phase)).join(" | ");
        println!("| {} | {first:.1} | {cells} |", path.replacen('-', ", ", 1));
        for phase in [&stopped, &woken, &killed, &back] {
            let tally = &phase[i];
            // Only `deny` says so; nobody else sees that Redis is away. 1000/s is far above what is sent.
            let good = tally.count(200) + if path.ends_with("deny") { tally.count(503) } else { 0 };
            assert_eq!(good, tally.all(), "{path}: {:?}", tally.statuses);
            // Whoever finds out waits 20 ms, and is one of fewer than a hundred. Half of that is for a busy machine.
            let (now, then) = (tally.within(0.99), before[i].within(0.99));
            assert!(now < then * 2 + Duration::from_millis(10), "{path}: {now:?}, before {then:?}");
        }
    }
}
