//! Limits that gateways keep together, with a real Redis.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::harness::{Certs, Gateway, Redis, Tally, binary, eventually, free_port, load};

/// Routes that answer by themselves: `(path, settings of the limit)`.
pub(crate) fn yaml(redis: &str, routes: &[(&str, &str)]) -> String {
    let route = |(path, limit): &(&str, &str)| {
        format!(
            "  - {{ id: {path}, match: {{ path: /{path} }}, respond: {{ status: 200 }}, filters: [{{ rate_limit: {limit} }}] }}\n"
        )
    };
    let routes: String = routes.iter().map(route).collect();
    format!("access_log: {{ enabled: false }}\nlog: {{ level: info }}\nredis: {{ {redis} }}\nroutes:\n{routes}")
}

/// So many gateways with the same file, all of which know of one another.
pub(crate) fn gateways(count: u16, redis: &str, routes: &[(&str, &str)]) -> Vec<Gateway> {
    let yaml = yaml(redis, routes);
    let all: Vec<Gateway> = (0..count).map(|_| Gateway::start(&yaml)).collect();
    for gateway in &all {
        let known = || gateway.metric("gateway_redis_gateways");
        eventually("the gateways know of one another", || known().is_some_and(|known| known >= f64::from(count)));
    }
    all
}

fn timeout() -> &'static str {
    // A machine that is busy with other tests is no Redis that does not answer.
    "timeout: 500ms"
}

