//! What processes that take over from one another tell each other, when something is in the way.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tollgate::cache::purge::{Manner, Purge};

use crate::{
    auth::sha256,
    cache::{Backend, FRESH, said},
    handed_on::{letters, post, serves},
    handover::{ROUTE, asking, fake, hand_over, read_answer, spawn},
    harness::{Gateway, Redis, Request, eventually, raw_backend, read_head},
    purge::purged,
};

/// All that is asked for is kept.
fn route(backend: &Backend) -> String {
    format!(
        "services: {{ a: {{ urls: [\"http://{}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address
    )
}

fn is_hit(gw: &Gateway, path: &str) -> bool {
    said(&gw.get(path).expect(200)).1 == "HIT"
}

#[test]
fn a_successor_that_does_not_listen_is_told_all_when_it_does() {
    let backend = Backend::start();
    let gw = Gateway::start(&route(&backend));
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"without []\n").unwrap();
    assert_eq!(read_answer(&mut stream), "go on\n");
    for number in 0..1200 {
        purged(&gw, &json!({ "tag": number.to_string() }));
    }
    stream.write_all(b"serving\n").unwrap();
    assert_eq!(read_answer(&mut stream), "leaving\n");
    stream.write_all(b"taken\nanswers of another build\n").unwrap();
    let letters = letters(&mut stream);
    assert!(letters.starts_with("dp") && letters.len() < 1000 && letters.ends_with("pb"), "{letters}");
}

#[test]
fn what_a_process_changes_that_does_not_come_to_serve_is_told() {
    let backend = Backend::start();
    let (_dir, file, socket, fake) = fake();
    let address = socket.local_addr().unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace(ROUTE, "");
    std::fs::write(&file, text + &route(&backend)).unwrap();
    let mut child = spawn(&file);
    let (mut stream, answer) = hand_over(&fake, &socket, &address.to_string());
    assert_eq!(answer, "serving\n");
    Request::new("PUT", format!("http://{address}/a?b=x")).expect(200);
    stream.write_all(b"staying\n").unwrap();
    // First it looks whether there is somebody.
    let (mut stream, mut said) = (fake.accept().unwrap().0, [0; 19]);
    if stream.read_exact(&mut said).is_err() {
        stream = fake.accept().unwrap().0;
        stream.read_exact(&mut said).unwrap();
    }
    assert_eq!((&said, letters(&mut stream).as_str()), (b"tollgate-changes 1\n", "p"));
    assert!(!child.wait().unwrap().success());

    // And the other side of it.
    let gw = Gateway::start(&route(&backend));
    let path = format!("/a?{FRESH}&b=x");
    gw.get(&path).expect(200);
    assert!(is_hit(&gw, &path));
    let mut stream = UnixStream::connect(gw.path("sock")).unwrap();
    let purge = Purge::Url(format!("http://127.0.0.1:{}{path}", gw.port)).write(Manner::Hard);
    let length = u32::try_from(purge.len()).unwrap().to_le_bytes();
    stream.write_all(&[b"tollgate-changes 1\np", &length[..], &purge].concat()).unwrap();
    eventually("it is gone", || gw.get(&path).header("Cache-Control", "only-if-cached").send().status == 504);
}

#[test]
fn of_a_successor_that_is_gone_when_it_has_accepted_nobody_knows_what_it_has_changed() {
    let backend = Backend::start();
    let gw = Gateway::start(&route(&backend));
    let path = format!("/a?{FRESH}&b=x");
    for accepts in [false, true] {
        gw.get(&path).expect(200);
        assert!(is_hit(&gw, &path));
        let (mut stream, _) = asking(&gw);
        if accepts {
            stream.write_all(b"without []\n").unwrap();
            assert_eq!(read_answer(&mut stream), "go on\n");
        }
        let before = gw.errors().matches("this process goes on serving").count();
        drop(stream);
        eventually("it is gone", || gw.errors().matches("this process goes on serving").count() > before);
        assert_eq!(is_hit(&gw, &path), !accepts);
    }
    // One that has told of something, and then no more.
    assert!(is_hit(&gw, &path));
    let mut stream = UnixStream::connect(gw.path("sock")).unwrap();
    stream.write_all(b"tollgate-changes 1\n").unwrap();
    drop(stream);
    eventually("it may have purged", || gw.get(&path).header("Cache-Control", "only-if-cached").send().status == 504);
}

