//! Kept answers after `tollgate -u`: the successor has them, and none that were purged, changed or made by other rules.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Child,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    auth::sha256,
    cache::{Backend, FRESH, said},
    handover::{ROUTE, asking, fake, hand_over, read_answer, spawn},
    harness::{Gateway, Request, eventually},
    purge::purged,
};

fn gateway(backend: &Backend) -> Gateway {
    Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"], retry: {{ max_attempts: 1 }} }} }}\napi_keys: [ {{ id: k, sha256: {} }} ]\nroutes:\n  - {{ match: {{ path: /other/* }}, service: a, cache: {{}}, filters: [ {{ headers: {{ response: {{ set: {{ X-Rule: one }} }} }} }} ] }}\n  - {{ match: {{ path: /own/* }}, service: a, cache: {{}}, filters: [api_key] }}\n  - {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address,
        sha256("secret")
    ))
}

pub(crate) fn serves(gw: &Gateway, count: usize) {
    eventually("the successor serves", || gw.errors().matches("listening on").count() > count);
}

/// The successor serves alone, and has what there was.
fn taken_over(gw: &mut Gateway) {
    let before = gw.errors().matches("listening on").count();
    let mut predecessor = gw.upgrade();
    serves(gw, before);
    left(&mut predecessor);
}

fn left(predecessor: &mut Child) {
    eventually("the one before has left", || predecessor.try_wait().unwrap().is_some());
}

fn hits(gw: &Gateway, path: &str) -> bool {
    let answer = gw.get(path).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    said(&answer).1 == "HIT"
}

#[test]
fn a_successor_has_what_was_kept() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let (plain, varied) = (format!("/a?{FRESH}&b=x&h=ETag:%22e%22"), format!("/v?{FRESH}&h=Vary:X-Kind&b=x"));
    let kind = |gw: &Gateway, kind: &str| gw.get(&varied).header("X-Kind", kind).expect(200);
    let bodies = [gw.get(&plain).expect(200).body, kind(&gw, "1").body, kind(&gw, "2").body];
    for number in 0..50 {
        gw.get(&format!("/large/{number}?{FRESH}&b=*50000")).expect(200);
    }
    let asked = backend.asked();
    thread::sleep(Duration::from_millis(1100));
    for _ in 0..2 {
        taken_over(&mut gw);
        let hit = gw.get(&plain).send();
        assert_eq!((said(&hit).1.as_str(), &hit.body), ("HIT", &bodies[0]));
        assert!((1..10).contains(&hit.get("age").parse::<u32>().unwrap()), "it is as old as before: {hit:?}");
        assert_eq!((kind(&gw, "1").body, kind(&gw, "2").body), (bodies[1].clone(), bodies[2].clone()));
        assert_eq!(gw.get(&plain).header("If-None-Match", "\"e\"").send().status, 304);
        assert!((0..50).all(|number| hits(&gw, &format!("/large/{number}?{FRESH}&b=*50000"))));
        assert_eq!(backend.asked(), asked, "nobody has asked again");
    }
    assert!(!said(&kind(&gw, "3")).1.contains("HIT"));
    assert_eq!(purged(&gw, &json!({ "url": format!("http://127.0.0.1:{}{plain}", gw.port) })), 1, "it can be purged");
    assert!(!hits(&gw, &plain));
}

#[test]
fn nothing_comes_along_that_other_rules_have_made() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let (same, other) = (format!("/a?{FRESH}&b=x"), format!("/other/a?{FRESH}&b=x"));
    let change = |gw: &Gateway, from: &str, to: &str| {
        let file = gw.path("tollgate.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        std::fs::write(file, text.replace(from, to)).unwrap();
    };
    for path in [&same, &other] {
        gw.get(path).expect(200);
        assert!(hits(&gw, path));
    }
    change(&gw, "X-Rule: one", "X-Rule: two");
    taken_over(&mut gw);
    assert!(hits(&gw, &same), "this route is as it was");
    let answer = gw.get(&other).send();
    assert_eq!((said(&answer).1.as_str(), answer.get("x-rule")), ("MISS", "two"));
    // Another backend may have other answers for all.
    change(&gw, "max_attempts: 1", "max_attempts: 2");
    taken_over(&mut gw);
    assert!(!hits(&gw, &same) && !hits(&gw, &other));
    // What backends are told may be in answers.
    // So may a field of a client, until another route makes it one that backends are told who it is by.
    for (from, to) in [
        ("services:", "via: false\nservices:"),
        ("filters: [api_key]", "filters: [ { api_key: { identity_header: X-Role } } ]"),
        ("pingora: {", "pingora: { client_bind_to_ipv4: [127.0.0.1],"),
    ] {
        change(&gw, from, to);
        taken_over(&mut gw);
        assert!(!hits(&gw, &same) && !hits(&gw, &other), "{to}");
    }
}

