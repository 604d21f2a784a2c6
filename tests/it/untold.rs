//! Purges that come while the Redis that gateways share hangs.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    cache::Backend,
    harness::{Gateway, Redis, Request, eventually},
    purge::purged,
};

fn gateway(backend: &Backend, redis: &Redis) -> Gateway {
    let gateway = Gateway::start(&format!(
        "redis: {{ url: \"{}\" }}\ncache: {{ redis: {{}} }}\nservices: {{ main: {{ urls: ['http://{}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n",
        redis.url(),
        backend.address
    ));
    up(&gateway, 1.0);
    gateway
}

fn up(gateway: &Gateway, value: f64) {
    eventually("the store is there, or gone", || gateway.metric("gateway_cache_redis_up") == Some(value));
}

fn get(gateway: &Gateway, path: &str) -> String {
    gateway.get(path).header("Host", "api.example").expect(200).body
}

/// The words of processes that there are.
fn words(gateway: &Gateway) -> Vec<PathBuf> {
    let all = std::fs::read_dir(gateway.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().contains(".untold.")).collect()
}

const FRESH: &str = "h=Cache-Control:max-age=100";

#[test]
fn the_word_is_there_before_a_purge_is_answered() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let (mut one, other) = (gateway(&backend, &redis), gateway(&backend, &redis));
    let path = format!("/p?{FRESH}&b=n");
    let old = get(&one, &path);
    let wrote = || one.metric("gateway_cache_redis_writes_total{result=\"ok\"}");
    eventually("the answer is written", || wrote() == Some(1.0));
    assert_eq!(get(&other, &path), old);
    redis.signal(Signal::SIGSTOP);
    // Now it waits for an answer, and does so for two seconds.
    std::thread::sleep(Duration::from_millis(1300));
    let begun = Instant::now();
    let what = serde_json::json!({ "url": format!("http://api.example{path}") });
    assert_eq!(purged(&one, &what), 1);
    one.signal(Signal::SIGKILL);
    one.wait();
    assert!(begun.elapsed() < Duration::from_millis(900), "nobody waits for redis: {:?}", begun.elapsed());
    assert_eq!(words(&one).len(), 1);
    redis.signal(Signal::SIGCONT);
    one.start_again();
    up(&one, 1.0);
    assert_ne!(get(&one, &path), old);
    eventually("the other has heard of it", || get(&other, &path) != old);
    eventually("the word is gone", || words(&one).is_empty());
}

#[test]
fn what_a_leaving_process_could_tell_nobody_empties_its_successor_s_memory() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let mut gateway = gateway(&backend, &redis);
    let path = format!("/p?{FRESH}&b=n&hold");
    let (port, target) = (gateway.port, path.clone());
    let post = std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}{target}");
        Request::new("POST", url).header("Host", "api.example").send().status
    });
    eventually("the backend has it", || backend.asked() == 1);
    let mut before = gateway.upgrade();
    eventually("the successor serves", || gateway.errors().matches("listening on").count() > 1);
    up(&gateway, 1.0);
    // Kept by the successor. What was changed is not in the word: it stands for everything.
    let quick = path.replace("&hold", "");
    let old = get(&gateway, &quick);
    redis.signal(Signal::SIGSTOP);
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    eventually("the old one has left", || before.try_wait().unwrap().is_some());
    up(&gateway, 0.0);
    eventually("what was kept meanwhile is gone", || get(&gateway, &quick) != old);
    redis.signal(Signal::SIGCONT);
    up(&gateway, 1.0);
    eventually("the word is gone", || words(&gateway).is_empty());
}

#[test]
fn a_word_that_somebody_deletes_is_written_again() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let gateway = gateway(&backend, &redis);
    let all = serde_json::json!({ "all": true });
    for _ in 0..2 {
        redis.signal(Signal::SIGSTOP);
        up(&gateway, 0.0);
        purged(&gateway, &all);
        eventually("there is a word", || words(&gateway).len() == 1);
        for word in words(&gateway) {
            std::fs::remove_file(word).unwrap();
        }
        eventually("there is one again", || words(&gateway).len() == 1);
        for word in words(&gateway) {
            std::fs::remove_file(word).unwrap();
        }
        redis.signal(Signal::SIGCONT);
        up(&gateway, 1.0);
        eventually("it is gone", || words(&gateway).is_empty());
    }
}
