//! What becomes of an answer that is stored while somebody else asks about it: it is renewed, pushed out, read from a disk.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::harness::{Answer, Gateway, eventually, raw_backend, read_head};

/// What a backend answers to the request with this head, the nth for its path.
type Script = fn(&str, usize) -> String;

/// A backend that answers as it is told. A request with `X-Hold` is not answered before one for `/release` and its path.
fn backend(script: Script) -> String {
    let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let held: Arc<Mutex<HashMap<String, mpsc::Sender<()>>>> = Arc::default();
    raw_backend(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            let Some(path) = head.split(' ').nth(1).map(str::to_owned) else { return };
            if let Some(path) = path.strip_prefix("/release") {
                held.lock().unwrap().remove(path);
                let _ = write!(stream, "HTTP/1.1 {}", ok("Cache-Control: no-store", ""));
                continue;
            }
            let count = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(path.clone()).or_default();
                *count += 1;
                *count
            };
            if head.to_ascii_lowercase().contains("x-hold:") {
                let (hold, wait) = mpsc::channel();
                held.lock().unwrap().insert(path, hold);
                let _ = wait.recv_timeout(Duration::from_secs(20));
            }
            let answer = script(&head, count);
            if write!(stream, "HTTP/1.1 {answer}").is_err() {
                return;
            }
        }
    })
}

fn ok(fields: &str, body: &str) -> String {
    format!("200 OK\r\nContent-Length: {}\r\n{fields}\r\n\r\n{body}", body.len())
}

const GONE: &str = "410 Gone\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\ngone";

/// With one MiB of memory: of answers of 90 KB, not twelve have room.
fn gateway(backend: &str, disk: &str) -> Gateway {
    Gateway::start(&format!(
        "cache: {{ memory: 1MiB{disk} }}\nservices: {{ main: {{ urls: ['http://{backend}'], retry: {{ max_attempts: 1 }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n"
    ))
}

const DISK: &str = ", disk: { path: '{dir}', timeout: 5s }";

fn on_disk(backend: &str) -> Gateway {
    let gateway = gateway(backend, DISK);
    eventually("there is a folder", || gateway.metric("gateway_cache_disk_up") == Some(1.0));
    gateway
}

