//! Signed requests to several gateways that share a Redis.

use nix::sys::signal::Signal;

use crate::auth::now;
use crate::{
    config_errors::check,
    harness::{Gateway, Origin, Redis, eventually},
    hmac::{SECRET, Signed, secret, simple},
};

/// Two gateways with the same file, both of which reach `redis`.
fn gateways(origin: &Origin, redis: &Redis, more: &str) -> (Vec<Gateway>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let yaml = format!(
        "redis: {{ url: \"{}\", timeout: 500ms }}\nservices: {{ main: {{ urls: ['{}'] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters:\n      - hmac: {{ simple_header: X-Signature, keys: [ {{ id: k1, secrets: [ {{ file: {} }} ] }} ] {more} }}\n",
        redis.url(),
        origin.url(),
        secret(&dir, "secret", SECRET)
    );
    let all: Vec<Gateway> = (0..2).map(|_| Gateway::start(&yaml)).collect();
    for gateway in &all {
        eventually("redis is there", || gateway.metric("gateway_redis_up") == Some(1.0));
    }
    (all, dir)
}

fn is_replay(gateway: &Gateway, (status, answer): &(u16, String)) {
    assert_eq!(*status, 401, "{answer}");
    assert_eq!(gateway.line_of(answer)["reason"], "signature_replayed");
}

#[test]
fn what_was_used_at_one_gateway_is_used_at_the_other() {
    let (origin, redis) = (Origin::start("o"), Redis::start(&[]));
    let (all, _dir) = gateways(&origin, &redis, "");
    let get = Signed::new("GET", "/a").sign();
    assert_eq!(get.send(&all[0], false).0, 200);
    is_replay(&all[1], &get.send(&all[1], false));
    is_replay(&all[0], &get.send(&all[0], false));
    let field = simple(now(), "GET", "/x", "");
    all[1].get("/x").header("X-Signature", &field).expect(200);
    all[0].get("/x").header("X-Signature", &field).expect(401);
    let keys = redis.ask("KEYS tollgate:*:nonce");
    assert_eq!(keys.matches(":nonce").count(), 2, "{keys}");
    assert!(!keys.contains("nonce-0"), "a key names nobody's nonce: {keys}");
    for key in keys.lines().filter(|line| line.starts_with("tollgate:")) {
        let left: i64 = redis.ask(&format!("TTL {key}")).lines().next().unwrap()[1..].parse().unwrap();
        assert!((590..=601).contains(&left), "twice the longest max_age that any gateway may have: {left}");
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn local_nonces_belong_to_one_gateway() {
    let (origin, redis) = (Origin::start("o"), Redis::start(&[]));
    let (all, _dir) = gateways(&origin, &redis, ", sync: local");
    let get = Signed::new("GET", "/a").sign();
    assert_eq!((get.send(&all[0], false).0, get.send(&all[1], false).0), (200, 200));
    is_replay(&all[0], &get.send(&all[0], false));
}

#[test]
fn without_redis_each_gateway_remembers_or_nothing_passes() {
    for (policy, status) in [("local", 200), ("deny", 503)] {
        let (origin, mut redis) = (Origin::start("o"), Redis::start(&[]));
        let (all, _dir) = gateways(&origin, &redis, &format!(", on_store_down: {policy}"));
        let before = Signed::new("GET", "/a").sign();
        assert_eq!(before.send(&all[0], false).0, 200);
        redis.kill();
        eventually("redis is gone", || all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(0.0)));
        let new = Signed::new("GET", "/b").sign();
        let answer = new.send(&all[0], false);
        assert_eq!(answer.0, status, "{policy}: {}", answer.1);
        let metric = format!("gateway_nonces_without_store_total{{policy=\"{policy}\"}}");
        assert!(all[0].metric(&metric) >= Some(1.0), "{policy}");
        if policy == "local" {
            is_replay(&all[0], &new.send(&all[0], false));
            is_replay(&all[0], &before.send(&all[0], false));
        } else {
            assert_eq!(all[0].line_of(&answer.1)["reason"], "nonce_store_down");
            assert!(answer.1.contains("sign the request anew"), "{}", answer.1);
        }
        // It comes back empty: what a gateway has seen by itself it still knows.
        redis.restart();
        eventually("redis is back", || all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(1.0)));
        is_replay(&all[0], &before.send(&all[0], false));
        assert_eq!(Signed::new("GET", "/c").sign().send(&all[1], false).0, 200);
    }
}

#[test]
fn what_a_gateway_takes_while_redis_hangs_is_told_to_the_others_afterwards() {
    let (origin, redis) = (Origin::start("o"), Redis::start(&[]));
    let (all, _dir) = gateways(&origin, &redis, "");
    redis.signal(Signal::SIGSTOP);
    eventually("redis is gone", || all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(0.0)));
    let signed: Vec<Signed> = (0..200).map(|_| Signed::new("GET", "/a").sign()).collect();
    for one in &signed {
        assert_eq!(one.send(&all[0], false).0, 200);
    }
    redis.signal(Signal::SIGCONT);
    eventually("redis is back", || all.iter().all(|gateway| gateway.metric("gateway_redis_up") == Some(1.0)));
    for one in &signed {
        is_replay(&all[1], &one.send(&all[1], false));
    }
}

#[test]
fn a_request_without_room_for_its_nonce_has_not_used_it_up() {
    let (origin, redis) = (Origin::start("o"), Redis::start(&[]));
    let (all, _dir) = gateways(&origin, &redis, ", nonces: 1");
    assert_eq!(Signed::new("GET", "/a").sign().send(&all[0], false).0, 200);
    let next = Signed::new("GET", "/b").sign();
    let refused = next.send(&all[0], false);
    assert_eq!(all[0].line_of(&refused.1)["reason"], "nonces_full");
    assert_eq!(next.send(&all[1], false).0, 200, "the other one has room");
}

#[test]
fn what_was_used_elsewhere_takes_no_room() {
    let (origin, redis) = (Origin::start("o"), Redis::start(&[]));
    let (all, _dir) = gateways(&origin, &redis, ", nonces: 3");
    for _ in 0..3 {
        let one = Signed::new("GET", "/a").sign();
        assert_eq!(one.send(&all[0], false).0, 200);
        is_replay(&all[1], &one.send(&all[1], false));
    }
    assert_eq!(Signed::new("GET", "/b").sign().send(&all[1], false).0, 200);
}

#[test]
fn settings_without_redis_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret(&dir, "secret", SECRET);
    for (more, place) in [(", sync: strict", "hmac.sync"), (", on_store_down: deny", "hmac.on_store_down")] {
        let said = check(&format!(
            "listeners: [ {{ address: 127.0.0.1:8080 }} ]\nroutes:\n  - match: {{ path: /* }}\n    respond: {{ body: a }}\n    filters:\n      - hmac: {{ keys: [ {{ id: k1, secrets: [ {{ file: {file} }} ] }} ] {more} }}\n"
        ));
        assert!(said.1.contains(place), "{said:?}");
    }
}
