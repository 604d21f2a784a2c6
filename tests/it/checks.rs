//! Health checks: each backend by itself, and no blame for what is not its doing.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::harness::{Gateway, Origin, eventually, program, raw_backend, read_head};

/// A gateway whose backends stand in a file of its own.
fn listed(list: &std::path::Path, check: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    health_check: {{ path: /health, {check} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ))
}

fn up(gw: &Gateway, backend: &str) -> Option<f64> {
    gw.metric(&format!("gateway_backend_up{{backend=\"{backend}\",service=\"main\"}}"))
}

/// A backend that takes a request and never answers; how many connections it has had at once at most, and how many have
/// ended.
fn hanging() -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (open, most, ended) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at_most, have_ended) = (most.clone(), ended.clone());
    let host = raw_backend(move |mut stream| {
        most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
        read_head(&mut stream);
        while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        open.fetch_sub(1, SeqCst);
        ended.fetch_add(1, SeqCst);
    });
    (host, at_most, have_ended)
}

#[test]
fn a_backend_that_hangs_does_not_delay_the_checks_of_others() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let (hangs, most, _) = hanging();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("{}\nhttp://{hangs}\n", a.url())).unwrap();
    let gw = listed(&list, "every: 50ms, timeout: 60s, unhealthy_after: 2");
    let (first, second) = (a.address.to_string(), b.address.to_string());
    assert_eq!(up(&gw, &first), Some(1.0));
    a.fail_health(true);
    eventually("it is found ill", || up(&gw, &first) == Some(0.0));
    a.fail_health(false);
    eventually("it is found well", || up(&gw, &first) == Some(1.0));
    // One that comes later is checked at once.
    b.fail_health(true);
    fs::write(&list, format!("{}\nhttp://{hangs}\n{} 3\n", a.url(), b.url())).unwrap();
    eventually("the new one is found ill", || up(&gw, &second) == Some(0.0));
    fs::write(&list, format!("{} 2\nhttp://{hangs} 2\n{}\n", a.url(), b.url())).unwrap();
    eventually("new weights are taken up", || gw.errors().matches("backends in the file").count() == 2);
    b.fail_health(false);
    eventually("it is checked with another weight, too", || up(&gw, &second) == Some(1.0));
    assert_eq!(most.load(SeqCst), 1, "one check of a backend at a time");
}

#[test]
fn a_backend_that_is_gone_is_not_found_ill_afterwards() {
    let asked = Arc::new(AtomicUsize::new(0));
    let times = asked.clone();
    let well = raw_backend(move |mut stream| {
        read_head(&mut stream);
        times.fetch_add(1, SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    });
    let (hangs, _, ended) = hanging();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("http://{well}\nhttp://{hangs}\n")).unwrap();
    let gw = listed(&list, "every: 50ms, timeout: 4s, unhealthy_after: 1");
    assert_eq!(up(&gw, &hangs), Some(1.0), "not checked yet");
    fs::write(&list, format!("http://{well}\n")).unwrap();
    eventually("it goes", || up(&gw, &hangs).is_none());
    eventually("its check ends", || ended.load(SeqCst) > 0);
    let before = asked.load(SeqCst);
    eventually("the other one is checked again", || asked.load(SeqCst) > before + 2);
    assert_eq!(up(&gw, &hangs), None);
    assert!(!gw.errors().contains(&format!("{hangs} is unhealthy")), "{}", gw.errors());
}

/// Sends a request over a connection that stands; the answer's head.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).unwrap();
    let head = read_head(stream);
    let length =
        head.to_lowercase().split_once("content-length: ").map(|(_, rest)| rest.lines().next().unwrap().to_owned());
    stream.read_exact(&mut vec![0; length.map_or(0, |length| length.parse().unwrap())]).unwrap();
    head
}

#[test]
fn want_of_descriptors_is_blamed_on_no_backend() {
    let prlimit = program("prlimit", "util-linux");
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let gw = Gateway::start(&format!(
        "services:\n  checked: {{ urls: [\"{}\"], health_check: {{ every: 50ms, unhealthy_after: 1 }} }}\n  broken: {{ urls: [\"{}\"], circuit_breaker: {{ failure_threshold: 1, reset_timeout: 1h }}, outlier_ejection: {{ consecutive: 1 }} }}\nroutes:\n  - {{ match: {{ path: /checked }}, service: checked }}\n  - {{ match: {{ path: /broken }}, service: broken }}\n",
        a.url(),
        b.url()
    ));
    let limit = |soft: usize| {
        let process = gw.child.id().to_string();
        let set = Command::new(&prlimit).args(["--pid", &process, &format!("--nofile={soft}:")]).status();
        assert!(set.unwrap().success());
    };
    let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    assert!(ask(&mut client, "/none").starts_with("HTTP/1.1 404"));
    // All numbers below are taken: nothing more can be opened.
    limit(3);
    eventually("checks fail on our side", || gw.errors().contains("cannot be checked"));
    let head = ask(&mut client, "/broken");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    limit(1024);
    let head = ask(&mut client, "/broken");
    assert!(head.starts_with("HTTP/1.1 200"), "no breaker has opened: {head}");
    let head = ask(&mut client, "/checked");
    assert!(head.starts_with("HTTP/1.1 200"), "no check has counted: {head}");
    let lines = gw.log(4);
    let refused: Vec<_> = lines.iter().filter(|line| line["status"] == 503).map(|line| &line["reason"]).collect();
    assert_eq!(refused, ["local_resources"], "{lines:?}");
    let failures = "gateway_upstream_failures_total{reason=\"local_resources\",service=\"broken\"}";
    assert!(gw.metric(failures).unwrap() >= 1.0);
    assert_eq!(gw.metric("gateway_upstream_attempts_total{outcome=\"connect\",service=\"broken\"}"), Some(0.0));
    assert!(!gw.errors().contains("is unhealthy"), "{}", gw.errors());
    assert_eq!(gw.errors().matches("cannot be checked").count(), 1, "{}", gw.errors());
}
