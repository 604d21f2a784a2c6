//! What memory has no room for is kept on disk: given again, purged, bounded, and no harm when the disk does not do.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    cache::{Backend, FRESH, said},
    harness::{Gateway, Request, binary, eventually, raw_backend, read_head},
    purge::purged,
};

/// With one MiB of memory: of answers of 100 KB, not ten have room.
fn gateway(backend: &Backend, disk: &str, cache: &str) -> Gateway {
    Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: \"{{dir}}\"{disk} }} }}\nservices: {{ a: {{ urls: [\"http://{}\"], retry: {{ max_attempts: 1 }} }} }}\nroutes: [{{ match: {{ path: /* }}, service: a, cache: {cache} }}]\n",
        backend.address
    ))
}

fn path(number: usize) -> String {
    format!("/o/{number}?{FRESH}&h=Cache-Tag:n{number}&h=ETag:%22e{number}%22&b=*100000")
}

fn fill(gw: &Gateway, count: usize) {
    eventually("there is a folder", || shown(gw)["state"] == "up");
    for number in 0..count {
        assert_eq!(gw.get(&path(number)).expect(200).body.len(), 100_000);
    }
    // What waits to be written is bounded: these came slower than that.
    eventually("all that was pushed out is on disk", || shown(gw)["entries"].as_u64() > Some(count as u64 - 12));
}

fn shown(gw: &Gateway) -> serde_json::Value {
    gw.admin("/api/v1/cache").expect(200).json()["disk"].clone()
}

fn folders(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tollgate-cache-")).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let inner = folders(directory).into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let inner = inner.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    inner.flat_map(|path| fs::read_dir(path).unwrap()).map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_memory_pushes_out_is_given_from_disk() {
    let backend = Backend::start();
    let gw = gateway(&backend, "", "{}");
    fill(&gw, 40);
    assert_eq!(backend.asked(), 40);
    for number in 0..40 {
        let hit = gw.get(&path(number)).expect(200);
        assert_eq!((said(&hit).1.as_str(), hit.body.len()), ("HIT", 100_000), "{number}: {hit:?}");
        assert!(hit.get("age").parse::<u64>().unwrap() < 60 && said(&hit).2.starts_with("tollgate; hit; ttl="));
    }
    // A part, a condition and a HEAD ask for nothing that is not there either.
    let part = gw.get(&path(0)).header("Range", "bytes=10-19").send();
    assert_eq!((part.status, part.body.len(), said(&part).1.as_str()), (206, 10, "HIT"));
    assert_eq!(gw.get(&path(1)).header("If-None-Match", "\"e1\"").send().status, 304);
    assert_eq!(said(&gw.request("HEAD", &path(2)).send()).1, "HIT");
    let only = gw.get(&path(3)).header("Cache-Control", "only-if-cached").send();
    assert_eq!(said(&only).1, "HIT");
    assert_eq!(backend.asked(), 40);
    assert!(gw.metric("gateway_cache_disk_reads_total{result=\"ok\"}") >= Some(20.0));
    assert!(gw.metric("gateway_cache_disk_bytes") > Some(2e6) && gw.metric("gateway_cache_disk_up") == Some(1.0));
    // Nobody else may look into it.
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folders(gw.dir.path())[0]), mode(&files(gw.dir.path())[0])), (0o700, 0o600));
}