pub(crate) fn redis(redis: &Redis) -> String {
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
            ["half", "four", "forty"]
                .map(|load| (format!("{sync}-{load}"), format!("{{ rate: 10/s, burst: 20, by: all, sync: {sync} }}")))
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
                let factor = if path.ends_with("half") {
                    0.5
                } else if path.ends_with("four") {
                    4.0
                } else {
                    40.0
                };
                let tally = load(all, &format!("/{path}"), 10.0 * factor, seconds);
                let (passed, most) = (f64::from(tally.count(200)), most(&tally, 10.0, 20.0));
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

#[test]
fn four_gateways_with_small_and_large_buckets() {
    let server = Redis::start(&[]);
    let routes = [(1, 1), (10, 1), (10, 7), (50, 30), (300, 90)];
    let routes = routes.map(|(rate, burst)| {
        (
            format!("r{rate}-{burst}"),
            format!("{{ rate: {rate}/s, burst: {burst}, by: all }}"),
            f64::from(rate),
            f64::from(burst),
        )
    });
    let named: Vec<(&str, &str)> = routes.iter().map(|(path, limit, ..)| (path.as_str(), limit.as_str())).collect();
    let all = gateways(4, &redis(&server), &named);
    let each: Vec<&Gateway> = all.iter().collect();
    std::thread::scope(|scope| {
        for (path, _, rate, burst) in &routes {
            let each = &each;
            scope.spawn(move || {
                let tally = load(each, &format!("/{path}"), (rate * 4.0).max(60.0), 3.0);
                let (passed, most) = (f64::from(tally.count(200)), most(&tally, *rate, *burst));
                assert_eq!(tally.count(200) + tally.count(429), tally.all(), "{path}: {:?}", tally.statuses);
                assert!(passed <= most, "{path}: {passed} passed of {most}");
                // A lease withheld at each of them, and a pause after each refusal.
                assert!(passed >= (most - burst) * 0.8 - 1.0, "{path}: {passed} passed of {most}");
            });
        }
    });
}

#[test]
fn a_first_burst_passes_whole_soon_after_the_gateways_have_met() {
    let server = Redis::start(&[]);
    let limits: Vec<(String, &str)> =
        ["strict", "lease"].map(|sync| (format!("{{ rate: 10/s, burst: 20, by: all, sync: {sync} }}"), sync)).into();
    let pair = "{ limits: [ { rate: 10/s, burst: 20 }, { rate: 1000/s, burst: 1000 } ], by: all }";
    let mut routes: Vec<(&str, &str)> = limits.iter().map(|(limit, sync)| (*sync, limit.as_str())).collect();
    routes.push(("pair", pair));
    let all = gateways(2, &redis(&server), &routes);
    // Longer than a bucket takes to fill, and shorter than a share of it does.
    std::thread::sleep(Duration::from_millis(2100));
    for (path, _) in routes {
        for number in 0..20 {
            let status = all[number % 2].get(&format!("/{path}")).send().status;
            // What lies at the other gateway is out of reach for a moment.
            assert!(status == 200 || path == "lease" && number > 14, "{path}: {number} is {status}");
        }
    }
}

/// Calls that the gateways have made to Redis.
fn calls(all: &[Gateway]) -> f64 {
    all.iter().filter_map(|gateway| gateway.metric("gateway_redis_calls_total{result=\"ok\"}")).sum()
}

#[test]
fn a_large_limit_holds_and_leases_ask_seldom() {
    let server = Redis::start(&[]);
    let limit = |sync: &str| format!("{{ rate: 1000/s, burst: 250, by: all, sync: {sync} }}");
    let (strict, lease) = (limit("strict"), limit("lease"));
    let routes = [("s1", strict.as_str()), ("s2", strict.as_str()), ("l1", lease.as_str()), ("l2", lease.as_str())];
    let all = gateways(2, &redis(&server), &routes);
    let each: Vec<&Gateway> = all.iter().collect();
    for (path, factor) in [("s1", 0.4), ("l1", 0.4), ("s2", 4.0), ("l2", 4.0)] {
        let before = calls(&all);
        let tally = load(&each, &format!("/{path}"), 1_000.0 * factor, if factor < 1.0 { 3.0 } else { 1.5 });
        let calls = (calls(&all) - before) / f64::from(tally.all());
        let (passed, most) = (f64::from(tally.count(200)), most(&tally, 1_000.0, 250.0));
        assert_eq!(tally.count(200) + tally.count(429), tally.all(), "{path}: {:?}", tally.statuses);
        assert!(passed <= most, "{path}: {passed} passed of {most}");
        if factor < 1.0 {
            assert_eq!(tally.count(429), 0, "{path}: {:?}", tally.statuses);
            assert!(path == "s1" || calls < 0.05, "{calls} calls for each request");
        }
    }
}

/// Every policy under load, on one gateway of two; something happens to Redis, and is over, meanwhile. The tallies of
/// `local_share`, `allow` and `deny`.
fn disturbed(sync: &str, harm: impl FnOnce(&mut Redis), heal: impl FnOnce(&mut Redis)) -> [Tally; 3] {
    let mut server = Redis::start(&[]);
    let routes = ["local_share", "allow", "deny"]
        .map(|policy| (policy, format!("{{ rate: 20/s, burst: 10, by: all, sync: {sync}, on_store_down: {policy} }}")));
    let routes = routes.each_ref().map(|(path, limit)| (*path, limit.as_str()));
    let url = format!("url: \"{}\", timeout: 60ms", server.url());
    let all = gateways(2, &url, &routes);
    let each: Vec<&Gateway> = all.iter().collect();
    let up = |value: f64| {
        eventually("redis is known to be there, or gone", || {
            all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(value))
        });
    };
    let tallies = std::thread::scope(|scope| {
        let loads = routes.map(|(path, _)| {
            let each = &each;
            scope.spawn(move || load(each, &format!("/{path}"), 80.0, 6.0))
        });
        std::thread::sleep(Duration::from_secs(1));
        harm(&mut server);
        up(0.0);
        std::thread::sleep(Duration::from_millis(1500));
        heal(&mut server);
        up(1.0);
        loads.map(|load| load.join().unwrap())
    });
    for gateway in &all {
        let said = gateway.errors();
        let told = |what: &str| said.lines().filter(|line| line.contains(what)).count();
        assert!((1..=3).contains(&told("redis: not available")), "each change is logged once: {said}");
        assert!((2..=4).contains(&told("redis: available")), "{said}");
    }
    tallies
}

