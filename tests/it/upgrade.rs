//! Handing over under load: `tollgate -u` three times while `wrk` runs.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    discovery::{Zone, dns},
    handover::handles_signals,
    harness::{Fault, FaultProxy, Gateway, Origin, eventually, program},
};

#[test]
fn three_upgrades_under_load_cost_no_request() {
    let origin = Origin::start("o");
    let mut gw = Gateway::start(&format!(
        "access_log: {{ enabled: false }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n",
        origin.url()
    ));
    let wrk = Command::new(program("wrk", "wrk"))
        .args(["-t2", "-c100", "-d20s"])
        .arg(format!("http://127.0.0.1:{}/", gw.port))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        let before = gw.child.id();
        let mut predecessor = gw.upgrade();
        let successor = gw.child.id().to_string();
        assert_ne!(before.to_string(), successor);
        eventually("the successor has written its pid", || gw.read("pid").trim() == successor);
        // A moment for those who came last.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while predecessor.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "the predecessor does not leave");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let report = String::from_utf8(wrk.wait_with_output().unwrap().stdout).unwrap();
    let _ = writeln!(std::io::stderr(), "three upgrades under load:\n{report}");
    assert!(report.contains("requests in"), "{report}");
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    gw.get("/").expect(200);
}

/// Takes over and asks all the while; every answer must be 200.
fn taken_over_without_a_failure(gw: &mut Gateway) {
    let mut predecessor = gw.upgrade();
    let mut asked = 0;
    while predecessor.try_wait().unwrap().is_none() || asked < 40 {
        gw.get("/").expect(200);
        asked += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(gw.read("pid").trim(), gw.child.id().to_string());
}

#[test]
fn a_successor_sends_nothing_to_backends_that_are_ill() {
    let (well, origin) = (Origin::start("well"), Origin::start("ill"));
    let ill = FaultProxy::start(origin.address, Fault::Status503);
    let mut gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"{}\", \"{}\"]\n    health_check: {{ path: / }}\n    retry: {{ max_attempts: 1 }}\n    outlier_ejection: {{ consecutive: 0 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        well.url(),
        ill.url()
    ));
    (0..10).for_each(|_| drop(gw.get("/").expect(200)));
    taken_over_without_a_failure(&mut gw);
}

#[test]
fn a_successor_lets_the_process_before_serve_until_it_knows_its_backends() {
    let (origin, zone) = (Origin::start("o"), Zone::default());
    let address = || (("users.test".to_owned(), 1), vec![vec![127, 0, 0, 1]]);
    zone.lock().extend([address()]);
    let mut gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test:{}\"]\n    discovery: {{ resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.address.port(),
        dns(zone.clone())
    ));
    gw.get("/").expect(200);
    zone.lock().clear();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(2500));
        zone.lock().extend([address()]);
    });
    taken_over_without_a_failure(&mut gw);
    later.join().unwrap();
}

#[test]
fn a_successor_that_knows_no_backend_of_a_service_does_not_replace_a_process_that_does() {
    let (origin, zone) = (Origin::start("o"), Zone::default());
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    // That nobody has ever known one of the other stands in nobody's way.
    let mut gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test:{}\"]\n    discovery: &dns {{ resolver: \"{}\" }}\n  other: {{ urls: [\"http://nobody.test\"], discovery: *dns }}\nroutes:\n  - {{ match: {{ path: /other }}, service: other }}\n  - {{ match: {{ path: /* }}, service: main }}\n",
        origin.address.port(),
        dns(zone.clone())
    ));
    gw.get("/").expect(200);
    zone.lock().clear();
    let predecessor = gw.upgrade();
    // It looks for ten seconds; nobody who comes meanwhile is its own.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(11) && gw.child.try_wait().unwrap().is_none() {
        gw.get("/").expect(200).says("o");
    }
    assert_eq!(gw.wait().code(), Some(1), "{}", gw.errors());
    assert!(gw.errors().contains("the successor knows no backend of service main"), "{}", gw.errors());
    // It has answered nobody.
    assert!(gw.log(1).iter().all(|line| line["status"] == 200), "{}", gw.read("stdout"));
    gw.child = predecessor;
    gw.get("/").expect(200).says("o");
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    taken_over_without_a_failure(&mut gw);
}

#[test]
fn a_successor_that_is_told_to_leave_before_it_has_taken_over_says_so() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (origin, zone) = (Origin::start("o"), Zone::default());
        zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
        let mut gw = Gateway::start(&format!(
            "services:\n  main:\n    urls: [\"http://users.test:{}\"]\n    discovery: {{ resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
            origin.address.port(),
            dns(zone.clone())
        ));
        // It waits for its backends, and the process before serves.
        zone.lock().clear();
        let predecessor = gw.upgrade();
        handles_signals(&gw.child);
        gw.signal(signal);
        assert_eq!(gw.wait().code(), Some(1), "{signal}: {}", gw.errors());
        assert!(gw.errors().contains("told to leave before it had taken over"), "{}", gw.errors());
        gw.child = predecessor;
        gw.get("/").expect(200).says("o");
    }
}