#[test]
fn variants_that_memory_has_no_room_for_are_given_from_there() {
    let backend = Backend::start();
    let gw = gateway(&backend, "", "{}");
    eventually("there is a folder", || shown(&gw)["state"] == "up");
    let path = format!("/v?{FRESH}&h=Vary:X-Kind&b=*100000");
    let ask = |number: usize| gw.get(&path).header("X-Kind", &number.to_string()).expect(200);
    for number in 0..20 {
        ask(number);
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
    for number in 0..20 {
        let hit = ask(number);
        assert_eq!((said(&hit).1.as_str(), hit.body.len()), ("HIT", 100_000), "{number}: {hit:?}");
    }
    assert_eq!(backend.asked(), 20);
}

#[test]
fn a_purge_takes_away_what_is_on_disk_and_on_its_way_there() {
    let backend = Backend::start();
    let gw = gateway(&backend, "", "{}");
    fill(&gw, 30);
    let host = format!("http://127.0.0.1:{}", gw.port);
    let misses = |numbers: &[usize]| numbers.iter().all(|number| said(&gw.get(&path(*number)).send()).1 == "MISS");
    assert_eq!(purged(&gw, &json!({ "tag": "n0" })), 1);
    assert_eq!(purged(&gw, &json!({ "url": format!("{host}{}", path(1)) })), 1);
    assert_eq!(purged(&gw, &json!({ "prefix": "/o/2?", "soft": true })), 1);
    assert!(misses(&[0, 1, 2]));
    // One that is in memory, too, is one.
    assert_eq!(said(&gw.get(&path(10)).send()).1, "HIT");
    assert_eq!(purged(&gw, &json!({ "tag": "n10" })), 1);
    // A request that changes something does the same.
    gw.request("POST", &path(3)).body(b"").expect(200);
    assert!(misses(&[3]));
    assert!(purged(&gw, &json!({ "all": true })) >= 25);
    assert!(misses(&(0..30).collect::<Vec<_>>()));
    eventually("files go with their answers", || files(gw.dir.path()).len() < 35);
    // While it goes on.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| (0..200).for_each(|number| drop(gw.get(&path(number % 50)).expect(200))));
        while !asking.is_finished() {
            purged(&gw, &json!({ "all": true }));
        }
    });
    purged(&gw, &json!({ "all": true }));
    assert!(misses(&(0..50).collect::<Vec<_>>()), "{}", shown(&gw));
}

#[test]
fn variants_and_clients_are_kept_apart_there_too() {
    let backend = Backend::start();
    let keys = ["one", "two"].map(|key| format!("{{ id: {key}, sha256: {} }}", crate::auth::sha256(key)));
    let gw = Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: \"{{dir}}\" }} }}\napi_keys: [ {} ]\nservices: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes:\n  - {{ match: {{ path: /own/* }}, service: a, filters: [ api_key ], cache: {{}} }}\n  - {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        keys.join(", "),
        backend.address
    ));
    let own = format!("/own/x?{FRESH}&b=own");
    let varied = format!("/v?{FRESH}&h=Vary:X-Kind&e=x-kind");
    let ask = |key: &str| gw.get(&own).header("X-API-Key", key).expect(200);
    let kind = |kind: &str| gw.get(&varied).header("X-Kind", kind).expect(200);
    let first = ["one", "two"].map(|key| ask(key).body);
    let kinds = ["a", "b"].map(|name| kind(name).body);
    assert!(first[0] != first[1] && kinds[0].contains(": a") && kinds[1].contains(": b"), "{kinds:?}");
    fill(&gw, 40);
    for _ in 0..2 {
        for (key, body) in ["one", "two"].iter().zip(&first) {
            assert_eq!((&ask(key).body, said(&ask(key)).1.as_str()), (body, "HIT"));
        }
        for (name, body) in ["a", "b"].iter().zip(&kinds) {
            assert_eq!((&kind(name).body, said(&kind(name)).1.as_str()), (body, "HIT"));
        }
        fill(&gw, 40);
    }
    assert_eq!(said(&kind("c")).1, "MISS");
}

#[test]
fn it_has_a_bound_in_bytes_and_in_files() {
    let backend = Backend::start();
    for (disk, most) in [(", size: 16MiB", 168), (", files: 20", 21)] {
        let gw = gateway(&backend, disk, "{}");
        eventually("there is a folder", || shown(&gw)["state"] == "up");
        for number in 0..220 {
            gw.get(&path(number)).expect(200);
        }
        eventually("files go", || files(gw.dir.path()).len() <= most);
        let shown = shown(&gw);
        assert!(shown["bytes"].as_u64() <= Some(16 << 20) && shown["entries"].as_u64() >= Some(10), "{shown}");
    }
}