/// What each policy promises.
fn keep_their_promises([share, allow, deny]: &[Tally; 3]) {
    // A bucket for the time with Redis, and one for that without.
    let most = most(share, 20.0, 2.0 * 10.0);
    assert_eq!(share.count(200) + share.count(429), share.all(), "{:?}", share.statuses);
    assert!(f64::from(share.count(200)) <= most, "{:?} of {most}", share.statuses);
    // Nobody is locked out: half of the rate at least.
    assert!(f64::from(share.count(200)) >= most / 2.0, "{:?} of {most}", share.statuses);
    assert_eq!(allow.count(200) + allow.count(429), allow.all(), "{:?}", allow.statuses);
    assert!(f64::from(allow.count(200)) > most + 40.0, "while nobody counts, all pass: {:?}", allow.statuses);
    assert_eq!(deny.count(200) + deny.count(429) + deny.count(503), deny.all(), "{:?}", deny.statuses);
    assert!(deny.count(503) > 50 && f64::from(deny.count(200)) < most, "{:?}", deny.statuses);
    for tally in [share, allow, deny] {
        // A request waits for one time limit (60 ms) at most, and only those few that find out; the rest is for a busy machine.
        assert!(tally.within(0.95) < Duration::from_millis(200), "{:?}", tally.within(0.95));
        assert!(tally.within(1.0) < Duration::from_secs(1), "{:?}", tally.within(1.0));
    }
}

#[test]
fn a_redis_that_is_killed_and_comes_back_empty() {
    keep_their_promises(&disturbed("lease", Redis::kill, Redis::restart));
}

#[test]
fn a_redis_that_is_killed_and_comes_back_empty_strict() {
    keep_their_promises(&disturbed("strict", Redis::kill, Redis::restart));
}

#[test]
fn a_redis_that_hangs_and_goes_on() {
    let (stop, go_on) =
        (|redis: &mut Redis| redis.signal(Signal::SIGSTOP), |redis: &mut Redis| redis.signal(Signal::SIGCONT));
    keep_their_promises(&disturbed("lease", stop, go_on));
}

#[test]
fn a_redis_that_hangs_and_goes_on_strict() {
    let (stop, go_on) =
        (|redis: &mut Redis| redis.signal(Signal::SIGSTOP), |redis: &mut Redis| redis.signal(Signal::SIGCONT));
    keep_their_promises(&disturbed("strict", stop, go_on));
}

#[test]
fn a_redis_that_begins_anew_at_once_gives_no_client_a_second_bucket() {
    let mut server = Redis::start(&[]);
    for sync in ["strict", "lease"] {
        let limit = format!("{{ rate: 1/m, burst: 20, by: all, sync: {sync} }}");
        let all = gateways(2, &redis(&server), &[(sync, &limit)]);
        let (each, path): (Vec<&Gateway>, _) = (all.iter().collect(), format!("/{sync}"));
        assert!((15..=20).contains(&load(&each, &path, 400.0, 0.3).count(200)), "{sync}");
        server.restart();
        // Nobody has asked meanwhile: the first to ask is told that the connection is gone, and counts alone. What is left of
        // a gateway's share may pass: the other one has let more pass than half.
        let alone = load(&each, &path, 400.0, 0.3).count(200);
        for gateway in &all {
            let begun_anew = || gateway.errors().matches("redis: available").count() > 1;
            eventually("redis is back", || gateway.metric("gateway_redis_up") == Some(1.0) && begun_anew());
        }
        let together = load(&each, &path, 400.0, 0.3).count(200);
        assert!(alone + together <= 11, "{sync}: {alone}, then {together} passed a second time");
    }
}