#[test]
fn nothing_comes_along_that_is_one_clients_own_or_was_purged() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let own = format!("/own/a?{FRESH}&h=Vary:X&b=x");
    let ask = |gw: &Gateway| gw.get(&own).header("X-API-Key", "secret").expect(200);
    let path = |name: &str| format!("/{name}?{FRESH}&h=ETag:%22same%22&h=Cache-Tag:{name}&b=x");
    ask(&gw);
    assert_eq!(said(&ask(&gw)).1, "HIT");
    for name in ["kept", "hard", "soft", "changed"] {
        gw.get(&path(name)).expect(200);
    }
    assert_eq!(purged(&gw, &json!({ "tag": "hard" })), 1);
    assert_eq!(purged(&gw, &json!({ "tag": "soft", "soft": true })), 1);
    gw.request("POST", &path("changed")).send();
    taken_over(&mut gw);
    assert!(hits(&gw, &path("kept")));
    assert_eq!(said(&ask(&gw)).1, "MISS");
    for name in ["hard", "soft", "changed"] {
        assert!(!hits(&gw, &path(name)), "{name}");
    }
}

/// A request that changes something, under way in the process before.
pub(crate) fn post(gw: &Gateway, backend: &Backend, path: &str) -> thread::JoinHandle<u16> {
    let (url, asked) = (format!("http://127.0.0.1:{}{path}", gw.port), backend.asked());
    let post = thread::spawn(move || Request::new("POST", url).send().status);
    eventually("the backend has it", || backend.asked() > asked);
    post
}

#[test]
fn a_process_that_has_said_farewell_misses_nothing() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    for count in 1..3 {
        let mut predecessor = gw.upgrade();
        serves(&gw, count);
        left(&mut predecessor);
    }
    assert!(!gw.errors().contains("WARN"), "{}", gw.errors());
}

#[test]
fn what_changes_in_the_process_before_goes_in_its_successor_too() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let (path, other) = (format!("/a?{FRESH}&b=x"), format!("/b?{FRESH}&b=x"));
    let slow = |path: &str| path.replace("b=x", "b=x&hold");
    // The URL is another one with what holds it: each is purged under its own name.
    gw.get(&slow(&path)).expect(200);
    gw.get(&other).expect(200);
    let post = post(&gw, &backend, &slow(&path));
    let mut predecessor = gw.upgrade();
    serves(&gw, 1);
    assert!(hits(&gw, &slow(&path)) && hits(&gw, &other), "nothing has changed yet");
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    eventually("it is gone", || {
        let only = gw.get(&slow(&path)).header("Cache-Control", "only-if-cached").send();
        only.status == 504
    });
    assert!(hits(&gw, &other));
    left(&mut predecessor);
    assert!(hits(&gw, &other));
}

#[test]
fn what_changes_two_processes_before_goes_too() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let (path, other) = (format!("/a?{FRESH}&b=x&hold"), format!("/b?{FRESH}&b=x"));
    gw.get(&path).expect(200);
    gw.get(&other).expect(200);
    let post = post(&gw, &backend, &path);
    let mut predecessors = [1, 2].map(|count| {
        let predecessor = gw.upgrade();
        serves(&gw, count);
        assert!(hits(&gw, &path) && hits(&gw, &other), "nothing has changed yet");
        predecessor
    });
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    predecessors.iter_mut().for_each(left);
    assert!(!hits(&gw, &path), "it has changed since");
    assert!(hits(&gw, &other), "nothing was missed: {}", gw.errors());
}

#[test]
fn what_changes_in_a_process_before_that_keeps_nothing_goes_too() {
    let backend = Backend::start();
    let routes = |cache: &str| {
        format!(
            "services: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: {{ match: {{ path: /* }}, service: a{cache} }}\n",
            backend.address
        )
    };
    let mut gw = Gateway::start(&routes(""));
    let path = format!("/a?{FRESH}&b=x");
    let post = post(&gw, &backend, "/b?x&hold&h=Content-Location:/a%3Fh=Cache-Control:max-age=60%26b=x");
    let file = gw.path("tollgate.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("service: a }", "service: a, cache: {} }")).unwrap();
    let mut predecessor = gw.upgrade();
    serves(&gw, 1);
    gw.get(&path).expect(200);
    assert!(hits(&gw, &path));
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    left(&mut predecessor);
    assert!(!hits(&gw, &path), "it has changed since");
}

/// What a process says of answers until it ends the connection: the letters.
pub(crate) fn letters(stream: &mut UnixStream) -> String {
    let mut letters = String::new();
    loop {
        let mut head = [0; 5];
        if stream.read_exact(&mut head).is_err() {
            return letters;
        }
        letters.push(head[0].into());
        let mut bytes = vec![0; u32::from_le_bytes(head[1..].try_into().unwrap()) as usize];
        stream.read_exact(&mut bytes).unwrap();
    }
}