#[test]
fn a_file_that_was_altered_is_not_given() {
    let backend = Backend::start();
    let gw = gateway(&backend, "", "{}");
    fill(&gw, 30);
    let all = files(gw.dir.path());
    for (number, file) in all.iter().enumerate() {
        match number % 3 {
            0 => {
                let mut bytes = fs::read(file).unwrap();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                fs::write(file, bytes).unwrap();
            }
            1 => fs::remove_file(file).unwrap(),
            // Another one's: by its sum it is whole.
            _ => drop(fs::copy(&all[0], file).unwrap()),
        }
    }
    // Each read that fails is one of three after which nothing is read for a while; here they are answers of the backend.
    for number in 0..30 {
        let answer = gw.get(&path(number)).expect(200);
        assert!(!answer.body.contains('\u{1}') && answer.body.starts_with("xx") && answer.body.len() == 100_000);
        assert!(answer.get("cache-tag").ends_with(&format!("n{number}")));
    }
    assert!(gw.metric("gateway_cache_disk_reads_total{result=\"altered\"}") > Some(0.0));
    assert!(gw.metric("gateway_cache_disk_reads_total{result=\"error\"}") > Some(0.0));
}

#[test]
fn a_full_disk_costs_hits_and_nothing_else() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    gw.child.kill().unwrap();
    gw.wait();
    start_limited(&mut gw);
    eventually("there is a folder", || shown(&gw)["state"] == "up");
    for number in 0..40 {
        gw.get(&path(number)).expect(200);
    }
    eventually("it is left alone", || gw.metric("gateway_cache_disk_up") == Some(0.0));
    assert!(gw.metric("gateway_cache_disk_writes_total{result=\"error\"}") >= Some(3.0));
    assert!(files(gw.dir.path()).is_empty(), "what was half written is gone");
    assert_eq!(gw.errors().matches("answers on disk").count(), 1, "once in a minute: {}", gw.errors());
    assert_eq!(shown(&gw)["state"], "down");
    for number in 0..40 {
        gw.get(&path(number)).expect(200);
    }
}

/// No file may have more than 64 KB: a write ends in the middle, with an error.
fn start_limited(gw: &mut Gateway) {
    gw.child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" -c \"$1\" 2>\"$2\" >/dev/null", &binary()])
        .args([gw.path("tollgate.yaml"), gw.path("stderr")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it answers again", || {
        let live = Request::new("GET", format!("http://127.0.0.1:{}/health/live", gw.admin));
        live.try_send().is_ok_and(|answer| answer.status == 200)
    });
}

/// The successor serves alone; what keeps the process before until it has all is nothing but that.
fn taken_over(gw: &mut Gateway) {
    let mut old = gw.upgrade();
    assert!(old.wait().unwrap().success());
}

fn is_hit(gw: &Gateway, path: &str) -> bool {
    said(&gw.get(path).expect(200)).1 == "HIT"
}

#[test]
fn a_successor_has_what_is_on_disk() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    let varied = format!("/v?{FRESH}&h=Vary:X-Kind,X-None&e=x-kind");
    let kind = |gw: &Gateway, kind: &str| gw.get(&varied).header("X-Kind", kind).expect(200);
    let kinds = ["a", "b"].map(|name| kind(&gw, name).body);
    fill(&gw, 60);
    let url = |gw: &Gateway, number| format!("http://127.0.0.1:{}{}", gw.port, path(number));
    assert_eq!(purged(&gw, &json!({ "url": url(&gw, 7) })), 1);
    std::thread::sleep(Duration::from_millis(1100));
    for round in 0..2 {
        let asked = backend.asked();
        taken_over(&mut gw);
        for number in (0..60).filter(|number| *number != 7) {
            let hit = gw.get(&path(number)).expect(200);
            assert_eq!((said(&hit).1.as_str(), hit.body.len()), ("HIT", 100_000), "{round} {number}: {hit:?}");
            assert!((1..50).contains(&hit.get("age").parse::<u64>().unwrap()), "as old as it was: {hit:?}");
        }
        for (name, body) in ["a", "b"].iter().zip(&kinds) {
            let hit = kind(&gw, name);
            assert_eq!((&hit.body, said(&hit).1.as_str()), (body, "HIT"));
        }
        assert_eq!(backend.asked(), asked, "nobody has asked again");
        assert_eq!(folders(gw.dir.path()).len(), 1);
        assert!(files(gw.dir.path()).len() < 75, "{}", shown(&gw));
        let of_there = gw.metric("gateway_cache_disk_reads_total{result=\"ok\"}");
        assert!(of_there >= Some(40.0), "{of_there:?}");
    }
    assert!(!is_hit(&gw, &path(7)) && said(&kind(&gw, "c")).1 == "MISS");
    assert_eq!(purged(&gw, &json!({ "tag": "n20" })), 1, "it can be purged");
    assert_eq!(purged(&gw, &json!({ "url": url(&gw, 21) })), 1);
    assert!(!is_hit(&gw, &path(20)) && !is_hit(&gw, &path(21)) && is_hit(&gw, &path(22)));
}

