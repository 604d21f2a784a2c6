//! Answers that gateways keep together, in a real Redis.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    auth::sha256,
    cache::Backend,
    config_errors::check,
    harness::{Answer, Gateway, Redis, Request, eventually, raw_backend, read_head},
};

fn yaml(backend: &Backend, redis: &Redis) -> String {
    format!(
        "redis: {{ url: \"{}\" }}\ncache: {{ redis: {{ timeout: 500ms }} }}\napi_keys: [ {{ id: k1, sha256: {} }} ]\nservices: {{ main: {{ urls: ['http://{}'] }} }}\nroutes:\n  - {{ match: {{ path: /own }}, service: main, filters: [api_key], cache: {{}} }}\n  - {{ match: {{ path: /* }}, service: main, cache: {{}} }}\n",
        redis.url(),
        sha256("key-1"),
        backend.address
    )
}

/// So many gateways with the same file, all of which reach the store.
fn gateways(count: usize, backend: &Backend, redis: &Redis) -> Vec<Gateway> {
    let all: Vec<Gateway> = (0..count).map(|_| Gateway::start(&yaml(backend, redis))).collect();
    for gateway in &all {
        up(gateway, 1.0);
    }
    all
}

fn up(gateway: &Gateway, value: f64) {
    eventually("the store is there, or gone", || gateway.metric("gateway_cache_redis_up") == Some(value));
}

/// The same `Host` at each of them: it is part of the key.
fn get(gateway: &Gateway, path: &str) -> Answer {
    gateway.get(path).header("Host", "api.example").send()
}

fn word(answer: &Answer) -> &str {
    answer.get("x-cache")
}

/// Asks until everything that was to be written has been.
fn kept(gateway: &Gateway, writes: f64) {
    let wrote = || gateway.metric("gateway_cache_redis_writes_total{result=\"ok\"}");
    eventually("the answer is written", || wrote() >= Some(writes));
}

fn purge(gateway: &Gateway, body: &str) {
    let url = format!("http://127.0.0.1:{}/api/v1/cache/purge", gateway.admin);
    let request = Request::new("POST", url).header("Content-Type", "application/json");
    request.body(body.as_bytes()).expect(200);
}

const FRESH: &str = "h=Cache-Control:max-age=100";

#[test]
fn what_one_has_fetched_the_others_need_not() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = format!("/a?{FRESH}&h=Age:40&h=X-Odd:caf%C3%A9&h=ETag:%22e%22&b=text");
    let first = get(&all[0], &path);
    assert_eq!(word(&first), "MISS");
    kept(&all[0], 1.0);
    let second = get(&all[1], &path);
    assert_eq!((word(&second), &second.body, backend.asked()), ("HIT", &first.body, 1));
    let age: u32 = second.get("age").parse().unwrap();
    assert!((40..45).contains(&age), "{age}");
    assert_eq!(second.get("etag"), "\"e\"");
    // One that begins anew has it, too; and what it has in memory it does not look for.
    let third = Gateway::start(&yaml(&backend, &redis));
    up(&third, 1.0);
    assert_eq!((word(&get(&third, &path)), word(&get(&third, &path)), backend.asked()), ("HIT", "HIT", 1));
    assert_eq!(third.metric("gateway_cache_redis_reads_total{result=\"hit\"}"), Some(1.0));
    third.admin("/api/v1/cache").expect(200).says("\"redis\":\"up\"");
}