#[test]
fn what_changes_while_a_successor_begins_to_accept_is_told_to_it() {
    let backend = Backend::start();
    let gw = gateway(&backend);
    let path = format!("/a?{FRESH}&b=x");
    gw.get(&path).expect(200);
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"without []\n").unwrap();
    assert_eq!(read_answer(&mut stream), "go on\n");
    gw.request("PUT", &path).expect(200);
    stream.write_all(b"serving\n").unwrap();
    assert_eq!(read_answer(&mut stream), "leaving\n");
    stream.write_all(b"taken\nanswers of another build\n").unwrap();
    assert_eq!(letters(&mut stream), "dpb");
}

#[test]
fn what_changes_while_the_process_before_still_serves_is_told_to_it() {
    let backend = Backend::start();
    let (_dir, file, socket, fake) = fake();
    let address = socket.local_addr().unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace(ROUTE, "");
    let rest = format!(
        "services: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address
    );
    std::fs::write(&file, text + &rest).unwrap();
    let mut child = spawn(&file);
    let (mut stream, answer) = hand_over(&fake, &socket, &address.to_string());
    assert_eq!(answer, "serving\n");
    Request::new("PUT", format!("http://{address}/a?b=x")).expect(200);
    stream.write_all(b"leaving\n").unwrap();
    let mut taken = Vec::new();
    while !taken.ends_with(b"\n") || taken.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        taken.extend(byte);
    }
    assert!(taken.starts_with(b"taken\nanswers "));
    // These were all there are, and it ends.
    stream.write_all(b"d\0\0\0\0b\0\0\0\0").unwrap();
    assert_eq!(letters(&mut stream), "p");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_changes_in_a_successor_that_keeps_nothing_is_given_by_nobody() {
    let backend = Backend::start();
    let mut gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes: {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address
    ));
    let path = format!("/a?{FRESH}&b=x");
    gw.get(&path).expect(200);
    let mut connection = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    let mut is_hit = || ask_again(&mut connection, &path).to_lowercase().contains("x-cache: hit");
    assert!(is_hit());
    let post = post(&gw, &backend, &format!("/other?{FRESH}&b=x&hold"));
    let file = gw.path("tollgate.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(", cache: {}", "")).unwrap();
    let mut predecessor = gw.upgrade();
    serves(&gw, 1);
    gw.request("PUT", &path).expect(200);
    thread::sleep(Duration::from_millis(100));
    assert!(!is_hit());
    assert!(predecessor.try_wait().unwrap().is_none(), "it was the process before that has answered");
    backend.let_go();
    post.join().unwrap();
}

/// Asks over a connection that stays.
fn ask_again(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", stream.peer_addr().unwrap().port()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nx") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_is_purged_in_the_successor_is_given_by_nobody() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let paths = ["purged", "changed", "kept"].map(|name| format!("/{name}?{FRESH}&b=x"));
    let mut connections = paths.clone().map(|path| {
        gw.get(&path).expect(200);
        let mut connection = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        assert!(ask_again(&mut connection, &path).to_lowercase().contains("x-cache: hit"));
        connection
    });
    // What keeps the process before until all has been seen.
    let post = post(&gw, &backend, &format!("/other?{FRESH}&b=x&hold"));
    let mut predecessor = gw.upgrade();
    serves(&gw, 1);
    assert_eq!(purged(&gw, &json!({ "url": format!("http://127.0.0.1:{}{}", gw.port, paths[0]) })), 1);
    gw.request("PUT", &paths[1]).expect(200);
    thread::sleep(Duration::from_millis(100));
    for (number, path) in paths.iter().enumerate() {
        let answer = ask_again(&mut connections[number], path);
        assert_eq!(answer.to_lowercase().contains("x-cache: hit"), number == 2, "{path}: {answer}");
    }
    assert!(predecessor.try_wait().unwrap().is_none(), "it was the process before that has answered");
    backend.let_go();
    post.join().unwrap();
}

#[test]
fn of_a_process_that_is_killed_nothing_stays() {
    let backend = Backend::start();
    let mut gw = gateway(&backend);
    let path = format!("/a?{FRESH}&b=x");
    gw.get(&path).expect(200);
    let post = post(&gw, &backend, &path.replace("b=x", "b=x&hold"));
    let mut predecessor = gw.upgrade();
    serves(&gw, 1);
    assert!(hits(&gw, &path));
    kill(Pid::from_raw(predecessor.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    left(&mut predecessor);
    eventually("it may have been purged", || gw.errors().contains("everything is purged"));
    assert!(!hits(&gw, &path));
    backend.let_go();
    drop(post);
}