#[test]
fn what_is_purged_in_either_process_is_not_taken_over() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    let slow = format!("/slow?{FRESH}&b=x&d=2500");
    gw.get(&slow).expect(200);
    fill(&gw, 30);
    // What keeps the process before, and takes away what it has given by then.
    let (asked, url) = (backend.asked(), format!("http://127.0.0.1:{}{slow}", gw.port));
    let post = std::thread::spawn(move || Request::new("POST", url).body(b"").send().status);
    eventually("the backend has it", || backend.asked() > asked);
    let mut old = gw.upgrade();
    eventually("the successor serves", || gw.errors().matches("listening on").count() > 1);
    // It has it already, or has it still to come.
    assert!(purged(&gw, &json!({ "tag": "n4" })) <= 1);
    eventually("it has all", || shown(&gw)["entries"].as_u64() > Some(17));
    assert!(!is_hit(&gw, &path(4)) && is_hit(&gw, &slow) && is_hit(&gw, &path(5)));
    assert_eq!(post.join().unwrap(), 200);
    assert!(old.wait().unwrap().success());
    assert!(!is_hit(&gw, &slow) && is_hit(&gw, &path(5)));
}

#[test]
fn what_a_process_leaves_is_removed() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    fill(&gw, 30);
    let before = folders(gw.dir.path());
    taken_over(&mut gw);
    assert!(!before[0].exists(), "what ends in order leaves nothing");
    gw.child.kill().unwrap();
    gw.wait();
    assert!(!folders(gw.dir.path()).is_empty());
    gw.start_again();
    eventually("only its own is there", || {
        let now = folders(gw.dir.path());
        now.len() == 1 && !before.contains(&now[0])
    });
    fill(&gw, 30);
    assert_eq!(said(&gw.get(&path(0)).send()).1, "HIT");
}

fn ended(gw: &mut Gateway, signal: Signal) {
    gw.signal(signal);
    gw.wait();
}

#[test]
fn a_process_that_is_started_in_its_place_has_what_there_was() {
    let backend = Backend::start();
    let keys = format!("api_keys: [ {{ id: k, sha256: {} }} ]", crate::auth::sha256("k"));
    let mut gw = Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: \"{{dir}}\" }} }}\n{keys}\nservices: {{ a: {{ urls: [\"http://{}\"] }} }}\nroutes:\n  - {{ match: {{ path: /own/* }}, service: a, filters: [ api_key ], cache: {{}} }}\n  - {{ match: {{ path: /* }}, service: a, cache: {{}} }}\n",
        backend.address
    ));
    let (varied, own) = (format!("/v?{FRESH}&h=Vary:X-Kind&e=x-kind"), format!("/own/x?{FRESH}&b=own"));
    let kind = |gw: &Gateway| gw.get(&varied).header("X-Kind", "a").expect(200);
    let of_one = |gw: &Gateway| said(&gw.get(&own).header("X-API-Key", "k").expect(200)).1;
    let short = "/short?h=Cache-Control:max-age=3&b=x";
    fill(&gw, 40);
    let body = kind(&gw).body;
    assert_eq!(of_one(&gw), "MISS");
    gw.get(short).expect(200);
    assert_eq!(purged(&gw, &json!({ "tag": "n7" })), 1);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let asked = backend.asked();
        ended(&mut gw, signal);
        std::thread::sleep(Duration::from_millis(1600));
        gw.start_again();
        eventually("it has all", || shown(&gw)["entries"].as_u64() > Some(39));
        for number in (0..40).filter(|number| *number != 7) {
            let hit = gw.get(&path(number)).expect(200);
            assert_eq!((said(&hit).1.as_str(), hit.body.len()), ("HIT", 100_000), "{number}: {hit:?}");
            assert!((1..50).contains(&hit.get("age").parse::<u64>().unwrap()), "as old as it is: {hit:?}");
        }
        let hit = kind(&gw);
        assert_eq!((&hit.body, said(&hit).1.as_str()), (&body, "HIT"));
        assert_eq!(backend.asked(), asked, "nobody has asked again");
        assert_eq!(folders(gw.dir.path()).len(), 1);
    }
    assert!(!is_hit(&gw, &path(7)) && !is_hit(&gw, short) && of_one(&gw) == "MISS");
    assert_eq!(purged(&gw, &json!({ "tag": "n20" })), 1, "it can be purged");
    assert!(!is_hit(&gw, &path(20)));
    // Other services may answer something else.
    ended(&mut gw, Signal::SIGTERM);
    let text = gw.read("tollgate.yaml");
    fs::write(gw.path("tollgate.yaml"), text.replace("services: { a: { ", "services: { a: { sticky: { cookie: c }, "))
        .unwrap();
    let before = folders(gw.dir.path());
    gw.start_again();
    eventually("what was left is removed", || !before[0].exists());
    assert!((0..40).all(|number| !is_hit(&gw, &path(number))));
}