#[test]
fn whoever_comes_later_is_given_what_was_not_purged() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(1, &backend, &redis);
    let paths = ["a", "b"].map(|name| format!("/{name}?{FRESH}"));
    for path in &paths {
        assert_eq!(word(&get(&all[0], path)), "MISS");
    }
    kept(&all[0], 2.0);
    purge(&all[0], r#"{ "url": "http://api.example/elsewhere" }"#);
    purge(&all[0], &format!(r#"{{ "url": "http://api.example{}" }}"#, paths[1]));
    eventually("others are told", || redis.ask("HGET tollgate:{cache}:state number").contains('2'));
    let later = gateways(1, &backend, &redis);
    assert_eq!([0, 1].map(|at: usize| word(&get(&later[0], &paths[at])).to_owned()), ["HIT", "MISS"]);
}

#[test]
fn variants_are_kept_apart_and_nothing_of_a_request_is_in_a_name() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = format!("/secret-path?{FRESH}&h=Vary:X-Tenant,X-Lang&e=x-tenant");
    let ask = |gateway: &Gateway, tenant: &str| {
        gateway.get(&path).header("Host", "api.example").header("X-Tenant", tenant).send()
    };
    for (i, tenant) in ["red-tenant", "blue-tenant"].iter().enumerate() {
        assert!(ask(&all[0], tenant).body.contains(tenant));
        kept(&all[0], f64::from(u8::try_from(i + 1).unwrap()));
    }
    for tenant in ["red-tenant", "blue-tenant"] {
        let answer = ask(&all[1], tenant);
        assert!(word(&answer) == "HIT" && answer.body.contains(tenant), "{answer:?}");
    }
    assert_eq!(word(&ask(&all[1], "green")), "MISS");
    let keys = redis.ask("KEYS *");
    for text in ["secret-path", "api.example", "red-tenant"] {
        assert!(!keys.contains(text), "{keys}");
    }
    for key in keys.lines().filter(|line| line.ends_with(":answer")) {
        assert!(!redis.ask(&format!("TTL {key}")).starts_with(":-1"), "{key} has no end");
        assert!(!redis.ask(&format!("HKEYS {key}")).contains("red-tenant"), "{key}");
    }
}

#[test]
fn what_is_one_clients_own_or_of_no_use_to_others_stays_here() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let own = |gateway: &Gateway| {
        let path = format!("/own?{FRESH}");
        gateway.get(&path).header("Host", "api.example").header("X-API-Key", "key-1").send()
    };
    assert_eq!((word(&own(&all[0])), word(&own(&all[0]))), ("MISS", "HIT"));
    assert_eq!(word(&get(&all[0], "/n?h=Cache-Control:no-cache&h=ETag:%22same%22")), "MISS");
    // One that is kept, so that the others would have been.
    assert_eq!(word(&get(&all[0], &format!("/last?{FRESH}"))), "MISS");
    kept(&all[0], 1.0);
    assert_eq!(word(&own(&all[1])), "MISS");
    assert_eq!(redis.ask("KEYS *:answer").matches(":answer").count(), 1);
}

#[test]
fn a_purge_reaches_all_of_them() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(3, &backend, &redis);
    let path = |n: usize| format!("/p{n}?{FRESH}&h=Surrogate-Key:t{n}&b=n");
    let purges: [&dyn Fn(); 4] = [
        &|| purge(&all[0], "{\"tag\": \"t0\"}"),
        &|| purge(&all[0], "{\"prefix\": \"http://api.example/p1\"}"),
        &|| drop(all[0].request("POST", &path(2)).header("Host", "api.example").send()),
        &|| purge(&all[0], "{\"all\": true, \"soft\": true}"),
    ];
    let mut written = 0.0;
    for (n, act) in purges.iter().enumerate() {
        let path = path(n);
        let before = get(&all[0], &path).body;
        written += 1.0;
        kept(&all[0], written);
        assert_eq!(get(&all[1], &path).body, before, "{n}");
        act();
        assert_ne!(get(&all[0], &path).body, before, "{n}: at once where it was asked for");
        written += 1.0;
        eventually("the other has heard of it", || get(&all[1], &path).body != before);
        // One that has never had it in memory looks in the store.
        assert_ne!(get(&all[2], &path).body, before, "{n}");
    }
}

#[test]
fn a_purge_is_told_when_the_store_is_back() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = format!("/p?{FRESH}&b=n");
    let before = get(&all[0], &path).body;
    kept(&all[0], 1.0);
    assert_eq!(get(&all[1], &path).body, before);
    redis.signal(Signal::SIGSTOP);
    for gateway in &all {
        up(gateway, 0.0);
    }
    purge(&all[0], "{\"all\": true}");
    assert_ne!(get(&all[0], &path).body, before);
    redis.signal(Signal::SIGCONT);
    for gateway in &all {
        up(gateway, 1.0);
    }
    eventually("the other has heard of it", || get(&all[1], &path).body != before);
    let late = Gateway::start(&yaml(&backend, &redis));
    up(&late, 1.0);
    assert_ne!(get(&late, &path).body, before, "what is in the store is not given");
}

