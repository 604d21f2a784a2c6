//! What gateways remember of a shared limit when Redis goes, when other gateways come, and when a key in Redis is broken.

use std::{fs, process::Command, time::Duration};

use nix::sys::signal::Signal;

use super::cluster::{gateways, redis, yaml};
use crate::harness::{Gateway, Redis, binary, eventually};

/// Sends so many requests; how many passed.
fn passed(gateway: &Gateway, path: &str, count: u32) -> usize {
    (0..count).filter(|_| gateway.get(path).send().status == 200).count()
}

fn is_up(gateway: &Gateway, up: f64) {
    eventually("redis is known to be there, or gone", || gateway.metric("gateway_redis_up") == Some(up));
}

#[test]
fn a_long_outage_lets_one_more_burst_pass_and_no_second_one() {
    let mut server = Redis::start(&[]);
    let limit = "{ rate: 1/h, burst: 20, by: all }";
    let all = gateways(2, &redis(&server), &[("r", limit)]);
    let (a, b) = (&all[0], &all[1]);
    assert_eq!(passed(b, "/r", 25), 20);
    server.kill();
    is_up(a, 0.0);
    is_up(b, 0.0);
    assert_eq!((passed(a, "/r", 25), passed(b, "/r", 25)), (10, 0));
    // Longer than a gateway that does not announce itself counts.
    std::thread::sleep(Duration::from_millis(5_500));
    // Only to fix who comes first.
    a.signal(Signal::SIGSTOP);
    server.restart();
    is_up(b, 1.0);
    let of_b = passed(b, "/r", 25);
    a.signal(Signal::SIGCONT);
    is_up(a, 1.0);
    let of_a = passed(a, "/r", 25);
    assert!(20 + 10 + of_b + of_a <= 2 * 20, "{of_b} at the second gateway, {of_a} at the first: {}", b.errors());
}

#[test]
fn another_gateway_makes_no_client_s_bucket_full_again() {
    let mut server = Redis::start(&[]);
    let routes = [("r", "{ rate: 1/h, burst: 20, by: all, sync: strict }")];
    let first = gateways(1, &redis(&server), &routes).remove(0);
    assert_eq!(passed(&first, "/r", 25), 20);
    let _second = Gateway::start(&yaml(&redis(&server), &routes));
    eventually("they know of one another", || first.metric("gateway_redis_gateways") == Some(2.0));
    server.restart();
    let meanwhile = passed(&first, "/r", 25);
    eventually("redis is back", || first.errors().matches("redis: available").count() > 1);
    is_up(&first, 1.0);
    assert_eq!((meanwhile, passed(&first, "/r", 25)), (0, 0));
}

#[test]
fn what_lay_idle_at_another_gateway_passes_here_when_it_is_back() {
    let server = Redis::start(&[]);
    let all = gateways(2, &redis(&server), &[("r", "{ rate: 1/h, burst: 100, by: all }")]);
    let (a, b) = (&all[0], &all[1]);
    let mut count = passed(a, "/r", 40);
    assert_eq!(count, 40);
    let mut waits = Vec::new();
    eventually("all of the bucket has passed", || {
        let answer = b.get("/r").send();
        if answer.status == 200 {
            count += 1;
        } else if count < 100 {
            waits.push(answer.get("retry-after").parse::<u32>().unwrap());
        }
        count == 100
    });
    assert!(
        waits.iter().all(|wait| *wait <= 5),
        "tokens that may come back are no reason to send away for long: {waits:?}"
    );
    let refused = b.get("/r").expect(429);
    assert!(refused.get("retry-after").parse::<u32>().unwrap() <= 3_600);
    eventually("nothing is left anywhere", || {
        b.get("/r").expect(429).get("retry-after").parse::<u32>().unwrap() > 3_000
    });
}

#[test]
fn one_broken_key_in_redis_concerns_one_client() {
    let server = Redis::start(&[]);
    let limit =
        |sync: &str| format!("{{ rate: 1/h, burst: 6, by: \"header:X-User\", sync: {sync}, on_store_down: deny }}");
    let (strict, lease) = (limit("strict"), limit("lease"));
    let all = gateways(1, &redis(&server), &[("strict", strict.as_str()), ("lease", lease.as_str())]);
    for path in ["/strict", "/lease"] {
        let ask = |user: &str| all[0].get(path).header("X-User", user).send().status;
        assert_eq!(ask("good"), 200);
        let before = server.ask("KEYS tollgate:*");
        assert_eq!(ask("bad"), 200);
        let after = server.ask("KEYS tollgate:*");
        let mut names = after.lines().filter(|line| line.starts_with("tollgate:"));
        let key = names.find(|name| !before.contains(*name)).unwrap();
        // What it has taken ahead is spent, and it asks.
        let mut turn = 0;
        eventually("the key is of another kind", || {
            turn += 1;
            server.ask(&format!("DEL {key}"));
            server.ask(&format!("SET {key} x")).contains("OK") && ask("bad") == 503
        });
        for _ in 0..5 {
            assert_eq!(ask("bad"), 503, "{path}: {turn}");
        }
        assert_eq!(all[0].metric("gateway_redis_up"), Some(1.0), "{path}");
        assert_eq!(ask("good"), 200, "{path}");
        server.ask(&format!("DEL {key}"));
        eventually("it counts again", || ask("bad") == 200);
    }
    let said = all[0].errors();
    assert!(!said.contains("redis: not available"), "{said}");
    assert_eq!(said.matches("WRONGTYPE").count(), 1, "{said}");
    assert!(said.contains("DEL tollgate:{"), "it says the way out: {said}");
}

#[test]
fn a_login_where_none_can_be_is_told_and_its_password_is_not() {
    let check = |redis: &str| {
        let dir = tempfile::tempdir().unwrap();
        let limit = "{ rate: 1/s }";
        let text = format!("listeners: [\"127.0.0.1:0\"]\n{}", yaml(redis, &[("r", limit)]));
        fs::write(dir.path().join("tollgate.yaml"), text).unwrap();
        let mut check = Command::new(binary());
        let out = check.arg("-t").arg("-c").arg(dir.path().join("tollgate.yaml")).output().unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    for (redis, says) in [
        ("sentinel: { addresses: [\"u:hunter2@h:1\"], name: m }", "sentinel.addresses[0]: a login does not stand here"),
        ("cluster: [\"u:hunter2@h:1\"]", "cluster[0]: a login does not stand here"),
        ("url: \"redis://h\", username: tollgate", "redis.username: a user without a password"),
        ("url: \"redis://tollgate@h\"", "redis.url: a user without a password"),
        ("url: \"redis://h/-1\"", "redis.url: the database"),
    ] {
        let (good, said) = check(redis);
        assert!(!good && said.contains(says) && !said.contains("hunter2"), "{redis}: {said}");
    }
    for url in ["http://u:hunter2@127.0.0.1:1/", "ftp://u:hunter2@h/"] {
        let out = Command::new(binary()).args(["limits", "verify", url]).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains("URL") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let server = Redis::start(&[]);
    let gateway = Gateway::start(&yaml(&format!("url: \"{}/99\"", server.url()), &[("r", "{ rate: 1/s }")]));
    eventually("it says why", || gateway.errors().contains("redis: not available"));
    assert!(gateway.errors().contains("DB index is out of range"), "{}", gateway.errors());
}