#[test]
fn whoever_begins_takes_what_was_left_or_nobody_does() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    let file = gw.read("tollgate.yaml");
    let disk = file.lines().find(|line| line.starts_with("cache:")).unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    for other in
        ["cache: { memory: 1MiB }", &disk.replace(gw.dir.path().to_str().unwrap(), elsewhere.path().to_str().unwrap())]
    {
        assert_ne!(other, disk);
        gw.get(&path(1)).expect(200);
        gw.get(&path(2)).expect(200);
        ended(&mut gw, Signal::SIGTERM);
        let left = folders(gw.dir.path());
        fs::write(gw.path("tollgate.yaml"), file.replace(&disk, other)).unwrap();
        gw.start_again();
        purged(&gw, &json!({ "tag": "n1" }));
        gw.request("POST", &path(2)).expect(200);
        ended(&mut gw, Signal::SIGTERM);
        fs::write(gw.path("tollgate.yaml"), &file).unwrap();
        gw.start_again();
        eventually("what was left is removed", || !left[0].exists());
        assert!(!is_hit(&gw, &path(1)) && !is_hit(&gw, &path(2)), "{other}");
    }
}

#[test]
fn whoever_takes_over_from_another_process_does_not_take_what_was_left_before_that() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    gw.get(&path(1)).expect(200);
    ended(&mut gw, Signal::SIGTERM);
    let file = gw.read("tollgate.yaml");
    fs::write(gw.path("tollgate.yaml"), file.replace("/pid,", "/other,")).unwrap();
    gw.start_again();
    purged(&gw, &json!({ "all": true }));
    fs::write(gw.path("tollgate.yaml"), &file).unwrap();
    taken_over(&mut gw);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(!is_hit(&gw, &path(1)));
}

#[test]
fn one_that_the_process_before_still_owes_a_word_leaves_nothing() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    let slow = format!("/slow?{FRESH}&b=x&hold");
    gw.get(&slow).expect(200);
    let post = crate::handed_on::post(&gw, &backend, &slow);
    let mut old = gw.upgrade();
    crate::handed_on::serves(&gw, 1);
    assert!(is_hit(&gw, &slow));
    ended(&mut gw, Signal::SIGTERM);
    gw.start_again();
    assert!(old.try_wait().unwrap().is_none(), "it still has the request");
    backend.let_go();
    assert_eq!(post.join().unwrap(), 200);
    assert!(!is_hit(&gw, &slow));
    old.wait().unwrap();
}

#[test]
fn what_there_is_no_room_for_is_not_left_and_all_else_is() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    gw.child.kill().unwrap();
    gw.wait();
    start_limited(&mut gw);
    let small = |number: usize| path(number).replace("b=*100000", "b=*10000");
    (0..30).for_each(|number| drop(gw.get(&small(number)).expect(200)));
    (40..43).for_each(|number| drop(gw.get(&path(number)).expect(200)));
    assert!((0..30).all(|number| is_hit(&gw, &small(number))) && is_hit(&gw, &path(40)));
    ended(&mut gw, Signal::SIGTERM);
    assert!(gw.errors().contains("not all that is in memory is left"), "{}", gw.errors());
    gw.start_again();
    eventually("it has the others", || shown(&gw)["entries"].as_u64() == Some(30));
    assert!((0..30).all(|number| is_hit(&gw, &small(number))) && !is_hit(&gw, &path(40)));
}