fn get(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> Answer {
    fields.iter().fold(gateway.get(path), |request, (name, value)| request.header(name, value)).send()
}

const AGAIN: (&str, &str) = ("Cache-Control", "no-cache");

/// Asks from another thread, and goes on when the backend is being asked.
fn ask(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> JoinHandle<Answer> {
    let request = fields.iter().fold(gateway.get(path), |request, (name, value)| request.header(name, value));
    let asking = thread::spawn(move || request.send());
    thread::sleep(Duration::from_millis(300));
    asking
}

fn release(gateway: &Gateway, path: &str) {
    assert_eq!(get(gateway, &format!("/release{path}"), &[]).status, 200);
}

fn files(gateway: &Gateway, end: &[u8]) -> Vec<PathBuf> {
    let inner = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = inner(gateway.dir.path().to_owned()).filter(|path| path.is_dir());
    let all = folders.flat_map(inner).filter(|path| path.is_dir()).flat_map(inner);
    all.filter(|path| fs::read(path).is_ok_and(|bytes| bytes.ends_with(end))).collect()
}

/// Asks for other answers until memory has no room for those that end like this.
fn push_out(gateway: &Gateway, ends: &[&[u8]]) -> Vec<PathBuf> {
    let begun = Instant::now();
    for round in 0.. {
        let found: Vec<_> = ends.iter().flat_map(|end| files(gateway, end)).collect();
        if found.len() >= ends.len() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was pushed out");
        for number in (0..4).flat_map(|_| 0..14) {
            get(gateway, &format!("/fill/{round}/{number}"), &[]);
        }
        thread::sleep(Duration::from_millis(100));
    }
    vec![]
}

fn fill() -> String {
    ok("Cache-Control: max-age=600", &"f".repeat(90_000))
}

#[test]
fn an_answer_that_another_request_has_renewed_meanwhile_is_taken_back() {
    let gateway = gateway(
        &backend(|head, count| match count {
            1 => ok("Cache-Control: max-age=600\r\nETag: \"a\"", "kept"),
            _ if head.to_ascii_lowercase().contains("x-renew:") => {
                "304 Not Modified\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\n\r\n".to_owned()
            }
            _ => GONE.to_owned(),
        }),
        "",
    );
    assert_eq!(get(&gateway, "/", &[]).body, "kept");
    let asking = ask(&gateway, "/", &[AGAIN, ("X-Hold", "1")]);
    assert_eq!(get(&gateway, "/", &[AGAIN, ("X-Renew", "1")]).body, "kept");
    release(&gateway, "/");
    assert_eq!(asking.join().unwrap().status, 410);
    assert_eq!(get(&gateway, "/", &[]).status, 410);
}

#[test]
fn wrong_credentials_take_nothing_away() {
    let gateway = gateway(
        &backend(|head, _| {
            let head = head.to_ascii_lowercase();
            let says = |text: &str| head.contains(text);
            if says("bad") {
                let status = if says("cookie:") { "302 Found\r\nLocation: /login" } else { "401 Unauthorized" };
                format!("{status}\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nno")
            } else if says("gone") {
                GONE.to_owned()
            } else {
                ok("Cache-Control: max-age=600", "public")
            }
        }),
        "",
    );
    let word = |answer: &Answer| answer.get("x-cache").to_owned();
    for (name, value, status) in [("Authorization", "Bearer bad", 401), ("Cookie", "session=bad", 302)] {
        assert_eq!(get(&gateway, "/", &[]).body, "public");
        assert_eq!(get(&gateway, "/", &[AGAIN, (name, value)]).status, status);
        assert_eq!(word(&get(&gateway, "/", &[])), "HIT", "{name}");
    }
    // What the backend says of the answer itself is said of it for all.
    assert_eq!(get(&gateway, "/", &[AGAIN, ("Cookie", "session=gone")]).status, 410);
    assert_eq!(word(&get(&gateway, "/", &[])), "MISS");
}

#[test]
fn a_new_answer_that_is_too_large_ends_the_old_one_in_the_background_too() {
    let gateway = gateway(
        &backend(|_, count| match count {
            1 => ok("Cache-Control: max-age=1, stale-while-revalidate=300", "first"),
            _ => format!(
                "200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n927c0\r\n{}\r\n0\r\n\r\n",
                "x".repeat(600_000)
            ),
        }),
        "",
    );
    assert_eq!(get(&gateway, "/", &[]).body, "first");
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(get(&gateway, "/", &[]).body, "first", "while it is fetched");
    eventually("the old one goes", || get(&gateway, "/", &[]).body.len() == 600_000);
}

#[test]
fn nor_does_an_old_answer_outlive_one_that_memory_has_no_room_for() {
    let gateway = gateway(
        &backend(|_, count| match count {
            1 => ok("Cache-Control: max-age=1, stale-while-revalidate=300", "first"),
            // With its fields it is larger than half of all memory.
            _ => ok("Cache-Control: max-age=60\r\nVary: X-L", &"x".repeat(524_180)),
        }),
        "",
    );
    assert_eq!(get(&gateway, "/", &[]).body, "first");
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(get(&gateway, "/", &[]).body, "first", "while it is fetched");
    eventually("the old one goes", || get(&gateway, "/", &[]).body.len() == 524_180);
}

#[test]
fn what_was_read_from_disk_is_given_also_when_memory_has_no_room_for_it() {
    let gateway = on_disk(&backend(|_, _| ok("Cache-Control: max-age=6000", &"h".repeat(60_000))));
    let hot = |times: usize| {
        for number in (0..times).flat_map(|_| 0..14) {
            get(&gateway, &format!("/hot/{number}"), &[]);
        }
    };
    for round in 0..3 {
        crate::purge::purged(&gateway, &serde_json::json!({ "all": true }));
        hot(1);
        for number in 0..3 {
            get(&gateway, &format!("/{round}/{number}"), &[]);
        }
        thread::sleep(Duration::from_millis(300));
        hot(6);
        thread::sleep(Duration::from_millis(1200));
        let read = || gateway.metric("gateway_cache_disk_reads_total{result=\"ok\"}").unwrap_or_default();
        let before = read();
        let answer = get(&gateway, &format!("/{round}/0"), &[("Cache-Control", "only-if-cached")]);
        assert!(answer.status == 200 || read() <= before, "it was read: {answer:?}");
    }
}

#[test]
fn a_language_that_is_taken_back_is_not_on_disk_either() {
    let gateway = on_disk(&backend(|head, count| match count {
        _ if head.contains("/fill") => fill(),
        1 => ok(
            "Cache-Control: max-age=600\r\nVary: Accept-Language\r\nContent-Language: de\r\nETag: \"1\"",
            "Guten Tag",
        ),
        _ => GONE.to_owned(),
    }));
    assert_eq!(get(&gateway, "/", &[("Accept-Language", "de")]).body, "Guten Tag");
    let asking = ask(&gateway, "/", &[AGAIN, ("Accept-Language", "de, en;q=0.5"), ("X-Hold", "1")]);
    push_out(&gateway, &[b"Guten Tag"]);
    release(&gateway, "/");
    assert_eq!(asking.join().unwrap().status, 410);
    assert_eq!(get(&gateway, "/", &[("Accept-Language", "de")]).status, 410);
}

#[test]
fn what_is_pushed_out_meanwhile_is_given_in_place_of_a_failure() {
    for disk in ["", DISK] {
        let gateway = gateway(
            &backend(|head, count| match count {
                _ if head.contains("/fill") => fill(),
                1 => ok("Cache-Control: max-age=1, stale-if-error=600", "kept"),
                _ => "503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned(),
            }),
            disk,
        );
        for (path, purged) in [("/a", false), ("/b", true)] {
            assert_eq!(get(&gateway, path, &[]).body, "kept");
            thread::sleep(Duration::from_millis(1200));
            let asking = ask(&gateway, path, &[("X-Hold", "1")]);
            for number in (0..4).flat_map(|_| 0..14) {
                get(&gateway, &format!("/fill{path}{number}"), &[]);
            }
            if purged {
                crate::purge::purged(&gateway, &serde_json::json!({ "prefix": path }));
            }
            release(&gateway, path);
            let answer = asking.join().unwrap();
            let expected = if purged { 503 } else { 200 };
            assert_eq!(answer.status, expected, "{path} {disk} {answer:?}");
        }
    }
}

#[test]
fn what_is_pushed_out_while_it_is_found_to_be_good_is_kept_again() {
    for disk in ["", DISK] {
        let gateway = gateway(
            &backend(|head, _| match () {
                () if head.contains("/fill") => fill(),
                () if head.to_ascii_lowercase().contains("if-none-match:") => {
                    "304 Not Modified\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\n\r\n".to_owned()
                }
                () => ok("Cache-Control: max-age=1\r\nETag: \"a\"", "kept"),
            }),
            disk,
        );
        assert_eq!(get(&gateway, "/a", &[]).body, "kept");
        thread::sleep(Duration::from_millis(1200));
        let asking = ask(&gateway, "/a", &[("X-Hold", "1")]);
        let waiting = ask(&gateway, "/a", &[]);
        for number in (0..4).flat_map(|_| 0..14) {
            get(&gateway, &format!("/fill/{number}"), &[]);
        }
        release(&gateway, "/a");
        let (first, second) = (asking.join().unwrap(), waiting.join().unwrap());
        assert_eq!((first.get("x-cache"), second.get("x-cache")), ("REVALIDATED", "HIT"), "{second:?}");
        assert!(
            first.get("cache-status").contains("ttl=6") || first.get("cache-status").contains("ttl=5"),
            "{first:?}"
        );
    }
}

#[test]
fn what_is_read_from_disk_while_it_is_taken_back_is_not_kept() {
    let gateway = on_disk(&backend(|head, count| match count {
        _ if head.contains("/fill") => fill(),
        1 => ok("Cache-Control: max-age=600\r\nETag: \"a\"", "kept"),
        _ => GONE.to_owned(),
    }));
    assert_eq!(get(&gateway, "/a", &[]).body, "kept");
    let file = push_out(&gateway, &[b"kept"]).remove(0);
    let bytes = fs::read(&file).unwrap();
    let pipe = pipe_in_place_of(&gateway, &file);
    let reading = ask(&gateway, "/a", &[]);
    fs::rename(&file, gateway.dir.path().join("aside")).unwrap();
    fs::write(&file, &bytes).unwrap();
    assert_eq!(get(&gateway, "/a", &[AGAIN]).status, 410);
    fs::write(pipe, &bytes).unwrap();
    reading.join().unwrap();
    assert_eq!(get(&gateway, "/a", &[]).status, 410);
}

/// Whoever reads the file waits until somebody writes into the pipe that is given back.
fn pipe_in_place_of(gateway: &Gateway, file: &Path) -> PathBuf {
    let pipe = gateway.dir.path().join(format!("pipe-{}", fastrand::u32(..)));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(file).unwrap();
    fs::hard_link(&pipe, file).unwrap();
    pipe
}

#[test]
fn of_two_variants_that_a_request_may_be_given_the_newer_one_is_also_after_they_were_on_disk() {
    let gateway = on_disk(&backend(|head, _| {
        if head.contains("/fill") {
            fill()
        } else if head.to_ascii_lowercase().contains("x-a: 1") {
            ok("Cache-Control: max-age=600\r\nVary: X-A", "older")
        } else {
            ok("Cache-Control: max-age=600\r\nVary: X-B", "newer")
        }
    }));
    let both = [("X-A", "1"), ("X-B", "1")];
    assert_eq!(get(&gateway, "/", &both).body, "older");
    thread::sleep(Duration::from_millis(20));
    assert_eq!(get(&gateway, "/", &[("X-A", "2"), ("X-B", "1")]).body, "newer");
    assert_eq!(get(&gateway, "/", &both).body, "newer");
    push_out(&gateway, &[b"older", b"newer"]);
    // The older one comes back first, for those that only it is for.
    for fields in [&[("X-A", "1"), ("X-B", "2")][..], &both[..], &both[..]] {
        let expected = if fields[1].1 == "2" { "older" } else { "newer" };
        assert_eq!(get(&gateway, "/", fields).body, expected);
    }
}

#[test]
fn reads_that_hang_are_left_alone_and_keep_no_room() {
    let backend = backend(|_, _| ok("Cache-Control: max-age=600", &"B".repeat(300_000)));
    let gateway = gateway(&backend, ", disk: { path: '{dir}', timeout: 100ms }");
    eventually("there is a folder", || gateway.metric("gateway_cache_disk_up") == Some(1.0));
    for number in 0..16 {
        get(&gateway, &format!("/{number}"), &[]);
    }
    let known = || gateway.metric("gateway_cache_disk_entries") >= Some(8.0);
    eventually("they are on disk", known);
    let pipes: Vec<_> = files(&gateway, b"B").iter().map(|file| pipe_in_place_of(&gateway, file)).collect();
    for number in 0..16 {
        assert_eq!(get(&gateway, &format!("/{number}"), &[]).body.len(), 300_000);
    }
    eventually("it is down", || gateway.metric("gateway_cache_disk_up") == Some(0.0));
    // No longer than those that hang, which no pause ends.
    thread::sleep(Duration::from_secs(11));
    assert_eq!(gateway.metric("gateway_cache_disk_up"), Some(0.0));
    for path in ["/new/1", "/new/1"] {
        get(&gateway, path, &[]);
    }
    assert_eq!(get(&gateway, "/new/1", &[]).get("x-cache"), "HIT", "there is room in memory");
    // Nobody is there to read the other pipes.
    for pipe in pipes {
        let write = fs::OpenOptions::new().write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(pipe);
        drop(write.map(|mut pipe| pipe.write_all(b"x")));
    }
    eventually("they have come to an end", || gateway.metric("gateway_cache_disk_up") == Some(1.0));
}