#[test]
fn a_purge_that_nobody_was_told_of_outlives_its_process() {
    for how in ["-u", "SIGTERM", "SIGKILL"] {
        let (backend, redis) = (Backend::start(), Redis::start(&[]));
        let mut all = gateways(2, &backend, &redis);
        let path = format!("/p?{FRESH}&b=n");
        let before = get(&all[0], &path).body;
        kept(&all[0], 1.0);
        assert_eq!(get(&all[1], &path).body, before);
        redis.signal(Signal::SIGSTOP);
        purge(&all[0], "{\"url\": \"/p\"}");
        purge(&all[0], &format!("{{\"url\": \"http://api.example{path}\"}}"));
        // It is written at once, though Redis has not been found out to be gone.
        std::thread::sleep(Duration::from_millis(500));
        let gone = &mut all[0];
        if how == "-u" {
            let mut old = gone.upgrade();
            eventually("the old one has left", || old.try_wait().unwrap().is_some());
        } else {
            gone.signal(if how == "SIGTERM" { Signal::SIGTERM } else { Signal::SIGKILL });
            gone.wait();
            gone.start_again();
        }
        redis.signal(Signal::SIGCONT);
        for gateway in &all {
            up(gateway, 1.0);
        }
        assert_ne!(get(&all[0], &path).body, before, "{how}");
        eventually("the other has heard of it", || get(&all[1], &path).body != before);
        let files = || std::fs::read_dir(all[0].dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(all[0].errors().matches("has left purges").count(), 1, "{how}");
        eventually("the word is gone", || !files().any(|name| name.to_string_lossy().contains("untold")));
    }
}

#[test]
fn requests_do_without_a_store_that_is_gone_or_hangs() {
    let (backend, mut redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(1, &backend, &redis);
    let path = |n: u32| format!("/{n}?{FRESH}");
    assert_eq!(word(&get(&all[0], &path(0))), "MISS");
    kept(&all[0], 1.0);
    redis.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    for n in 1..20 {
        assert_eq!((word(&get(&all[0], &path(n))), word(&get(&all[0], &path(n)))), ("MISS", "HIT"));
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "only the first ones wait: {:?}", begun.elapsed());
    redis.signal(Signal::SIGCONT);
    redis.kill();
    up(&all[0], 0.0);
    assert_eq!(word(&get(&all[0], &path(30))), "MISS");
    redis.restart();
    up(&all[0], 1.0);
    assert_eq!(word(&get(&all[0], &path(31))), "MISS");
    kept(&all[0], 2.0);
    let other = Gateway::start(&yaml(&backend, &redis));
    up(&other, 1.0);
    assert_eq!(word(&get(&other, &path(31))), "HIT", "{}", other.errors());
}

#[test]
fn rubbish_in_the_store_is_no_answer() {
    for harm in ["SET {key} x", "HSET {key} entry: x", "HSET {key} vary *", "HSET {key} time: x"] {
        let (backend, redis) = (Backend::start(), Redis::start(&[]));
        let all = gateways(2, &backend, &redis);
        let path = format!("/a?{FRESH}");
        get(&all[0], &path);
        kept(&all[0], 1.0);
        let keys = redis.ask("KEYS *:answer");
        redis.ask(&harm.replace("{key}", keys.lines().find(|line| line.starts_with("tollgate:")).unwrap()));
        assert_eq!(word(&get(&all[1], &path)), "MISS", "{harm}");
        assert_eq!(all[1].metric("gateway_cache_redis_up"), Some(1.0), "{harm}");
    }
}

#[test]
fn a_redis_that_has_gone_back_in_time_takes_no_purge_back() {
    let (backend, mut redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let [one, two] = ["one", "two"].map(|name| format!("/{name}?{FRESH}&b=n"));
    let olds = [&one, &two].map(|path| get(&all[0], path).body);
    kept(&all[0], 2.0);
    assert_eq!([&one, &two].map(|path| get(&all[1], path).body), olds);
    redis.ask("SAVE");
    purge(&all[0], "{\"url\": \"/one\"}");
    purge(&all[0], &format!("{{\"url\": \"{one}\"}}"));
    eventually("the other has heard of it", || get(&all[1], &one).body != olds[0]);
    redis.kill();
    for gateway in &all {
        up(gateway, 0.0);
    }
    // One that is told to nobody before the store is back, as it was before the other.
    purge(&all[0], &format!("{{\"url\": \"{two}\"}}"));
    redis.restart();
    for gateway in &all {
        up(gateway, 1.0);
    }
    assert!(redis.ask("KEYS *:answer").contains(":answer"), "it has what was saved");
    for gateway in &all {
        assert!(get(gateway, &one).body != olds[0] && get(gateway, &two).body != olds[1]);
    }
    assert!(all[1].errors().contains("redis has begun anew"), "{}", all[1].errors());
}

#[test]
fn a_full_redis_still_tells_of_purges() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = format!("/p?{FRESH}&b=n");
    let old = get(&all[0], &path).body;
    kept(&all[0], 1.0);
    assert_eq!(get(&all[1], &path).body, old);
    redis.ask("CONFIG SET maxmemory-policy noeviction");
    redis.ask("CONFIG SET maxmemory 1");
    assert!(redis.ask("SET a b").contains("OOM"));
    purge(&all[1], "{\"all\": true}");
    eventually("the other has heard of it", || get(&all[0], &path).body != old);
}

#[test]
fn gateways_with_other_rules_for_queries_hear_of_what_requests_change() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let plain = Gateway::start(&yaml(&backend, &redis));
    let ruled = Gateway::start(&yaml(&backend, &redis).replace(
        "path: /* }, service: main, cache: {}",
        "path: /* }, service: main, cache: { query: { exclude: [utm] } }",
    ));
    for gateway in [&plain, &ruled] {
        up(gateway, 1.0);
    }
    let path = format!("/q?{FRESH}&b=n");
    let old = get(&ruled, &path).body;
    assert_eq!(get(&ruled, &format!("{path}&utm=1")).body, old);
    plain.request("POST", &format!("{path}&utm=2")).header("Host", "api.example").expect(200);
    eventually("the other has heard of it", || get(&ruled, &path).body != old);
}

#[test]
fn what_a_backend_has_taken_back_does_not_return_from_the_store() {
    for (what, later) in [
        ("no-store", "Cache-Control: no-store\r\n"),
        ("another one", "Cache-Control: max-age=100\r\nETag: \"two\"\r\n"),
    ] {
        let redis = Redis::start(&[]);
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let address = raw_backend(move |mut stream| {
            loop {
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                let first = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
                let now = "Cache-Control: max-age=1, stale-while-revalidate=100\r\nETag: \"one\"\r\n";
                let body = if head.starts_with("HEAD") {
                    ""
                } else if first {
                    "old"
                } else {
                    "new"
                };
                let fields = if first { now } else { later };
                if write!(stream, "HTTP/1.1 200 OK\r\n{fields}Content-Length: 3\r\n\r\n{body}").is_err() {
                    return;
                }
            }
        });
        let gateway = Gateway::start(&format!(
            "redis: {{ url: \"{}\" }}\ncache: {{ redis: {{}} }}\nservices: {{ main: {{ urls: ['http://{address}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n",
            redis.url()
        ));
        up(&gateway, 1.0);
        assert_eq!(get(&gateway, "/w").body, "old");
        kept(&gateway, 1.0);
        if what == "another one" {
            gateway.request("HEAD", "/w").header("Host", "api.example").header("Cache-Control", "no-cache").expect(200);
            assert_eq!(get(&gateway, "/w").body, "new", "the old one is not in the store either");
        } else {
            eventually("it is stale", || word(&get(&gateway, "/w")) == "STALE");
            eventually("a new one was fetched", || asked.load(std::sync::atomic::Ordering::SeqCst) >= 2);
            eventually("and not kept", || get(&gateway, "/w").body == "new");
            assert_eq!(get(&gateway, "/w").body, "new");
        }
    }
}

#[test]
fn what_a_leaving_process_changes_reaches_its_successor() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let mut gateway = Gateway::start(&yaml(&backend, &redis));
    up(&gateway, 1.0);
    let path = format!("/p?{FRESH}&b=n&d=2500");
    let (port, target) = (gateway.port, path.clone());
    let post = std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}{target}");
        Request::new("POST", url).header("Host", "api.example").send().status
    });
    eventually("the backend has it", || backend.asked() == 1);
    let mut before = gateway.upgrade();
    eventually("the successor serves", || gateway.errors().matches("listening on").count() > 1);
    eventually("and reaches the store", || gateway.metric("gateway_cache_redis_up") == Some(1.0));
    let old = get(&gateway, &path).body;
    assert_eq!(post.join().unwrap(), 200);
    eventually("what was kept meanwhile is gone", || get(&gateway, &path).body != old);
    let _ = before.wait();
}