#[test]
fn what_was_left_is_looked_at_before_it_is_taken() {
    let backend = Backend::start();
    let mut gw = gateway(&backend, "", "{}");
    fill(&gw, 30);
    ended(&mut gw, Signal::SIGTERM);
    let [left] = &folders(gw.dir.path())[..] else { panic!("one is left") };
    let list = fs::read(left.join("list")).unwrap();
    let word = fs::read(gw.path("pid.left")).unwrap();
    let mut altered = list.clone();
    *altered.last_mut().unwrap() ^= 1;
    for (list, least) in [(&list[..list.len() / 2], 5), (&altered, 20), (&[], 0)] {
        fs::write(left.join("list"), list).unwrap();
        fs::write(gw.path("pid.left"), &word).unwrap();
        let files = files(gw.dir.path()).into_iter().filter(|file| file.starts_with(left));
        let files = files.map(|file| (fs::read(&file).unwrap(), file)).collect::<Vec<_>>();
        gw.start_again();
        eventually("what was left is removed", || !left.exists());
        let entries = shown(&gw)["entries"].as_u64().unwrap();
        assert!((least..30).contains(&entries), "{entries}");
        gw.child.kill().unwrap();
        gw.wait();
        for (bytes, file) in files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        fs::write(left.join("lock"), "").unwrap();
    }
    // A pipe is not waited for.
    let pipe = gw.dir.path().join("tollgate-cache-1-2");
    fs::create_dir(&pipe).unwrap();
    fs::write(pipe.join("lock"), "").unwrap();
    nix::unistd::mkfifo(&pipe.join("list"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Another gateway leaves alone for a day what this one has left.
    fs::write(left.join("list"), &list).unwrap();
    let other = Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: {} }} }}\nroutes: {{ match: {{ path: /* }}, respond: {{ body: x }} }}\n",
        gw.dir.path().display()
    ));
    eventually("it has looked", || shown(&other)["state"] == "up" && folders(gw.dir.path()).len() == 2);
    assert!(left.exists());
    drop(other);
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    fs::File::options().write(true).open(left.join("list")).unwrap().set_modified(yesterday).unwrap();
    let _other = Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: {} }} }}\nroutes: {{ match: {{ path: /* }}, respond: {{ body: x }} }}\n",
        gw.dir.path().display()
    ));
    eventually("what is forgotten is removed", || !left.exists());
}

#[test]
fn what_came_before_does_not_take_the_place_of_what_is_on_disk() {
    let (asked, backend) = (Arc::new(AtomicUsize::new(0)), Backend::start());
    let slow = raw_backend(move |mut stream| {
        while let head = read_head(&mut stream)
            && !head.is_empty()
        {
            let number = asked.fetch_add(1, SeqCst) + 1;
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nanswer ");
            if head.to_lowercase().contains("x-slow") {
                std::thread::sleep(Duration::from_secs(2));
            }
            let _ = write!(stream, "{number:03}");
        }
    });
    let gw = Gateway::start(&format!(
        "cache: {{ memory: 1MiB, disk: {{ path: \"{{dir}}\" }} }}\nservices: {{ a: {{ urls: [\"http://{}\"] }}, slow: {{ urls: [\"http://{slow}\"] }} }}\nroutes: [{{ match: {{ path: /o/* }}, service: a, cache: {{}} }}, {{ match: {{ path: /slow }}, service: slow, cache: {{}} }}]\n",
        backend.address
    ));
    let anew = || gw.get("/slow").header("Cache-Control", "no-cache");
    assert_eq!(gw.get("/slow").send().body, "answer 001");
    std::thread::scope(|scope| {
        let early = scope.spawn(|| anew().header("X-Slow", "1").send().body);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(anew().send().body, "answer 003");
        // Twice, for what has been asked for again stays longest.
        (0..2).for_each(|_| fill(&gw, 40));
        assert_eq!(early.join().unwrap(), "answer 002");
    });
    let hit = gw.get("/slow").send();
    assert_eq!((hit.body.as_str(), said(&hit).1.as_str()), ("answer 003", "HIT"), "{hit:?}");
}