#[test]
fn nothing_needs_redis_to_begin() {
    let port = free_port();
    let limit = "{ rate: 1/m, burst: 4, by: all }";
    let mut gateway = Gateway::start(&yaml(&format!("url: \"redis://127.0.0.1:{port}\""), &[("r", limit)]));
    let mut check = Command::new(binary());
    let out = check.arg("-t").arg("-c").arg(gateway.path("tollgate.yaml")).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(load(&[&gateway], "/r", 100.0, 0.3).count(200), 4, "all gateways that are known are this one");
    gateway.admin("/health/ready").expect(200).says("\"redis\":\"down\"");
    let stats = gateway.admin("/gateway/stats").expect(200).json();
    assert_eq!(stats["redis"]["state"], "down");
    assert!(!stats["redis"]["reason"].as_str().unwrap().is_empty(), "{stats}");
    gateway.signal(Signal::SIGTERM);
    gateway.wait();
}

#[test]
fn every_key_in_redis_ends_and_names_nobody() {
    let server = Redis::start(&[]);
    let routes = ["strict", "lease"]
        .map(|sync| (sync, format!("{{ rate: 1/s, burst: 40, by: \"header:X-User\", sync: {sync} }}")));
    let routes = routes.each_ref().map(|(path, limit)| (*path, limit.as_str()));
    let all = gateways(1, &redis(&server), &routes);
    for (path, user) in [("/strict", "alice"), ("/lease", "alice"), ("/lease", "bob")] {
        for _ in 0..3 {
            all[0].get(path).header("X-User", user).expect(200);
        }
    }
    let keys = server.ask("KEYS *");
    let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with("tollgate:")).collect();
    assert_eq!(keys.len(), 4, "one for each client and limit, and the gateways: {keys:?}");
    for key in &keys {
        assert!(!key.contains("alice") && !key.contains("bob"), "{key}");
        let left = server.ask(&format!("PTTL {key}"));
        let left: i64 = left.lines().next().unwrap().trim_start_matches(':').parse().unwrap();
        assert!((1..=60_000).contains(&left), "{key} ends in {left} ms");
    }
    // One client's limits lie in one slot of a cluster.
    let slot = |key: &str| server.ask(&format!("CLUSTER KEYSLOT {key}"));
    let tags: Vec<&str> = keys.iter().filter_map(|key| Some(key.split_once('{')?.1.split_once('}')?.0)).collect();
    assert!(tags.iter().any(|tag| tags.iter().filter(|other| *other == tag).count() == 2), "{tags:?}");
    assert!(!slot(keys[0]).is_empty());
    assert!(server.ask("SCRIPT FLUSH").contains("OK"));
    all[0].get("/strict").header("X-User", "alice").expect(200).has("x-ratelimit-remaining", "36");
    // "number tokens until", of each node.
    let held = |key: &&&str| {
        let values = server.ask(&format!("HVALS {key}"));
        let mut tokens = values.lines().filter_map(|value| value.split(' ').nth(1)?.parse::<u32>().ok());
        tokens.any(|tokens| tokens > 0)
    };
    eventually("some is taken ahead", || {
        all[0].get("/lease").header("X-User", "bob").send();
        keys.iter().filter(held).count() > 0
    });
    eventually("what nobody uses goes back", || keys.iter().filter(held).count() == 0);
}

/// A gateway with this `redis:` counts in `server`, and nowhere else.
fn counts_in(server: &Redis, redis: &str, login: &str) {
    let limit = "{ rate: 1/m, burst: 3, by: all, sync: strict, on_store_down: deny }";
    let gateway = Gateway::start(&yaml(&format!("{redis}, {}", timeout()), &[("r", limit)]));
    eventually("redis is there", || gateway.metric("gateway_redis_up") == Some(1.0));
    assert_eq!(load(&[&gateway], "/r", 100.0, 0.2).count(200), 3, "{redis}: {}", gateway.errors());
    assert!(!gateway.errors().contains("hunter2"), "{}", gateway.errors());
    if !login.is_empty() {
        let keys = server.ask(&format!("{login}\r\nKEYS tollgate:*"));
        assert!(keys.lines().filter(|line| line.starts_with("tollgate:")).count() >= 2, "{keys}");
    }
}