#[test]
fn settings_are_checked() {
    let root = |cache: &str| {
        check(&format!(
            "listeners: ':8080'\n{cache}\nservices: {{ main: {{ urls: ['http://127.0.0.1:1'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n"
        ))
    };
    let redis = "redis: { url: 'redis://127.0.0.1:1' }\n";
    for (cache, said) in [
        ("cache: { redis: {} }".to_owned(), "cache.redis: there is no 'redis' at the top of the file"),
        (format!("{redis}cache: {{ redis: {{ timeout: 10s }} }}"), "cache.redis.timeout: 10s is not from 1ms to 5s"),
        (format!("{redis}cache: {{ redis: {{ max_object: 0 }} }}"), "cache.redis.max_object: 0 would keep nothing"),
        (format!("{redis}cache: {{ redis: {{ ttl: 0s }} }}"), "cache.redis.ttl: 0s is not from 1s to 30d"),
        (
            "cache: { disk: { path: /no/where } }".to_owned(),
            "cache.disk.path: there is no directory '/no/where': make it, for the user of tollgate",
        ),
        (
            "cache: { disk: { path: /tmp, size: 1MiB } }".to_owned(),
            "cache.disk.size: 1048576 bytes would hold less than",
        ),
        ("cache: { disk: { path: /tmp, files: 0 } }".to_owned(), "cache.disk.files: 0 is not from 1 to 100000000"),
        ("cache: { disk: { path: /tmp, timeout: 0s } }".to_owned(), "cache.disk.timeout: 0s is not from 1ms to 5s"),
        ("cache: { disk: { size: 1GiB } }".to_owned(), "path"),
    ] {
        let (code, text) = root(&cache);
        assert!(code == 78 && text.contains(said), "{cache}: {text}");
    }
    assert_eq!(root(&format!("{redis}cache: {{ redis: {{}}, disk: {{ path: /tmp }} }}")).0, 0);
}

