//! What an answer is kept under is what its backend was told, and what an unsafe request takes away is found by its URL.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use serde_json::json;

use crate::{
    cache::{Backend, FRESH, gateway, said},
    harness::{Gateway, eventually},
    purge::purged,
};

#[test]
fn fields_that_are_kept_from_the_backend_make_no_key() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ key_headers: [X-Currency] }");
    for (name, field) in [("origin", "Origin"), ("x-currency", "X-Currency")] {
        let path = format!("/{name}?{FRESH}&h=Vary:Origin&e={name}");
        let asked = || gw.get(&path).header(field, "https://shop.test");
        let poison = asked().header("connection", field).send();
        assert!(!poison.body.contains("shop.test"), "{poison:?}");
        assert_eq!(said(&poison).1, "BYPASS");
        assert!(said(&poison).2.contains("connection-field"), "{poison:?}");
        let clean = asked().send();
        assert!(said(&clean).1 == "MISS" && clean.body.contains("shop.test"), "{clean:?}");
        assert_eq!(said(&asked().header("connection", "TE, close").header("te", "trailers").send()).1, "HIT");
    }
}

#[test]
fn another_spelling_of_a_field_is_that_field() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ key_headers: [X-Currency], bypass_if: { header: [X-Preview] } }");
    for field in ["x_preview", "x_currency"] {
        let answer = gw.get(&format!("/a?{FRESH}")).header(field, "1").send();
        assert_eq!(said(&answer).1, "BYPASS", "{answer:?}");
    }
    let answer = gw.get(&format!("/v?{FRESH}&h=Vary:X-Tone")).header("x-tone", "1").header("x_tone", "2").send();
    assert!(said(&answer).2.ends_with("detail=vary-any"), "{answer:?}");
    assert_eq!(said(&gw.get(&format!("/v?{FRESH}&h=Vary:X-Tone")).header("x_other", "2").send()).1, "MISS");
}

#[test]
fn each_spelling_of_a_host_has_its_own_answers() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{}");
    let path = format!("/h?{FRESH}&e=host");
    for host in ["shop.test.", "SHOP.test", "shop.test:", "shop.test:80", "shop.test"] {
        let answer = gw.get(&path).header("Host", host).send();
        assert!(
            said(&answer).1 == "MISS" && answer.body.to_lowercase().contains(&host.to_lowercase()),
            "{host} {answer:?}"
        );
    }
    // All of them are one URL.
    gw.request("POST", &path).header("Host", "shop.test").send();
    assert_eq!(said(&gw.get(&path).header("Host", "SHOP.test").send()).1, "MISS");
}

#[test]
fn an_unsafe_request_takes_away_what_came_by_another_route() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"] }} }}
routes:
  - {{ match: {{ path: /api/*, method: GET }}, service: a, strip_prefix: /api, cache: {{ query: {{ exclude: [utm_*] }} }} }}
  - {{ match: {{ path: /api/* }}, service: a }}
",
        backend.address
    ));
    let path = format!("/api/items/1?{FRESH}&utm_x=1");
    assert_eq!((gw.get(&path).send().body, gw.get(&path).send().body), ("1".into(), "1".into()));
    gw.request("POST", &path).send();
    assert_eq!(gw.get(&path).send().body, "3");
    let purged = purged(&gw, &json!({ "url": path }));
    assert_eq!(purged, 1);
    assert_eq!(gw.get(&path).send().body, "4");
}

#[test]
fn a_background_fetch_is_told_and_counted_as_one_of_few() {
    const STALE: &str = "h=Cache-Control:max-age=1,stale-while-revalidate=60";
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "services: {{ a: {{ urls: [\"http://{}\"], in_flight: {{ max: 4 }} }} }}
routes: [ {{ match: {{ path: /* }}, service: a, cache: {{}} }} ]
",
        backend.address
    ));
    let path = format!("/x?{STALE}&e=x-attempts");
    let ask = |key: usize| gw.get(&format!("/k?{STALE}&d=300&k={key}")).send();
    let limited = format!("/l?{STALE}&later=429");
    // The backend's very first answer is the one that is not limited.
    for answer in [gw.get(&limited).send(), gw.get(&path).send()] {
        assert_eq!((said(&answer).1.as_str(), answer.status), ("MISS", 200));
    }
    std::thread::scope(|scope| (0..4).for_each(|key| drop(scope.spawn(move || ask(key)))));
    std::thread::sleep(Duration::from_millis(1200));
    let first = gw.get(&path).send();
    assert!(said(&first).1 == "STALE" && first.body.to_lowercase().starts_with("x-attempts: 1"), "{first:?}");
    eventually("it is fetched", || gw.get(&path).send().body != first.body);
    assert!(gw.get(&path).send().body.to_lowercase().starts_with("x-attempts: 1"));
    // That it asks too much says nothing of what is kept.
    assert_eq!((said(&gw.get(&limited).send()).1.as_str(), gw.get(&limited).send().status), ("STALE", 200));
    backend.most.store(0, SeqCst);
    (0..4).for_each(|key| assert_eq!(said(&ask(key)).1, "STALE"));
    let before = backend.asked();
    eventually("those that have a place are fetched", || backend.asked() >= before.min(8));
    std::thread::sleep(Duration::from_millis(400));
    assert!((1..=2).contains(&backend.most.load(SeqCst)), "half of the places: {}", backend.most.load(SeqCst));
    assert_eq!(said(&gw.get(&limited).send()).1, "STALE");
}

#[test]
fn what_a_trusted_proxy_tells_backends_makes_a_difference() {
    let backend = Backend::start();
    let gw = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.0/8]\nservices: {{ main: {{ urls: ['http://{}'] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main, cache: {{}} }} ]\n",
        backend.address
    ));
    for field in ["X-Forwarded-Server", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "Forwarded"] {
        let path = format!("/{field}?{FRESH}&e={}", field.to_lowercase());
        let ask = |value: &str| gw.get(&path).header(field, value).send();
        assert!(ask("host=one").body.contains("one"), "{field}");
        assert!(ask("host=two").body.contains("two"), "{field}");
        assert_eq!(said(&ask("host=one")).1, "HIT");
    }
    // Who the client is makes none.
    let ask = |client: &str| gw.get(&format!("/c?{FRESH}")).header("X-Forwarded-For", client).send();
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(|client| said(&ask(client)).1), ["MISS", "HIT"]);
}

#[test]
fn a_parameter_that_a_backend_may_take_for_one_that_counts_makes_a_difference() {
    let backend = Backend::start();
    let gw = gateway(&backend, "{ ttl: 60s, query: { include: [a] } }");
    let first = gw.get("/q?a=1").send();
    assert_eq!(said(&first).1, "MISS");
    for other in ["%20a=2", "+a=2", "a[]=2", "a%00b=2", "A=2"] {
        assert_eq!(said(&gw.get(&format!("/q?a=1&{other}")).send()).1, "MISS", "{other}");
    }
    for other in ["ab=2", "b=2", "b[a]=2"] {
        let answer = gw.get(&format!("/q?a=1&{other}")).send();
        assert_eq!((said(&answer).1.as_str(), &answer.body), ("HIT", &first.body), "{other}");
    }
}