#[test]
fn a_password_stands_in_a_file_or_in_the_url() {
    let server = Redis::start(&["--requirepass", "hunter2"]);
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "hunter2\n").unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let file = secret.path().display();
    counts_in(&server, &format!("url: \"{}\", password: {{ file: {file} }}", server.url()), "AUTH hunter2");
    server.ask("AUTH hunter2\r\nFLUSHALL");
    counts_in(&server, &format!("url: \"redis://:hunter2@127.0.0.1:{}\"", server.port), "AUTH hunter2");
    let limit = "{ rate: 1/m, burst: 3, by: all, sync: strict, on_store_down: deny }";
    let refused =
        Gateway::start(&yaml(&format!("url: \"redis://:hunter3@127.0.0.1:{}\"", server.port), &[("r", limit)]));
    let answer = refused.get("/r").expect(503).problem();
    assert_eq!(answer.json()["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    assert_eq!(answer.get("retry-after"), "1");
    assert!(refused.errors().contains("redis: not available") && !refused.errors().contains("hunter3"));
}

#[test]
fn a_cluster_counts() {
    // Else it wants the port ten thousand above its own.
    let server = Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()]);
    assert!(server.ask("CLUSTER ADDSLOTSRANGE 0 16383").contains("OK"));
    eventually("the cluster is complete", || server.ask("CLUSTER INFO").contains("cluster_state:ok"));
    counts_in(&server, &format!("cluster: [\"127.0.0.1:{}\"]", server.port), "CLUSTER INFO");
}

#[test]
fn sentinels_name_the_primary() {
    let (server, dir, port) = (Redis::start(&[]), tempfile::tempdir().unwrap(), free_port());
    let file = dir.path().join("sentinel.conf");
    fs::write(&file, format!("port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n", server.port))
        .unwrap();
    let mut sentinel = Command::new("redis-server");
    sentinel.arg(&file).arg("--sentinel").current_dir(dir.path()).stdout(std::process::Stdio::null());
    let mut sentinel = sentinel.spawn().unwrap();
    eventually("the sentinel listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    counts_in(&server, &format!("sentinel: {{ addresses: [\"127.0.0.1:{port}\"], name: main }}"), "PING");
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
}

#[test]
fn tls_checks_whom_it_talks_to() {
    let (certs, port) = (Certs::new(), free_port());
    certs.issue("redis", "redis", &["localhost"]);
    let (cert, key, ca) = (certs.path("redis.pem"), certs.path("redis.key"), certs.path("ca.pem"));
    let tls = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let server = Redis::start(&tls);
    counts_in(&server, &format!("url: \"rediss://localhost:{port}\", tls: {{ ca: {ca} }}"), "PING");
    let limit = "{ rate: 1/m, burst: 3, by: all, on_store_down: deny }";
    let other = Gateway::start(&yaml(&format!("url: \"rediss://localhost:{port}\""), &[("r", limit)]));
    other.get("/r").expect(503);
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let said = |yaml: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tollgate.yaml"), format!("listeners: [\"127.0.0.1:0\"]\n{yaml}")).unwrap();
        let mut check = Command::new(binary());
        let out =
            check.arg("-t").arg("-c").arg(dir.path().join("tollgate.yaml")).env("URL", "http://:hunter2@h").output();
        String::from_utf8(out.unwrap().stderr).unwrap()
    };
    let route = |limit: &str| {
        format!(
            "routes: [{{ match: {{ path: / }}, respond: {{ status: 200 }}, filters: [{{ rate_limit: {limit} }}] }}]\n"
        )
    };
    let text = said(&route("{ rate: 1/s, sync: strict }"));
    assert!(
        text.contains("rate_limit.sync: there is no 'redis' at the top of the file") && text.contains("1 problem"),
        "{text}"
    );
    let text = said(&route("{ rate: 1/s, on_store_down: allow }"));
    assert!(text.contains("rate_limit.on_store_down: has no effect"), "{text}");
    let strict = route("{ rate: 1/s, sync: strict }");
    for (redis, place) in [
        ("{}", "redis: say where it is"),
        ("{ url: \"${URL}\" }", "redis.url: this is no URL of a Redis"),
        ("{ url: \"redis://h\", timeout: 1m }", "redis.timeout: must be"),
        ("{ url: \"redis://h\", cluster: [a:1] }", "redis: say where it is"),
        ("{ sentinel: { addresses: [h], name: \"\" } }", "redis.sentinel.addresses[0]: 'h' is not a host with a port"),
        ("{ url: \"redis://h\", password: hunter2 }", "redis.password: a secret does not stand in the file"),
        ("{ url: \"unix:///r\", tls: {} }", "redis.tls: a socket of this machine"),
    ] {
        let text = said(&format!("redis: {redis}\n{strict}"));
        assert!(text.contains(place) && !text.contains("hunter2") && !text.contains("rate_limit"), "{redis}: {text}");
    }
    let text = said(&format!("redsi: {{ url: \"redis://h\" }}\n{strict}"));
    assert!(text.contains("did you mean 'redis'") && text.contains("1 problem"), "{text}");
}