#[test]
fn a_gateway_that_keeps_nothing_tells_of_what_requests_change() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let keeps = Gateway::start(&yaml(&backend, &redis));
    let plain = Gateway::start(&yaml(&backend, &redis).replace(", cache: {}", ""));
    for gateway in [&keeps, &plain] {
        up(gateway, 1.0);
    }
    let path = format!("/p?{FRESH}&b=n");
    let old = get(&keeps, &path).body;
    plain.request("POST", &path).header("Host", "api.example").expect(200);
    eventually("the other has heard of it", || get(&keeps, &path).body != old);
}

#[test]
fn long_urls_take_little_room_and_are_purged_with_their_like() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let long = |n: usize| format!("/p?{FRESH}&b=n&n={n}&{}", "q".repeat(6000));
    let paths = [long(0), format!("/other?{FRESH}&b=n")];
    let olds = paths.each_ref().map(|path| get(&all[1], path).body);
    all[0].request("POST", &paths[0]).header("Host", "api.example").expect(200);
    eventually("the other has heard of it", || get(&all[1], &paths[0]).body != olds[0]);
    assert_eq!(get(&all[1], &paths[1]).body, olds[1]);
    for n in 0..50 {
        all[0].request("POST", &long(n)).header("Host", "api.example").expect(200);
    }
    eventually("all are told", || redis.ask("LLEN tollgate:{cache}:purges").starts_with(":51"));
    let bytes = redis.ask("MEMORY USAGE tollgate:{cache}:purges SAMPLES 0");
    let bytes: usize = bytes.lines().next().unwrap().trim_start_matches(':').parse().unwrap();
    assert!(bytes < 51 * 600, "{bytes}");
}

