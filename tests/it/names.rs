//! Names of backends in a DNS server that is slow, silent, forgetful or wrong.

use std::fs;

use crate::{
    discovery::{Zone, dns, named, names, srv},
    harness::{Gateway, Origin, eventually},
};

const ADDRESS: u16 = 1;
const SERVICES: u16 = 33;

fn local() -> Vec<Vec<u8>> {
    vec![vec![127, 0, 0, 1]]
}

/// A gateway whose one service is that of the SRV records of `users.test`.
fn services(zone: &Zone) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test\"]\n    discovery: {{ dns: srv, resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ))
}

#[test]
fn a_new_weight_in_the_file_keeps_what_is_known_of_a_name() {
    let (a, b, zone) = (Origin::start("a"), Origin::start("b"), Zone::default());
    zone.lock().insert(("users.test".into(), ADDRESS), local());
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    let write = |weight: usize| {
        fs::write(&list, format!("http://users.test:{} {weight}\n{}\n", a.address.port(), b.url())).unwrap();
    };
    write(1);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {}, resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display(),
        dns(zone.clone())
    ));
    assert_eq!(names(&gw, 4), [("a".into(), 2), ("b".into(), 2)].into());
    zone.lock().clear();
    eventually("the server does not know it any more", || gw.errors().contains("cannot resolve 'users.test'"));
    write(3);
    eventually("the file is taken up", || gw.errors().contains("backends in the file"));
    eventually("the weight holds", || names(&gw, 40) == [("a".into(), 30), ("b".into(), 10)].into());
}

#[test]
fn a_name_that_was_unknown_is_found_sooner_than_its_absence_may_be_remembered() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let gw = named(&format!("[\"http://users.lasting:{}\"]", a.address.port()), &zone, "");
    gw.get("/").expect(503);
    zone.lock().insert(("users.lasting".into(), ADDRESS), local());
    eventually("it is found", || gw.get("/").send().status == 200);
}

#[test]
fn a_long_time_to_live_is_bounded() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    zone.lock().insert(("users.lasting".into(), ADDRESS), vec![vec![127, 0, 0, 9]]);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.lasting:{}\"]\n    retry: {{ max_attempts: 1 }}\n    discovery: {{ resolver: \"{}\", every: 1s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        a.address.port(),
        dns(zone.clone())
    ));
    gw.get("/").expect(502);
    zone.lock().insert(("users.lasting".into(), ADDRESS), local());
    eventually("the new address is used", || gw.get("/").send().status == 200);
}

#[test]
fn a_target_that_fails_for_a_moment_keeps_its_addresses() {
    let (a, b, zone) = (Origin::start("a"), Origin::start("b"), Zone::default());
    let records = [(&a, "one.test"), (&b, "two.test")].map(|(origin, name)| srv(1, 1, origin.address.port(), name));
    zone.lock().insert(("users.test".into(), SERVICES), records.to_vec());
    zone.lock().insert(("one.test".into(), ADDRESS), local());
    zone.lock().insert(("two.test".into(), ADDRESS), local());
    let gw = services(&zone);
    let both = [("a".into(), 2), ("b".into(), 2)].into();
    assert_eq!(names(&gw, 4), both);
    zone.lock().remove(&("two.test".to_owned(), ADDRESS));
    eventually("it is noticed", || gw.errors().contains("cannot resolve 'two.test'"));
    assert_eq!(names(&gw, 4), both, "it keeps what it had");
    zone.lock().insert(("two.test".into(), ADDRESS), local());
    eventually("it is asked for again", || gw.errors().contains("'two.test' can be resolved again"));
    assert_eq!(gw.errors().matches("cannot resolve").count(), 1, "{}", gw.errors());
    // One that is not in the answer any more goes.
    zone.lock().insert(("users.test".into(), SERVICES), records[..1].to_vec());
    eventually("the target goes", || names(&gw, 4) == [("a".into(), 4)].into());
}

#[test]
fn targets_that_nobody_answers_for_keep_no_other_waiting() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let port = a.address.port();
    let targets = ["one.silent", "two.silent", "host.test", "three.silent"];
    zone.lock().insert(("users.test".into(), SERVICES), targets.map(|name| srv(1, 1, port, name)).to_vec());
    zone.lock().insert(("host.test".into(), ADDRESS), local());
    services(&zone).get("/").expect(200).says("a");
}

#[test]
fn targets_that_all_change_leave_no_gap() {
    let (a, b, zone) = (Origin::start("a"), Origin::start("b"), Zone::default());
    zone.lock().insert(("users.test".into(), SERVICES), vec![srv(1, 1, a.address.port(), "one.test")]);
    zone.lock().insert(("one.test".into(), ADDRESS), local());
    zone.lock().insert(("two.test".into(), ADDRESS), local());
    let gw = services(&zone);
    zone.lock().insert(("users.test".into(), SERVICES), vec![srv(1, 1, b.address.port(), "two.test")]);
    eventually("the new one is used", || gw.get("/").expect(200).body == "b");
}

#[test]
fn records_that_name_no_backend_are_left_out() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let records = vec![srv(0, 1, 0, "host.test"), srv(0, 1, 80, ""), srv(1, 1, a.address.port(), "host.test")];
    zone.lock().insert(("users.test".into(), SERVICES), records);
    zone.lock().insert(("host.test".into(), ADDRESS), local());
    let gw = services(&zone);
    assert_eq!(names(&gw, 4), [("a".into(), 4)].into());
    zone.lock().insert(("users.test".into(), SERVICES), vec![srv(0, 1, 80, "")]);
    eventually("it is said", || gw.errors().contains("cannot resolve 'users.test'"));
    gw.get("/").expect(200);
    let errors = gw.errors();
    assert_eq!(errors.matches("has port 0").count(), 1, "said once: {errors}");
    assert!(errors.contains("'users.test': a record has the target '.'"), "{errors}");
    assert!(!errors.contains("cannot resolve ''"), "{errors}");
}