#[test]
fn limits_verify_compares_what_passes_with_what_should() {
    let server = Redis::start(&[]);
    let limit = "{ rate: 20/s, burst: 40, by: \"header:X-Key\", sync: lease }";
    let all = gateways(
        2,
        &redis(&server),
        &[("shared", limit), ("apart", "{ rate: 20/s, burst: 40, by: all, sync: local }")],
    );
    let verify = |path: &str, more: &[&str]| {
        let urls = all.iter().map(|gateway| format!("http://127.0.0.1:{}/{path}", gateway.port));
        let mut command = Command::new(binary());
        let out = command.args(["limits", "verify", "--seconds", "1"]).args(more).args(urls).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, table, said) = verify("shared", &["-H", "X-Key: a"]);
    assert!(code == 0, "{table}{said}");
    assert!(table.starts_with("policy 'default': 40 per 2s, burst 40\n"), "{table}");
    let rows: Vec<Vec<&str>> = table.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    for row in rows {
        let number = |from_end: usize| -> i32 { row[row.len() - from_end].parse().unwrap() };
        let (sent, admitted, ideal) = (number(5), number(4), number(3));
        assert!(sent > admitted && (ideal - 12..=ideal + 1).contains(&admitted), "{table}");
    }
    // The loads that were asked for; under the limit nothing is refused.
    let (code, table, said) =
        verify("shared", &["--load", "0.5", "--load", "10", "--rate", "20/s", "--burst", "40", "-H", "X-Key: b"]);
    assert!(code == 0, "{table}{said}");
    let rows: Vec<&str> = table.lines().skip(4).collect();
    assert!(rows.len() == 2 && rows[0].starts_with("0.5 x rate") && rows[1].starts_with("10 x rate"), "{table}");
    let half: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(half[3..5], ["10", "10"], "{table}");
    let (code, _, said) = verify("shared", &["--load", "0"]);
    assert!(code == 2 && said.contains("a factor is a number from 0.01 to 1000"), "{said}");
    // Two that count apart let twice as much pass.
    let (code, table, said) = verify("apart", &[]);
    assert!(code == 1 && said.contains("more has passed than the limit says"), "{table}{said}");
    let (code, _, said) = verify("nowhere", &[]);
    assert!(code == 69 && said.contains("answers 404 without RateLimit-Policy"), "{said}");
    let (code, table, said) = verify("nowhere", &["--rate", "10/s"]);
    assert!(code == 69 && said.contains("nothing has passed, so the limit was not tried"), "{said}");
    assert!(table.contains("other answers: ") && table.contains(" with 404\n"), "{table}");
    let (code, _, said) = verify("nowhere", &["--rate", "1/h", "-H", "X-Key"]);
    assert!(code == 69 && said.contains("a field is written like"), "{said}");
}
