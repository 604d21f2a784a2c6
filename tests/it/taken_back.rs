//! What a backend has taken back, or its operator has purged, is given to nobody again.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    harness::{Answer, Gateway, Redis, eventually, raw_backend, read_head},
    purge::purged,
};

const SECRET: &str = "Cache-Control: max-age=1, stale-if-error=100\r\nETag: \"1\"\r\nContent-Length: 6\r\n\r\nsecret";

/// A backend with one secret at each path: first it tells it, then it answers what `later` says of the path, and in the end it
/// breaks off. `asked` counts all requests.
struct Backend {
    address: String,
    phase: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Backend {
    fn start(later: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let [phase, asked] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (now, count) = (phase.clone(), asked.clone());
        let address = raw_backend(move |mut stream| {
            loop {
                let head = read_head(&mut stream);
                let Some(path) = head.split(' ').nth(1) else { return };
                count.fetch_add(1, SeqCst);
                let answer = match now.load(SeqCst) {
                    0 => format!("200 OK\r\n{SECRET}"),
                    1 => later(path),
                    _ => return,
                };
                if answer.is_empty() || write!(stream, "HTTP/1.1 {answer}").is_err() {
                    return;
                }
            }
        });
        Self { address, phase, asked }
    }

    fn gateway(&self, root: &str) -> Gateway {
        Gateway::start(&format!(
            "{root}services: {{ main: {{ urls: ['http://{}'], retry: {{ max_attempts: 1 }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{ max_object: 1000 }} }} ]\n",
            self.address
        ))
    }
}

fn get(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Answer {
    let request = gateway.get(path).header("Host", "api.example");
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

/// Past the time of what is fresh for a second.
fn later() {
    std::thread::sleep(Duration::from_millis(1200));
}

fn long(head: &str) -> String {
    format!("200 OK\r\nCache-Control: max-age=60\r\n{head}")
}

#[test]
fn what_a_backend_has_taken_back_is_given_to_nobody() {
    let answers = [
        "410 Gone\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "404 Not Found\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "404 Not Found\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "200 OK\r\nCache-Control: private\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "200 OK\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        long(&format!("Content-Length: 2000\r\n\r\n{}", "x".repeat(2000))),
        long(&format!("Transfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000))),
    ];
    let (redis, texts) = (Redis::start(&[]), answers.clone());
    let backend = Backend::start(move |path| texts[path[1..].parse::<usize>().unwrap()].clone());
    let root = format!("redis: {{ url: \"{}\" }}\ncache: {{ redis: {{}} }}\n", redis.url());
    let all = [backend.gateway(&root), backend.gateway(&root)];
    for gateway in &all {
        eventually("the store is there", || gateway.metric("gateway_cache_redis_up") == Some(1.0));
    }
    let paths: Vec<String> = (0..answers.len()).map(|n| format!("/{n}")).collect();
    for path in &paths {
        assert_eq!(get(&all[0], path, &[]).body, "secret");
    }
    let wrote = || all[0].metric("gateway_cache_redis_writes_total{result=\"ok\"}");
    eventually("they are written", || wrote() >= Some(8.0));
    for path in &paths[..4] {
        assert_eq!(get(&all[1], path, &[]).body, "secret");
    }
    assert_eq!(backend.asked.load(SeqCst), 8, "the other one has them from the store");
    later();
    backend.phase.store(1, SeqCst);
    for path in &paths {
        assert_ne!(get(&all[0], path, &[]).body, "secret");
        let answer = get(&all[0], path, &[("Cache-Control", "max-stale")]);
        assert_ne!(answer.body, "secret", "{path} {answer:?}");
    }
    backend.phase.store(2, SeqCst);
    later();
    for path in &paths {
        for gateway in &all {
            assert_eq!(get(gateway, path, &[]).status, 502, "{path}");
            let answer = get(gateway, path, &[("Cache-Control", "max-stale")]);
            assert_ne!(answer.body, "secret", "{path} {answer:?}");
        }
    }
}

#[test]
fn an_answer_about_whoever_asks_takes_nothing_back() {
    type Case = (&'static str, &'static [(&'static str, &'static str)]);
    let cases: [Case; 8] = [
        ("501 No\r\nCache-Control: no-store", &[]),
        ("500 No\r\nCache-Control: no-store", &[("Cache-Control", "stale-if-error=0")]),
        ("429 Slowly\r\nCache-Control: no-store", &[]),
        ("400 What\r\nCache-Control: no-store", &[]),
        ("200 OK\r\nCache-Control: no-store", &[("Cache-Control", "no-store")]),
        ("200 OK\r\nCache-Control: max-age=60", &[("Authorization", "Basic eDp5")]),
        ("200 OK\r\nCache-Control: max-age=60\r\nVary: X-Tone", &[("X-Tone", "1"), ("X_Tone", "2")]),
        ("", &[]),
    ];
    let backend = Backend::start(move |path| {
        let head = cases[path[1..].parse::<usize>().unwrap()].0;
        if head.is_empty() { String::new() } else { format!("{head}\r\nContent-Length: 1\r\n\r\nx") }
    });
    let gateway = backend.gateway("");
    let paths: Vec<String> = (0..cases.len()).map(|n| format!("/{n}")).collect();
    for path in &paths {
        assert_eq!(get(&gateway, path, &[]).body, "secret");
    }
    later();
    backend.phase.store(1, SeqCst);
    for (path, (_, fields)) in paths.iter().zip(&cases) {
        get(&gateway, path, fields);
    }
    backend.phase.store(2, SeqCst);
    for path in &paths {
        let answer = get(&gateway, path, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "secret"), "{path} {answer:?}");
    }
}

#[test]
fn what_was_purged_meanwhile_is_given_in_place_of_no_failure() {
    let backend = Backend::start(|path| {
        std::thread::sleep(Duration::from_millis(1500));
        if path.starts_with("/error") { "503 No\r\nContent-Length: 1\r\n\r\nx".to_owned() } else { String::new() }
    });
    let gateway = backend.gateway("");
    let cases = [("/error-hard", 503), ("/none-hard", 502), ("/error-soft", 200), ("/none-soft", 200)];
    for (path, _) in cases {
        assert_eq!(get(&gateway, path, &[]).body, "secret");
    }
    later();
    backend.phase.store(1, SeqCst);
    std::thread::scope(|scope| {
        let asking = cases.map(|(path, status)| (path, status, scope.spawn(|| get(&gateway, path, &[]))));
        eventually("the backend has been asked", || backend.asked.load(SeqCst) == 8);
        for (path, _) in cases {
            let url = format!("http://api.example{path}");
            let what = serde_json::json!({ "url": url, "soft": path.ends_with("soft") });
            assert_eq!(purged(&gateway, &what), 1, "{path}");
        }
        for (path, status, asked) in asking {
            let answer = asked.join().unwrap();
            assert_eq!((answer.status, answer.body == "secret"), (status, status == 200), "{path} {answer:?}");
        }
    });
}
