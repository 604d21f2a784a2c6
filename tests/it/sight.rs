//! What an operator sees: why a backend is down and since when, what each route and service has done, and no trace of what
//! is gone.

use std::fs;

use serde_json::Value;

use crate::{
    discovery::{Zone, dns, named},
    harness::{Fault, FaultProxy, Gateway, Origin, eventually, free_port},
};

fn stats(gw: &Gateway) -> Value {
    gw.admin("/gateway/stats").expect(200).json()
}

/// The same, of the service `main`.
fn main_service(gw: &Gateway) -> Value {
    stats(gw)["services"]["main"].clone()
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 20 && text.starts_with("20") && text.ends_with('Z'))
}

#[test]
fn stats_say_why_a_backend_is_down_and_since_when() {
    let (origin, dead) = (Origin::start("o"), free_port());
    origin.fail_health(true);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"{}\", \"http://127.0.0.1:{dead}\"]\n    health_check: {{ path: /health, every: 50ms }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    eventually("both are down", || main_service(&gw)["available"] == false);
    let backends = main_service(&gw)["backends"].clone();
    assert_eq!((&backends[0]["state"], &backends[1]["state"]), (&"down".into(), &"down".into()), "{backends}");
    assert!(backends[0]["reason"].as_str().unwrap().contains("500"), "{backends}");
    assert!(backends[1]["reason"].as_str().unwrap().starts_with("ConnectRefused"), "{backends}");
    assert!(is_time(&backends[0]["since"]) && is_time(&backends[1]["since"]), "{backends}");
    origin.fail_health(false);
    eventually("one is up", || main_service(&gw)["backends"][0]["state"] == "up");
    let backend = main_service(&gw)["backends"][0].clone();
    assert!(backend["reason"] == "health checks succeed" && is_time(&backend["since"]), "{backend}");
}

#[test]
fn stats_say_why_a_backend_is_ejected_and_why_a_breaker_is_open() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let faulty = FaultProxy::start(b.address, Fault::Status503);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"{}\", \"{}\"]\n    retry: {{ max_attempts: 1 }}\n    outlier_ejection: {{ consecutive: 2, base: 1m }}\n  broken:\n    urls: [\"{}\"]\n    retry: {{ max_attempts: 1 }}\n    circuit_breaker: {{ failure_threshold: 2, per_backend: true }}\n  whole:\n    urls: [\"{}\"]\n    retry: {{ max_attempts: 1 }}\n    circuit_breaker: {{ failure_threshold: 3 }}\nroutes:\n  - {{ match: {{ path: /broken }}, service: broken }}\n  - {{ match: {{ path: /whole }}, service: whole }}\n  - {{ match: {{ path: /* }}, service: main }}\n",
        a.url(),
        faulty.url(),
        faulty.url(),
        faulty.url()
    ));
    let unchanged = main_service(&gw)["backends"][0].clone();
    assert_eq!(
        (&unchanged["state"], &unchanged["since"], &unchanged["reason"]),
        (&"up".into(), &Value::Null, &Value::Null)
    );
    for path in ["/", "/broken", "/whole"] {
        (0..6).for_each(|_| drop(gw.get(path).send()));
    }
    let stats = stats(&gw);
    let ejected = &stats["services"]["main"]["backends"][1];
    assert_eq!((&ejected["state"], &ejected["ejected"]), (&"ejected".into(), &true.into()), "{ejected}");
    assert_eq!(ejected["reason"], "2 failures in a row, the last one: 503");
    assert!(is_time(&ejected["since"]), "{ejected}");
    let own = &stats["services"]["broken"]["backends"][0];
    assert_eq!((&own["breaker"], &own["breaker_reason"]), (&"open".into(), &"2 failures in a row".into()), "{own}");
    let whole = &stats["services"]["whole"];
    assert_eq!((&whole["breaker"], &whole["breaker_reason"]), (&"open".into(), &"3 failures in a row".into()));
    assert!(is_time(&own["breaker_since"]) && is_time(&whole["breaker_since"]), "{stats}");
}

