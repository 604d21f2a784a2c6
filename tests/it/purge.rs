//! The cache as its operator sees it: what is kept, how it is thrown away, how much room it has.

use std::{
    process::{Command, Output},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cache::{self, Backend, FRESH},
    harness::{Gateway, Origin, Request, binary, eventually, raw_backend, read_head},
};

fn gateway(origin: &str, cache: &str, root: &str) -> Gateway {
    Gateway::start(&format!(
        "{root}services: {{ main: {{ urls: [\"{origin}\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    cache: {cache}\n"
    ))
}

/// A backend whose answers have tags: its path's segments.
fn tagging() -> String {
    let address = raw_backend(|mut stream| {
        use std::io::Write as _;
        loop {
            let head = read_head(&mut stream);
            let Some(path) = head.split(' ').nth(1) else { return };
            let tags = path.split('/').skip(1).collect::<Vec<_>>().join(" ");
            let fields = format!("Cache-Control: max-age=60\r\nSurrogate-Key: {tags}\r\n");
            if write!(stream, "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    });
    format!("http://{address}")
}

fn post(gw: &Gateway, body: &str) -> Request {
    let url = format!("http://127.0.0.1:{}/api/v1/cache/purge", gw.admin);
    Request::new("POST", url).header("Content-Type", "application/json").body(body.as_bytes())
}

pub(crate) fn purged(gw: &Gateway, what: &Value) -> u64 {
    post(gw, &what.to_string()).expect(200).has("content-type", "application/json").json()["purged"].as_u64().unwrap()
}

fn shown(gw: &Gateway) -> Value {
    gw.admin("/api/v1/cache").expect(200).has("content-type", "application/json").json()
}

fn tollgate(gw: &Gateway, arguments: &[&str]) -> Output {
    let file = gw.path("tollgate.yaml");
    Command::new(binary()).args(["cache", "purge", "-c"]).arg(file).args(arguments).output().unwrap()
}

/// What the cache has done for a request.
fn word(gw: &Gateway, path: &str) -> String {
    gw.get(path).header("Host", "a.test").expect(200).get("x-cache").to_owned()
}

#[test]
fn an_empty_cache_has_room_and_nothing_to_purge() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "{}", "cache: { memory: 3MiB }\n");
    for what in [
        json!({ "all": true }),
        json!({ "url": "http://a.test/x?y" }),
        json!({ "prefix": "/x", "soft": true }),
        json!({ "tag": "t", "soft": false, "all": false }),
    ] {
        assert_eq!(purged(&gw, &what), 0, "{what}");
    }
    let empty = json!({
        "bytes": 0, "held": 0, "budget": 3 << 20, "entries": 0, "evictions": 0, "hit_ratio": null, "requests": {}, "largest": [],
        "redis": null, "disk": null, "coded": { "bytes": 0, "entries": 0 },
    });
    assert_eq!(shown(&gw), empty);
    for metric in ["gateway_cache_bytes", "gateway_cache_entries", "gateway_cache_evictions_total"] {
        assert_eq!(gw.metric(metric), Some(0.0), "{metric}");
    }
    gw.admin("/").expect(200).says("/api/v1/cache ").says("/api/v1/cache/purge ");
}

#[test]
fn a_path_may_be_spelled_in_another_way() {
    let backend = crate::cache::Backend::start();
    let gw = crate::cache::gateway(&backend, "{}");
    let path = |path: &str| format!("/r/{path}?{}&b=x", crate::cache::FRESH);
    let all = ["a%2Fb", "a%2fb", "c!d", "c%21d", "c%21%64"].map(path);
    let is_hit = |path: &String| gw.get(path).send().get("x-cache") == "HIT";
    let fill = || assert!(all.iter().all(|path| gw.get(path).send().status == 200));
    let url = |path: &str| json!({ "url": format!("http://127.0.0.1:{}{path}", gw.port) });
    for (purge, count, gone) in [
        (url(&all[0]), 2, [0, 1].as_slice()),
        (url(&all[3]), 2, &[2, 3, 4]),
        (json!({ "url": all[2] }), 2, &[2, 3, 4]),
        (json!({ "prefix": "/r/a%2f" }), 2, &[0, 1]),
        (json!({ "prefix": "/r/c%21" }), 2, &[2, 3, 4]),
    ] {
        fill();
        assert!(all.iter().all(is_hit));
        assert_eq!(purged(&gw, &purge), count, "{purge}");
        for (number, path) in all.iter().enumerate() {
            let only = gw.get(path).header("Cache-Control", "only-if-cached").send();
            assert_eq!(only.status == 504, gone.contains(&number), "{purge}: {path}");
        }
    }
    // A request that changes something says it in its own way, too.
    fill();
    gw.request("PUT", &all[0]).expect(200);
    assert_eq!(all.iter().map(is_hit).collect::<Vec<_>>(), [false, false, true, true, true]);
    // Each is answered as it is spelled: a backend may see a difference.
    let asked = backend.asked();
    assert!(all.iter().all(is_hit) && backend.asked() == asked);
}

#[test]
fn a_purge_that_is_not_clear_is_refused() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "{}", "");
    for (body, says) in [
        ("{}", "give one of"),
        (r#"{"all":false}"#, "give one of"),
        (r#"{"all":true,"tag":"t"}"#, "give one of"),
        (r#"{"url":"/a","prefix":"/a"}"#, "give one of"),
        (r#"{"soft":true}"#, "give one of"),
        (r#"{"urls":["/a"]}"#, "unknown field `urls`"),
        (r#"{"url":7}"#, "expected a string"),
        (r#"{"all":"yes"}"#, "expected a boolean"),
        (r#"{"all":true,"all":true}"#, "duplicate field"),
        (r#"{"url":"a.test/x"}"#, "'url': begins with http://"),
        (r#"{"prefix":""}"#, "'prefix': begins with http://"),
        (r#"{"url":"/%zz"}"#, "'url': "),
        (r#"{"tag":""}"#, "'tag' is empty"),
        ("all", "expected"),
        ("", "EOF"),
    ] {
        let answer = post(&gw, body).expect(400).has("content-type", "application/problem+json");
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{body}: {}", answer.body);
    }
    // What a page of another site can make a browser send.
    let url = format!("http://127.0.0.1:{}/api/v1/cache/purge", gw.admin);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "text/plain;application/json"] {
        let plain = Request::new("POST", url.clone()).header("Content-Type", kind).body(br#"{"all":true}"#);
        plain.expect(415).says("application/json");
    }
    let named = Request::new("POST", url.clone()).header("Host", "evil.example");
    named.header("Content-Type", "application/json").body(br#"{"all":true}"#).expect(421);
    Request::new("POST", url.clone())
        .header("Content-Type", "application/json; charset=utf-8")
        .body(br#"{"all":true}"#)
        .expect(200);
    gw.admin("/api/v1/cache/purge").expect(405).has("allow", "POST").says("POST alone");
    Request::new("POST", format!("http://127.0.0.1:{}/api/v1/cache", gw.admin))
        .body(b"x")
        .expect(405)
        .says("only be read");
    // They are not for clients, whatever is published.
    gw.get("/api/v1/cache").expect(200).says("o");
}

#[test]
fn what_is_purged_is_asked_for_anew() {
    let gw = gateway(&tagging(), "{}", "");
    let paths = ["/a", "/a/b", "/a/c", "/b"];
    let filled = || {
        assert!(post(&gw, r#"{"all":true}"#).expect(200).body.starts_with('{'));
        for path in paths {
            assert_eq!(word(&gw, path), "MISS", "{path}");
            eventually("it is kept", || word(&gw, path) == "HIT");
        }
    };
    for (what, left) in [
        (json!({ "url": "http://a.test/a" }), vec!["/a/b", "/a/c", "/b"]),
        (json!({ "url": "/a/%62" }), vec!["/a", "/a/c", "/b"]),
        (json!({ "prefix": "HTTP://A.test:80/a/" }), vec!["/a", "/b"]),
        (json!({ "prefix": "/a" }), vec!["/b"]),
        (json!({ "tag": "b" }), vec!["/a", "/a/c"]),
        (json!({ "tag": "B" }), paths.to_vec()),
        (json!({ "url": "http://other/a" }), paths.to_vec()),
        (json!({ "all": true }), vec![]),
    ] {
        filled();
        let count = u64::try_from(paths.len() - left.len()).unwrap();
        assert_eq!(purged(&gw, &what), count, "{what}: {}", shown(&gw));
        assert_eq!(purged(&gw, &what), 0, "{what}");
        for path in paths {
            let expected = if left.contains(&path) { "HIT" } else { "MISS" };
            assert_eq!(word(&gw, path), expected, "{path} after {what}");
        }
    }
    filled();
    let seen = shown(&gw);
    assert_eq!(seen["entries"], 4);
    assert!(seen["bytes"].as_u64().unwrap() > 400 && seen["hit_ratio"].as_f64().unwrap() > 0.3, "{seen}");
    assert!(seen["requests"]["hit"].as_u64().unwrap() > 8 && seen["requests"]["miss"].as_u64().unwrap() > 8, "{seen}");
    let largest = seen["largest"].as_array().unwrap();
    assert!(largest.len() == 4 && largest[0]["bytes"].as_u64() >= largest[3]["bytes"].as_u64(), "{seen}");
    assert!(largest.iter().any(|one| one["url"] == "http://a.test/a/b"), "{seen}");
    assert_eq!(gw.metric("gateway_cache_entries"), Some(4.0));
    assert_eq!(gw.metric("gateway_cache_bytes"), seen["bytes"].as_f64());
}

#[test]
fn a_prefix_is_read_as_urls_are() {
    let gw = gateway(&tagging(), "{}", "");
    let keep = |path: &str| {
        word(&gw, path);
        eventually("it is kept", || word(&gw, path) == "HIT");
    };
    for prefix in ["/c/%7Ejo/", "/c/%7ej", "//c/x/../~jo/", "http://A.test:80/c/%7Ejo/1", "/c/%7E", "/%63"] {
        keep("/c/%7Ejo/1");
        assert_eq!(purged(&gw, &json!({ "prefix": prefix })), 1, "{prefix}: {}", shown(&gw));
    }
    keep("/c/.a");
    keep("/c/b");
    assert_eq!(purged(&gw, &json!({ "prefix": "/c/." })), 1, "a dot may be where a name begins");
    for (prefix, says) in [
        ("/c/%7", "'prefix': ends within a percent-encoding"),
        ("http://a.test/c/%", "'prefix': ends within a percent-encoding"),
        ("/%zz/", "'prefix': the path has a malformed percent-encoding"),
        ("/../a", "'prefix': the path climbs above the root"),
    ] {
        let answer = post(&gw, &json!({ "prefix": prefix }).to_string()).expect(400);
        assert!(answer.json()["detail"].as_str().unwrap().contains(says), "{prefix}: {}", answer.body);
    }
}

#[test]
fn what_is_purged_softly_may_still_be_given_while_nobody_answers() {
    let mut origin = Origin::start("o");
    let gw = gateway(&origin.url(), "5m", "");
    assert_eq!(word(&gw, "/x"), "MISS");
    eventually("it is kept", || word(&gw, "/x") == "HIT");
    assert_eq!(purged(&gw, &json!({ "all": true, "soft": true })), 1);
    origin.kill();
    assert_eq!(word(&gw, "/x"), "STALE");
    assert_eq!(purged(&gw, &json!({ "all": true })), 1);
    let gone = gw.get("/x").header("Host", "a.test").send().status;
    assert!(gone == 502 || gone == 503, "{gone}");
}

#[test]
fn an_answer_on_its_way_is_not_kept_when_it_is_purged() {
    let origin = Origin::start("o");
    let gw = gateway(&origin.url(), "5m", "");
    thread::scope(|scope| {
        let slow = scope.spawn(|| gw.get("/slow/600").expect(200));
        eventually("the backend has been asked", || !origin.seen().is_empty());
        assert_eq!(purged(&gw, &json!({ "url": "/slow/600" })), 0);
        assert_eq!(slow.join().unwrap().get("x-cache"), "MISS");
    });
    thread::sleep(Duration::from_millis(50));
    assert_eq!(shown(&gw)["entries"], 0);
}

#[test]
fn the_command_line_purges_too() {
    let gw = gateway(&tagging(), "{}", "");
    for path in ["/a", "/a/b", "/c"] {
        assert_eq!(word(&gw, path), "MISS");
        eventually("it is kept", || word(&gw, path) == "HIT");
    }
    for (arguments, says) in [
        (vec!["--url", "/a"], "1 answer purged\n"),
        (vec!["--tag", "b", "--soft"], "1 answer purged\n"),
        (vec!["--prefix", "/nothing"], "0 answers purged\n"),
        (vec!["--all"], "2 answers purged\n"),
    ] {
        let out = tollgate(&gw, &arguments);
        assert!(out.status.success() && out.stdout == says.as_bytes(), "{arguments:?}: {out:?}");
    }
    let failed = |out: Output, code: i32, says: &str| {
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(code) && text.contains(says) && out.stdout.is_empty(), "{text}");
    };
    failed(tollgate(&gw, &["--url", "a.test"]), 1, "'url': begins with");
    failed(tollgate(&gw, &[]), 2, "--url");
    failed(tollgate(&gw, &["--all", "--tag", "t"]), 2, "cannot be used with");
    let dir = tempfile::tempdir().unwrap();
    let (admin, file) = (gw.admin, dir.path().join("tollgate.yaml"));
    let other = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Command::new(binary()).args(["cache", "purge", "--all", "-c"]).arg(&file).output().unwrap()
    };
    failed(other("nonsense: 1\n"), 78, "unknown key");
    let rest =
        "listeners: [ { address: \"127.0.0.1:1\" } ]\nroutes: [ { match: { path: / }, respond: { body: x } } ]\n";
    failed(other(&format!("{rest}admin: {{ enabled: false }}\n")), 1, "the admin listener is off");
    failed(other(&format!("{rest}admin: {{ address: \"127.0.0.1:{}\" }}\n", gw.port)), 1, "no admin listener");
    drop(gw);
    failed(other(&format!("{rest}admin: {{ address: \"127.0.0.1:{admin}\" }}\n")), 1, "cannot be asked at");
}

#[test]
fn the_budget_of_the_file_is_that_of_the_process() {
    let address = raw_backend(|mut stream| {
        use std::io::Write as _;
        while !read_head(&mut stream).is_empty() {
            let fields = "Cache-Control: max-age=60\r\nContent-Length: 100000\r\n";
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{fields}\r\n{}", "x".repeat(100_000));
        }
    });
    let mut gw = gateway(&format!("http://{address}"), "{}", "cache: { memory: 1MiB }\n");
    for number in 0..40 {
        gw.get(&format!("/{number}")).expect(200);
    }
    eventually("the last is kept", || shown(&gw)["evictions"].as_u64().unwrap() > 20);
    let seen = shown(&gw);
    let bytes = seen["bytes"].as_u64().unwrap();
    assert!(bytes > 300_000 && bytes <= 1 << 20, "{seen}");
    assert!(gw.metric("gateway_cache_evictions_total") >= seen["evictions"].as_f64());
    // A successor has the room that its file says, and what was kept before.
    let text = gw.read("tollgate.yaml").replace("1MiB", "2MiB");
    std::fs::write(gw.path("tollgate.yaml"), text).unwrap();
    gw.upgrade().wait().unwrap();
    let seen = shown(&gw);
    assert_eq!(seen["budget"], json!(2 << 20), "{seen}");
    eventually("it has what was kept before", || shown(&gw)["entries"].as_u64() > Some(3));
}

#[test]
fn a_prefix_may_say_the_port_and_the_dot_that_are_in_no_url() {
    let backend = Backend::start();
    let gw = cache::gateway(&backend, "{}");
    for prefix in ["http://a.test:80", "http://a.test:80/", "http://a.test.", "http://A.TEST"] {
        gw.get(&format!("/p?{FRESH}")).header("Host", "a.test").expect(200);
        assert_eq!(purged(&gw, &json!({ "prefix": prefix })), 1, "{prefix}");
    }
    gw.get(&format!("/p?{FRESH}")).header("Host", "a.test:8080").expect(200);
    assert_eq!(purged(&gw, &json!({ "prefix": "http://a.test:8081" })), 0);
    assert_eq!(purged(&gw, &json!({ "prefix": "http://a.test:8080" })), 1);
}
