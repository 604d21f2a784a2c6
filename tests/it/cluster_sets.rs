//! Several limits at once, sliding windows and quotas of the calendar that gateways keep together, with a real Redis.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tollgate::limit::{AnyTable, CalendarPeriod, CalendarQuota, Moment, Quota, SharedQuota, SlidingWindow, Table};

use crate::{
    cluster::{gateways, redis},
    harness::{Gateway, Redis, binary, eventually, free_port, load},
};

fn connection(server: &Redis) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

#[test]
fn gateways_keep_every_limit_of_a_list_and_refusals_cost_nothing() {
    let server = Redis::start(&[]);
    let list =
        "{ by: all, rate: 1/h, burst: 60, limits: [{ rate: 20/s, burst: 10, name: fast }, { quota: 1000/month }] }";
    let all = gateways(2, &redis(&server), &[("list", list)]);
    let each: Vec<&Gateway> = all.iter().collect();
    let tally = load(&each, "/list", 200.0, 1.5);
    let (passed, most) = (f64::from(tally.count(200)), 20.0 * tally.took.as_secs_f64() + 10.0);
    assert_eq!(tally.count(200) + tally.count(429), tally.all(), "{:?}", tally.statuses);
    assert!(passed <= most && passed >= most - 4.0, "{passed} of {most}");
    // The hourly one has been charged for what passed, and for nothing else.
    let more = load(&each, "/list", 100.0, 2.5);
    assert_eq!(tally.count(200) + more.count(200), 60, "{tally:?} {more:?}");
    let refused = all[0].get("/list").expect(429).problem();
    assert_eq!(refused.json()["violated-policies"][0], "default");
    assert!(refused.get("ratelimit-policy").contains("\"default-3\";q=1000;w=2678400"), "{refused:?}");
    let mut store = connection(&server);
    let keys: Vec<String> = redis::cmd("KEYS").arg("tollgate:{*}:*").query(&mut store).unwrap();
    assert!((2..=3).contains(&keys.len()), "a key for each limit, less one that is full again: {keys:?}");
    for key in keys {
        let lives: i64 = redis::cmd("PTTL").arg(&key).query(&mut store).unwrap();
        assert!(lives > 0, "{key} lives {lives} ms");
    }
    let calendar = all[0].get("/list").expect(429);
    assert_eq!(calendar.get("x-ratelimit-limit"), "60");
}

#[test]
fn gateways_keep_a_sliding_window_together() {
    let server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &[("w", "{ by: all, rate: 30/1s, algorithm: sliding_window }")]);
    let each: Vec<&Gateway> = all.iter().collect();
    let tally = load(&each, "/w", 300.0, 3.0);
    let (passed, rate) = (f64::from(tally.count(200)), 30.0 * tally.took.as_secs_f64());
    assert_eq!(tally.count(200) + tally.count(429), tally.all(), "{:?}", tally.statuses);
    assert!(passed <= rate + 30.0 && passed >= rate - 30.0, "{passed} of {rate}");
    let few = load(&each, "/w", 15.0, 2.0);
    assert!(few.count(429) <= 8, "under its rate it only waits for what came before: {:?}", few.statuses);
}

#[test]
fn what_one_gateway_has_let_pass_the_others_know_though_redis_has_lost_it() {
    let mut server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &[("q", "{ by: all, quota: 10/day }")]);
    for _ in 0..10 {
        all[0].get("/q").expect(200);
    }
    all[1].get("/q").expect(429);
    server.restart();
    for gateway in &all {
        let back = || gateway.errors().matches("redis: available").count() > 1;
        eventually("redis is back", || gateway.metric("gateway_redis_up") == Some(1.0) && back());
    }
    // The first one tells by itself: nobody asks it for that client.
    eventually("it has told", || server.ask("KEYS tollgate:*:*").contains("tollgate:"));
    all[1].get("/q").expect(429);
}