#[test]
fn stats_count_by_route_and_service() {
    let (origin, dead) = (Origin::start("o"), free_port());
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\n  dead: {{ urls: [\"http://127.0.0.1:{dead}\"], retry: {{ max_attempts: 2 }} }}\nroutes:\n  - {{ id: one, match: {{ path: /* }}, service: main }}\n  - {{ id: none, match: {{ path: /dead }}, service: dead }}\n  - {{ id: both, match: {{ path: /both }}, split: [ {{ service: main, weight: 1 }}, {{ service: dead, weight: 0 }} ] }}\n  - {{ id: fixed, match: {{ path: /fixed }}, respond: {{ status: 204 }} }}\n",
        origin.url()
    ));
    for (path, status) in [("/a", 200), ("/status/404", 404), ("/both", 200), ("/dead", 502), ("/fixed", 204)] {
        gw.get(path).expect(status);
    }
    eventually("all are counted", || stats(&gw)["requests"] == 5);
    let stats = stats(&gw);
    let route = |id: &str| {
        let routes = stats["routes"].as_array().unwrap();
        routes.iter().find(|route| route["id"] == id).unwrap_or_else(|| panic!("no {id} in {stats}")).clone()
    };
    let counts = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(
        (&route("one")["service"], &route("one")["requests"]),
        (&"main".into(), &counts(r#"{"total":2,"2xx":1,"4xx":1}"#))
    );
    assert_eq!(route("both")["service"], counts(r#"["main","dead"]"#));
    assert_eq!((&route("fixed")["service"], &route("fixed")["requests"]["2xx"]), (&Value::Null, &1.into()));
    let (main, dead) = (&stats["services"]["main"], &stats["services"]["dead"]);
    assert_eq!(main["requests"], counts(r#"{"total":3,"2xx":2,"4xx":1}"#));
    assert_eq!((&main["attempts"], &main["failures"]), (&counts(r#"{"ok":3}"#), &counts("{}")));
    assert_eq!((&dead["requests"]["5xx"], &dead["retries"]), (&1.into(), &1.into()));
    assert_eq!(
        (&dead["attempts"], &dead["failures"]),
        (&counts(r#"{"connect":2}"#), &counts(r#"{"connect_refused":2}"#))
    );
    assert_eq!(dead["backends"][0]["connect_failure"], "connect_refused");
}

#[test]
fn the_admin_listener_lists_its_pages() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.url()
    ));
    for accept in ["*/*", "application/json"] {
        let text = gw.admin("/").header("Accept", accept).expect(200).has("content-type", "text/plain; charset=utf-8");
        let pages: Vec<&str> = text.body.lines().filter(|line| line.starts_with('/')).collect();
        for page in &pages {
            let (path, what) = page.split_once(' ').unwrap();
            gw.admin(path).expect(if what.trim().starts_with("POST") { 405 } else { 200 });
            assert!(what.trim().len() > 5, "{page}");
        }
        for page in ["/metrics", "/health/live", "/health/ready", "/gateway/stats"] {
            assert!(pages.iter().any(|line| line.starts_with(page)), "{page} is not in {pages:?}");
        }
    }
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    gw.admin("/")
        .header("Accept", browser)
        .expect(200)
        .has("content-type", "text/html; charset=utf-8")
        .says("<a href=\"/gateway/stats\">")
        .says("<td>/api/v1/cache/purge</td>");
}

#[test]
fn a_name_that_is_not_resolved_is_a_backend_that_is_down() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let port = a.address.port();
    let gw = named(&format!("[\"http://users.test:{port}\"]"), &zone, "");
    let up = |name: &str| gw.metric(&format!("gateway_backend_up{{backend=\"{name}\",service=\"main\"}}"));
    let name = format!("users.test:{port}");
    eventually("the look-up has failed", || gw.errors().contains("cannot resolve 'users.test'"));
    assert_eq!(up(&name), Some(0.0));
    let unresolved = main_service(&gw)["unresolved"][0].clone();
    assert!(unresolved["name"] == "users.test" && is_time(&unresolved["since"]), "{unresolved}");
    assert!(!unresolved["reason"].as_str().unwrap().is_empty(), "{unresolved}");
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    eventually("its address is known", || up(&format!("{name} (127.0.0.1:{port})")) == Some(1.0));
    assert_eq!(
        (up(&name), &main_service(&gw)["unresolved"]),
        (None, &Value::Array(Vec::new())),
        "the name itself is none"
    );
}

#[test]
fn backends_that_discovery_has_lost_leave_no_series() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let faulty = FaultProxy::start(b.address, Fault::Status503);
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("{}\n{}\n", a.url(), faulty.url())).unwrap();
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    retry: {{ max_attempts: 1 }}\n    health_check: {{ every: 100ms }}\n    outlier_ejection: {{ consecutive: 2, base: 1m }}\n    circuit_breaker: {{ failure_threshold: 100, per_backend: true }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ));
    (0..6).for_each(|_| drop(gw.get("/").send()));
    let label = format!("backend=\"{}\"", faulty.url().trim_start_matches("http://"));
    let series = || {
        let text = gw.admin("/metrics").expect(200).body;
        text.lines().filter(|line| line.contains(&label)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(series().len(), 3, "up, ejections, breaker: {:?}", series());
    fs::write(&list, format!("{}\n", a.url())).unwrap();
    eventually("it has no series", || series().is_empty());
    (0..6).for_each(|_| drop(gw.get("/").expect(200)));
    assert!(series().is_empty(), "{:?}", series());
    assert!(main_service(&gw)["backends"].as_array().unwrap().len() == 1);
}

#[test]
fn addresses_that_a_name_has_lost_leave_no_series() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let port = a.address.port();
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1], vec![127, 0, 0, 9]]);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test:{port}\"]\n    discovery: {{ resolver: \"{}\", every: 1s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ));
    let up = |ip: &str| {
        gw.metric(&format!("gateway_backend_up{{backend=\"users.test:{port} ({ip}:{port})\",service=\"main\"}}"))
    };
    assert_eq!((up("127.0.0.1"), up("127.0.0.9")), (Some(1.0), Some(1.0)));
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    eventually("the other address has no series", || up("127.0.0.9").is_none());
    assert_eq!(up("127.0.0.1"), Some(1.0));
}

/// `rate_limit_checks_total` is a name that operators ask for as it is; the other two are everybody's.
#[test]
fn metrics_have_one_prefix() {
    let origin = Origin::start("o");
    let gw = Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n    filters: [ {{ rate_limit: {{ rate: 9/s }} }} ]\n",
        origin.url()
    ));
    gw.get("/").expect(200);
    eventually("it is counted", || gw.admin("/metrics").expect(200).body.contains("gateway_requests_success_total 1"));
    let text = gw.admin("/metrics").expect(200).body;
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let odd: Vec<&str> = names.filter(|name| !name.starts_with("gateway_") && !name.starts_with("process_")).collect();
    assert_eq!(odd, ["http_server_request_duration_seconds", "rate_limit_checks_total"]);
}
