//! The other filters, and what the gateway tells backends about clients.

use std::io::Read as _;

use crate::harness::{Gateway, Origin, eventually};

fn gateway(origin: &Origin, filters: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - id: r\n    match: {{ path: /*, method: [GET, POST] }}\n    service: main\n    filters:\n{filters}\n",
        origin.url()
    ))
}

#[test]
fn cors_answers_preflights_and_marks_answers() {
    let origin = Origin::start("o");
    let cors = "      - cors: { origins: [\"https://app.example\", \"https://*.shop.example\"], methods: [GET, POST], headers: [X-A], credentials: true, max_age: 1m, expose_headers: [X-B] }\n      - ip: { deny: [127.0.0.1] }";
    let gw = gateway(&origin, cors, "");
    let preflight = |from: &str| {
        gw.request("OPTIONS", "/").header("Origin", from).header("Access-Control-Request-Method", "POST").send()
    };
    let answer = preflight("https://app.example");
    assert_eq!(answer.status, 204);
    let answer = answer
        .has("access-control-allow-origin", "https://app.example")
        .has("access-control-allow-methods", "GET, POST")
        .has("access-control-allow-headers", "X-A")
        .has("access-control-allow-credentials", "true")
        .has("access-control-max-age", "60")
        .has("vary", "Origin");
    assert!(answer.get("access-control-expose-headers").contains("X-B"));
    assert_eq!(preflight("https://a.shop.example").status, 204);
    let refused = preflight("https://evil.example");
    assert_eq!(refused.status, 403);
    refused.lacks("access-control-allow-origin");
    // An error of the gateway's own carries the headers too, or the page could not read it.
    gw.get("/")
        .header("Origin", "https://app.example")
        .expect(403)
        .has("access-control-allow-origin", "https://app.example")
        .problem();
    assert!(origin.seen().is_empty());
    let open = gateway(&origin, "      - cors: { origins: [\"*\"] }", "");
    open.get("/")
        .header("Origin", "https://any.example")
        .expect(200)
        .has("access-control-allow-origin", "*")
        .lacks("vary");
}

#[test]
fn headers_change_both_ways() {
    let origin = Origin::start("o");
    let edits = "      - headers: { request: { set: { X-S: new }, add: { X-T: more }, remove: [X-U] }, response: { set: { X-R: here }, remove: [Content-Type] } }";
    let gw = gateway(&origin, edits, "");
    gw.get("/")
        .header("X-S", "old")
        .header("X-T", "one")
        .header("X-U", "gone")
        .expect(200)
        .has("x-r", "here")
        .lacks("content-type");
    let seen = origin.last().headers;
    assert_eq!(seen.get_all("x-s").iter().collect::<Vec<_>>(), ["new"]);
    assert_eq!(seen.get_all("x-t").iter().collect::<Vec<_>>(), ["one", "more"]);
    assert!(!seen.contains_key("x-u"));
}

#[test]
fn addresses_are_let_in_or_not() {
    let origin = Origin::start("o");
    gateway(&origin, "      - ip: { deny: [127.0.0.0/8] }", "").get("/").expect(403).problem();
    gateway(&origin, "      - ip: { allow: [127.0.0.0/8] }", "").get("/").expect(200);
    let gw = gateway(&origin, "      - ip: { allow: [203.0.113.0/24] }", "trusted_proxies: [127.0.0.1]");
    gw.get("/").expect(403);
    gw.get("/").header("X-Forwarded-For", "203.0.113.9").expect(200);
    gw.get("/").header("X-Forwarded-For", "203.0.113.9, 198.51.100.1").expect(403);
}

#[test]
fn request_ids_are_made_kept_and_shown() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - request_id", "");
    let made = gw.get("/").expect(200).get("x-request-id").to_owned();
    assert_eq!(made.len(), 32);
    assert_eq!(origin.last().headers["x-request-id"], made.as_str());
    gw.get("/").header("X-Request-ID", "mine-1").expect(200).has("x-request-id", "mine-1");
    assert_ne!(gw.get("/").header("X-Request-ID", "bad id").expect(200).get("x-request-id"), "bad id");
    let log = gw.log(3);
    assert!(log.iter().any(|line| line["id"] == "mine-1") && log.iter().any(|line| line["id"] == made.as_str()));
}

#[test]
fn answers_are_compressed_for_those_who_can_read_them() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - compression: { level: 6 }", "");
    let plain = gw.get("/big").expect(200).lacks("content-encoding").has("vary", "Accept-Encoding").body;
    for coding in ["gzip", "br", "zstd"] {
        let answer = gw.raw(
            format!("GET /big HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {coding}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        assert!(answer.to_lowercase().contains(&format!("content-encoding: {coding}")), "{coding}: {answer}");
        assert!(answer.len() < plain.len() / 4, "{coding}: {} of {} bytes", answer.len(), plain.len());
    }
}

#[test]
fn requests_at_the_same_time_are_counted() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - in_flight: { max: 1 }", "");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| gw.get("/slow/700").expect(200));
        eventually("the slow request is under way", || !origin.seen().is_empty());
        gw.get("/").expect(429).has("retry-after", "1").problem();
        slow.join().unwrap();
    });
    eventually("the place is free again", || gw.get("/").send().status == 200);
}

#[test]
fn backends_learn_of_the_client_only_from_us() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - request_id", "");
    gw.get("/")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X_Forwarded_For", "6.6.6.6")
        .header("X-Real-IP", "6.6.6.6")
        .header("Forwarded", "for=6.6.6.6")
        .header("X-Forwarded-Proto", "https")
        .expect(200);
    let seen = origin.last().headers;
    assert_eq!(seen.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(
        (&seen["x-real-ip"], &seen["x-forwarded-proto"]),
        (&"127.0.0.1".parse().unwrap(), &"http".parse().unwrap())
    );
    assert!(!seen.contains_key("forwarded") && !seen.contains_key("x_forwarded_for"));
    let trusting = gateway(&origin, "      - request_id", "trusted_proxies: [127.0.0.1]");
    trusting.get("/").header("X-Forwarded-For", "203.0.113.9").header("X-Forwarded-Proto", "https").expect(200);
    let seen = origin.last().headers;
    assert_eq!(seen["x-forwarded-for"], "203.0.113.9, 127.0.0.1");
    assert_eq!(
        (&seen["x-real-ip"], &seen["x-forwarded-proto"]),
        (&"203.0.113.9".parse().unwrap(), &"https".parse().unwrap())
    );
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - request_id", "");
    let head = "GET /odd HTTP/1.1\r\nHost: h\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nProxy-Authorization: x\r\n\r\n";
    let answer = gw.raw(head.as_bytes()).to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!answer.contains("x-private") && !answer.contains("keep-alive: timeout"), "{answer}");
    let seen = origin.last().headers;
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization"] {
        assert!(!seen.contains_key(name), "{name}: {seen:?}");
    }
}

/// `gzip` is checked by a real reader, not by its header.
#[test]
fn gzip_can_be_read_back() {
    let origin = Origin::start("o");
    let gw = gateway(&origin, "      - compression", "");
    let curl = crate::harness::program("curl", "curl");
    let out = std::process::Command::new(curl)
        .args(["-s", "--compressed"])
        .arg(format!("http://127.0.0.1:{}/big", gw.port))
        .output()
        .unwrap();
    let mut text = String::new();
    out.stdout.as_slice().read_to_string(&mut text).unwrap();
    assert_eq!(text, "tollgate ".repeat(1200));
}

#[test]
fn a_request_id_of_ours_is_the_only_one_in_any_spelling() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /own }}, service: main, filters: [ {{ request_id: {{ trust: false }} }} ] }}\n  - {{ match: {{ path: /* }}, service: main, filters: [request_id] }}\n",
        origin.url()
    ));
    for path in ["/own", "/any"] {
        gw.get(path).header("X_Request_ID", "forged").header("X-Request_ID", "forged").expect(200);
        let seen = origin.last().headers;
        let ids: Vec<_> = seen.keys().filter(|name| name.as_str().replace('_', "-") == "x-request-id").collect();
        assert_eq!(ids, ["x-request-id"], "{path}");
        assert_ne!(seen["x-request-id"], "forged");
    }
}