#[test]
fn a_quota_survives_a_redis_that_has_lost_it() {
    let mut server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &[("q", "{ by: all, quota: 60/month }")]);
    let each: Vec<&Gateway> = all.iter().collect();
    let first = load(&each, "/q", 40.0, 1.0);
    let before = first.count(200);
    assert!(before >= 20 && before == first.all(), "{first:?}");
    let up = |value: f64| {
        eventually("redis is known to be there, or gone", || {
            all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(value))
        });
    };
    server.kill();
    eventually("somebody finds out", || {
        for gateway in &all {
            gateway.get("/none").send();
        }
        all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(0.0))
    });
    // Each has a half of the quota, of which its part has passed already.
    let alone = load(&each, "/q", 10.0, 0.8);
    server.restart();
    up(1.0);
    let after = load(&each, "/q", 200.0, 1.0);
    let passed = before + alone.count(200) + after.count(200);
    assert!(alone.count(200) > 0, "{alone:?}");
    // What passed uncounted can be read, and so how far off the limit may have been.
    let result = |result: &str| -> f64 {
        let series =
            format!("gateway_shared_limit_decisions_total{{limit=\"default\",result=\"{result}\",route=\"q\"}}");
        all.iter().filter_map(|gateway| gateway.metric(&series)).sum()
    };
    assert_eq!(
        (result("admitted_alone"), result("refused_alone")),
        (f64::from(alone.count(200)), f64::from(alone.count(429)))
    );
    assert_eq!(
        (result("admitted"), result("refused")),
        (f64::from(before + after.count(200)), f64::from(after.count(429)))
    );
    assert_eq!(passed, 60, "{before}, {} alone, then {:?}", alone.count(200), after.statuses);
    for gateway in &all {
        gateway.get("/q").expect(429).has("x-ratelimit-remaining", "0");
    }
}

/// What a gateway says that has begun with `yaml`, and `REDIS_URL` in its environment.
fn begun(yaml: &str, url: &str, until: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("tollgate.yaml"), dir.path().display().to_string());
    let own = format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nadmin: {{ enabled: false }}\n"
    );
    let route = "routes: [{ match: { path: / }, respond: { status: 200 }, filters: [{ rate_limit: 1/s }] }]\n";
    std::fs::write(&file, format!("{own}listeners: [\"127.0.0.1:{}\"]\n{yaml}\n{route}", free_port())).unwrap();
    let said = std::fs::File::create(dir.path().join("said")).unwrap();
    let mut child = std::process::Command::new(binary())
        .arg("-c")
        .arg(&file)
        .env("REDIS_URL", url)
        .env("RUST_LOG", "info")
        .stderr(said)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(dir.path().join("said")).unwrap();
    eventually("it says what it does", || said().contains(until) || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let _ = child.wait();
    said()
}