#[test]
fn a_successor_that_stands_still_when_it_has_taken_over_is_told_all_the_same() {
    let backend = Backend::start();
    let gw = Gateway::start(&route(&backend));
    let path = format!("/a?{FRESH}&b=x&hold");
    let post = post(&gw, &backend, &path);
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"without []\n").unwrap();
    assert_eq!(read_answer(&mut stream), "go on\n");
    stream.write_all(b"serving\n").unwrap();
    assert_eq!(read_answer(&mut stream), "leaving\n");
    stream.write_all(b"taken\n").unwrap();
    thread::sleep(Duration::from_millis(6500));
    stream.write_all(b"answers of another build\n").unwrap();
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(letters(&mut stream), "dpb");
}

#[test]
fn what_was_missed_is_purged_also_where_redis_has_come_with_the_upgrade() {
    let (backend, redis) = (Backend::start(), Redis::start(&[]));
    for before in [false, true] {
        let with = format!("redis: {{ url: \"{}\" }}\ncache: {{ redis: {{}} }}\n", redis.url());
        let mut gw = Gateway::start(&format!("{}{}", if before { &with } else { "" }, route(&backend)));
        let path = format!("/a?{FRESH}&b=x");
        let post = post(&gw, &backend, &format!("/other?{FRESH}&b=x&hold"));
        let file = gw.path("tollgate.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        if !before {
            std::fs::write(&file, text + &with).unwrap();
        }
        let mut predecessor = gw.upgrade();
        serves(&gw, 1);
        gw.get(&path).expect(200);
        eventually("it is kept", || is_hit(&gw, &path));
        kill(Pid::from_raw(predecessor.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        predecessor.wait().unwrap();
        if before {
            thread::sleep(Duration::from_millis(500));
            assert!(is_hit(&gw, &path), "in the same redis it is heard of there");
        } else {
            eventually("it may have been purged", || gw.errors().contains("everything is purged"));
            assert!(!is_hit(&gw, &path));
        }
        drop(post);
    }
}

/// Is good for a second, then takes its time to say that there is nothing any more, and to all others says what is good for long.
fn taking_back() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = raw_backend(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            let _ = match count.fetch_add(1, SeqCst) {
                0 => write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: max-age=1\r\nContent-Length: 5\r\n\r\nfirst"),
                1 => {
                    thread::sleep(Duration::from_secs(3));
                    write!(stream, "HTTP/1.1 410 Gone\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n")
                }
                _ => write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\nsecond"),
            };
        }
    });
    (address, asked)
}

#[test]
fn what_a_backend_takes_back_goes_in_the_successor_whatever_the_files_say() {
    for (cache, after, filters) in
        [("{ query: { include: [page] } }", "{}", "[]"), ("{}", "{}", "[api_key]"), ("{}", "{ ttl: 7m }", "[]")]
    {
        let (address, asked) = taking_back();
        let mut gw = Gateway::start(&format!(
            "api_keys: [ {{ id: k, sha256: {} }} ]\nservices: {{ a: {{ urls: [\"http://{address}\"] }} }}\nroutes: {{ match: {{ path: /* }}, service: a, filters: {filters}, cache: {cache} }}\n",
            sha256("k")
        ));
        let request = |gw: &Gateway| gw.get("/g?page=1&u=2").header("X-API-Key", "k");
        assert_eq!(request(&gw).expect(200).body, "first");
        thread::sleep(Duration::from_millis(1300));
        let slow = request(&gw);
        let slow = thread::spawn(move || slow.send().status);
        eventually("the backend is asked", || asked.load(SeqCst) == 2);
        let file = gw.path("tollgate.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(&format!("cache: {cache}"), &format!("cache: {after}"))).unwrap();
        let mut predecessor = gw.upgrade();
        serves(&gw, 1);
        assert_eq!(request(&gw).expect(200).body, "second");
        assert_eq!(said(&request(&gw).expect(200)).1, "HIT");
        assert_eq!(slow.join().unwrap(), 410);
        eventually("it is gone", || request(&gw).header("Cache-Control", "only-if-cached").send().status == 504);
        predecessor.wait().unwrap();
    }
}