#[test]
fn a_full_redis_answers_and_is_read_from() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = |n: u32| format!("/p{n}?{FRESH}&b=n");
    let old = get(&all[0], &path(0)).body;
    kept(&all[0], 1.0);
    redis.ask("CONFIG SET maxmemory-policy noeviction");
    redis.ask("CONFIG SET maxmemory 1");
    for n in 1..20 {
        get(&all[0], &path(n));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(all[0].metric("gateway_cache_redis_up"), Some(1.0), "{n}");
    }
    let refused = || all[0].metric("gateway_cache_redis_writes_total{result=\"error\"}");
    eventually("they are counted", || refused() == Some(19.0));
    let errors = all[0].errors();
    let errors = errors.lines().filter(|line| line.contains("cache: ")).collect::<Vec<_>>().join("\n");
    assert_eq!((errors.matches("OOM").count(), errors.contains("not available")), (1, false), "{errors}");
    assert_eq!(get(&all[1], &path(0)).body, old);
}

#[test]
fn a_file_whose_lines_have_moved_is_the_same() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let route = "path: /* }, service: main, cache: {}, filters: [ { headers: { response: { set: { X-A: b } } } } ]";
    let yaml = yaml(&backend, &redis).replace("path: /* }, service: main, cache: {}", route);
    let one = Gateway::start(&yaml);
    let moved =
        yaml.replace("routes:\n", "routes:\n  # A comment.\n  - { match: { path: /another }, service: main }\n");
    let other = Gateway::start(&moved);
    let another = Gateway::start(&yaml.replace("X-A: b", "X-A: c"));
    for gateway in [&one, &other, &another] {
        up(gateway, 1.0);
    }
    let path = format!("/p?{FRESH}&b=n");
    get(&one, &path);
    kept(&one, 1.0);
    assert_eq!((word(&get(&other, &path)), word(&get(&another, &path))), ("HIT", "MISS"));
}

#[test]
fn each_variant_has_its_own_end() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let yaml = yaml(&backend, &redis).replace("timeout: 500ms", "timeout: 500ms, ttl: 2s");
    let all = [Gateway::start(&yaml), Gateway::start(&yaml)];
    for gateway in &all {
        up(gateway, 1.0);
    }
    let path = format!("/v?{FRESH}&h=Vary:X-Tenant&b=n");
    let ask = |gateway: &Gateway, tenant: &str| {
        gateway.get(&path).header("Host", "api.example").header("X-Tenant", tenant).send()
    };
    ask(&all[0], "a");
    std::thread::sleep(Duration::from_millis(1500));
    ask(&all[0], "b");
    kept(&all[0], 2.0);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!((word(&ask(&all[1], "a")), word(&ask(&all[1], "b"))), ("MISS", "HIT"));
}

#[test]
fn what_was_altered_in_the_store_is_no_answer() {
    for (harm, why) in [("string.sub(v,1,#v-300)", "shorter"), ("string.gsub(v,'200','203',1)", "altered")] {
        let (backend, redis) = (Backend::start(), Redis::start(&[]));
        let all = gateways(2, &backend, &redis);
        let path = format!("/a?{FRESH}&b=*1000");
        let whole = get(&all[0], &path).body;
        kept(&all[0], 1.0);
        let keys = redis.ask("KEYS *:answer");
        let key = keys.lines().find(|line| line.starts_with("tollgate:")).unwrap();
        let script = format!(
            "\"local v=redis.call('HGET',KEYS[1],'entry:'); local w={harm}; redis.call('HSET',KEYS[1],'entry:',w); return v~=w\""
        );
        assert!(redis.ask(&format!("EVAL {script} 1 {key}")).starts_with(":1"), "{why}");
        let answer = get(&all[1], &path);
        assert_eq!((word(&answer), &answer.body), ("MISS", &whole), "{why}");
        // The new one takes its place.
        kept(&all[1], 1.0);
        let third = Gateway::start(&yaml(&backend, &redis));
        up(&third, 1.0);
        assert_eq!(word(&get(&third, &path)), "HIT", "{why}");
    }
}

#[test]
fn what_is_no_answer_at_all_is_written_anew() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    let all = gateways(2, &backend, &redis);
    let path = format!("/a?{FRESH}");
    get(&all[0], &path);
    kept(&all[0], 1.0);
    let keys = redis.ask("KEYS *:answer");
    let key = keys.lines().find(|line| line.starts_with("tollgate:")).unwrap();
    redis.ask(&format!("SET {key} foo"));
    assert_eq!(word(&get(&all[1], &path)), "MISS");
    kept(&all[1], 1.0);
    let third = Gateway::start(&yaml(&backend, &redis));
    up(&third, 1.0);
    assert_eq!(word(&get(&third, &path)), "HIT");
}