#[test]
fn the_environment_says_where_redis_is_when_the_file_wants_one() {
    let server = Redis::start(&[]);
    let said = begun("redis: {}", &server.url(), "redis: available");
    assert!(said.contains("redis by REDIS_URL of the environment") && said.contains("redis: available"), "{said}");
    let said = begun("redis: { timeout: 30ms }", &server.url(), "redis: available");
    assert!(said.contains("redis: available"), "{said}");
    // A variable alone does not change what limits mean.
    let said = begun("", &server.url(), "listening");
    assert!(
        said.contains("limits count in this process: REDIS_URL is set, but") && !said.contains("available"),
        "{said}"
    );
    let said = begun("redis: {}", "ftp://:hunter2@h", "problem");
    assert!(said.contains("redis (REDIS_URL of the environment): this is no URL of a Redis"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let said = begun("redis: {}", "", "problem");
    assert!(said.contains("redis: say where it is") && said.contains("or set REDIS_URL"), "{said}");
    // What the file says counts.
    let said = begun("redis: { url: \"redis://127.0.0.1:1\" }", &server.url(), "redis: not available");
    assert!(said.contains("redis: not available") && !said.contains("REDIS_URL"), "{said}");
}

/// The script, with the test's time in the place of the server's.
fn script() -> redis::Script {
    let source = include_str!("../../src/store/take_all.lua");
    let ours = source.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
    assert_ne!(source, ours);
    redis::Script::new(&ours)
}

/// What the script is told of a limit.
fn arguments(table: &AnyTable) -> (&'static str, [u64; 5]) {
    match table {
        AnyTable::Bucket(table) => {
            let SharedQuota { token, rate, full, .. } = SharedQuota::new(table.quota()).unwrap();
            ("bucket", [token, rate, full, 0, 0])
        }
        AnyTable::Window(table) => {
            let length = u64::try_from(table.quota().per().as_micros()).unwrap();
            ("window", [length, table.quota().count().into(), 0, 0, 0])
        }
        AnyTable::Calendar(table) => (table.quota().per().name(), [0, table.quota().count().into(), 0, 0, 0]),
    }
}

#[test]
fn the_script_decides_as_the_tables_do() {
    let server = Redis::start(&[]);
    let (mut store, script, mut random) = (connection(&server), script(), Rng::with_seed(3));
    let (mut passed, mut refused) = (0, 0);
    for turn in 0..60u64 {
        let (rate, burst, count, quota) = (random.u32(1..50), random.u32(1..9), random.u32(1..20), random.u32(1..60));
        let period = CalendarPeriod::ALL[random.usize(..5)].0;
        let tables = [
            AnyTable::Bucket(Arc::new(Table::new(Quota::new(rate, Duration::from_secs(1), burst).unwrap(), 10))),
            AnyTable::Window(Arc::new(Table::new(SlidingWindow::new(count, Duration::from_secs(2)).unwrap(), 10))),
            AnyTable::Calendar(Arc::new(Table::new(CalendarQuota::new(quota, period).unwrap(), 10))),
        ];
        // Before the end of a month, of a leap year now and then.
        let mut now = Duration::from_secs(1_709_251_200 + turn * 31 * 86_400 - turn * 86_400)
            .saturating_sub(Duration::from_secs(9));
        // Windows of a table begin with its time: an even number of seconds is a beginning here and there.
        let start = Duration::from_secs(now.as_secs() / 2 * 2);
        for _ in 0..120 {
            now += Duration::from_millis(random.u64(..300));
            let cost = random.u32(1..3);
            let moment = Moment { since_start: now.saturating_sub(start) + Duration::from_nanos(1), unix: now };
            let passes = tables.iter().all(|table| table.look(1, cost, table.most(), moment).allowed());
            let waits: Vec<_> = tables.iter().map(|table| table.look(1, cost, table.most(), moment).retry).collect();
            if passes {
                for table in &tables {
                    table.take(1, cost, table.most(), moment);
                }
            }
            let mut call = script.prepare_invoke();
            call.arg("node").arg(cost);
            for (i, table) in tables.iter().enumerate() {
                let (kind, numbers) = arguments(table);
                call.key(format!("{turn}:{i}")).arg(kind);
                for number in numbers {
                    call.arg(number);
                }
            }
            let answer: Vec<u64> = call.arg(now.as_secs()).arg(now.subsec_micros()).invoke(&mut store).unwrap();
            assert_eq!(answer[0] == 1, passes, "{tables:?} at {now:?}: {answer:?} {waits:?}");
            for (wait, told) in waits.iter().zip(answer[1..].chunks(4)) {
                let wait = wait.unwrap_or_default();
                if wait != Duration::MAX {
                    let told = Duration::from_micros(told[0]);
                    assert!(wait.abs_diff(told) <= Duration::from_micros(2), "{tables:?}: {wait:?} {told:?}");
                }
            }
            if passes { passed += 1 } else { refused += 1 }
        }
    }
    assert!(passed > 500 && refused > 500, "{passed} passed, {refused} refused");
}
