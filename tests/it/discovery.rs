//! Backends that come and go: a file, and names in a DNS server.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::harness::{Fault, FaultProxy, Gateway, Origin, eventually};

pub(crate) fn names(gw: &Gateway, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    (0..times).for_each(|_| *counts.entry(gw.get("/").send().body).or_default() += 1);
    counts
}

#[test]
fn a_file_of_backends_is_watched() {
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let faulty = FaultProxy::start(c.address, Fault::Status503);
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("# ours\n{} 3\n{}\n", a.url(), faulty.url())).unwrap();
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    outlier_ejection: {{ consecutive: 2, base: 1m }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ));
    (0..20).for_each(|_| drop(gw.get("/").send()));
    let ejected = |gw: &Gateway| -> Vec<bool> {
        let stats = gw.admin("/gateway/stats").expect(200).json();
        let backends = stats["services"]["main"]["backends"].as_array().unwrap().clone();
        backends.iter().map(|backend| backend["ejected"].as_bool().unwrap()).collect()
    };
    assert_eq!(ejected(&gw), [false, true]);
    // What cannot be read changes nothing.
    fs::write(&list, "nonsense\n").unwrap();
    eventually("the broken file is reported", || gw.errors().contains("the backends stay as they were"));
    assert_eq!(names(&gw, 4), [("a".into(), 4)].into());
    fs::write(&list, format!("{} 3\n{}\n{}\n", a.url(), faulty.url(), b.url())).unwrap();
    eventually("the new backend is used", || names(&gw, 8).contains_key("b"));
    assert_eq!(ejected(&gw), [false, true, false], "what was known of the others stays known");
    let weights = names(&gw, 40);
    assert!(weights["a"] > weights["b"], "{weights:?}");
    fs::write(&list, b.url()).unwrap();
    eventually("the others are left", || names(&gw, 8) == [("b".into(), 8)].into());
    let up = gw.admin("/metrics").expect(200).body;
    assert!(!up.contains(&format!("backend=\"{}\"", a.address)), "a backend that is gone has no metrics");
}

/// What the test's DNS server answers: by name, and by type (1: A, 33: SRV).
pub(crate) type Zone = Arc<Mutex<HashMap<(String, u16), Vec<Vec<u8>>>>>;

/// A DNS server of a few lines (RFC 1035): every answer lives for one second, and that there is none is not to be
/// remembered. Of names below `silent` it says nothing; what it says of those below `lasting` holds for ten minutes.
pub(crate) fn dns(zone: Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let (mut at, mut labels) = (12, Vec::new());
            while query[at] != 0 {
                let next = at + 1 + usize::from(query[at]);
                labels.push(String::from_utf8_lossy(&query[at + 1..next]).to_lowercase());
                at = next;
            }
            let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
            if labels.last().is_some_and(|label| label == "silent") {
                continue;
            }
            let records = zone.lock().get(&(labels.join("."), kind)).cloned().unwrap_or_default();
            let lasting = labels.last().is_some_and(|label| label == "lasting");
            let life = if lasting { 600u32 } else { 1 }.to_be_bytes();
            let (count, none) = (u16::try_from(records.len()).unwrap().to_be_bytes(), lasting && records.is_empty());
            let counts = [&count[..], &[0, u8::from(none), 0, 0]].concat();
            let mut answer = [&query[..2], &[0x84, 0, 0, 1], &counts, &query[12..at + 5]].concat();
            if none {
                // An SOA record of the root: its last number is for how long there is no answer.
                answer.extend([&[0, 0, 6, 0, 1][..], &life, &[0, 22, 0, 0], &[0; 16], &life].concat());
            }
            for data in records {
                let length = u16::try_from(data.len()).unwrap().to_be_bytes();
                answer.extend([0xc0, 12]);
                answer.extend(kind.to_be_bytes());
                answer.extend([0, 1]);
                answer.extend(life);
                answer.extend(length);
                answer.extend(data);
            }
            assert!(length >= at);
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

pub(crate) fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let mut data = [priority.to_be_bytes(), weight.to_be_bytes(), port.to_be_bytes()].concat();
    for label in target.split('.').filter(|label| !label.is_empty()) {
        data.push(u8::try_from(label.len()).unwrap());
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    data
}

#[test]
fn srv_records_tell_ports_weights_and_changes() {
    let (a, b, spare) = (Origin::start("a"), Origin::start("b"), Origin::start("spare"));
    let zone = Zone::default();
    let name = ("_http._tcp.users.test".to_owned(), 33);
    zone.lock().insert(("one.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    zone.lock().insert(
        name.clone(),
        vec![
            srv(1, 30, a.address.port(), "one.test"),
            srv(1, 10, b.address.port(), "one.test"),
            srv(2, 10, spare.address.port(), "one.test"),
        ],
    );
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://_http._tcp.users.test\"]\n    discovery: {{ dns: srv, resolver: \"{}\", every: 5s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ));
    let counts = names(&gw, 40);
    assert_eq!((counts["a"], counts["b"]), (30, 10), "{counts:?}");
    zone.lock().insert(name.clone(), vec![srv(1, 1, spare.address.port(), "one.test")]);
    eventually("the time to live ends", || names(&gw, 4) == [("spare".into(), 4)].into());
    zone.lock().remove(&name);
    eventually("a failed look-up is reported", || gw.errors().contains("cannot resolve '_http._tcp.users.test'"));
    assert_eq!(names(&gw, 4), [("spare".into(), 4)].into(), "what was known stays");
}

#[test]
fn addresses_of_a_name_come_and_go() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 9]]);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test:{}\"]\n    retry: {{ max_attempts: 1 }}\n    discovery: {{ resolver: \"{}\", every: 1s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        a.address.port(),
        dns(zone.clone())
    ));
    gw.get("/").expect(502);
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    eventually("the new address is used", || gw.get("/").send().status == 200);
}

#[test]
fn a_file_that_is_being_written_changes_nothing_yet() {
    use std::{io::Write as _, time::Duration};

    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("{}\n", a.url())).unwrap();
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    retry: {{ max_attempts: 1 }}\n    outlier_ejection: {{ consecutive: 0 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ));
    let steady = |millis: u64| {
        let until = std::time::Instant::now() + Duration::from_millis(millis);
        while std::time::Instant::now() < until {
            gw.get("/").expect(200).says("a");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let mut file = fs::File::create(&list).unwrap();
    steady(1500);
    assert_eq!(gw.errors().matches("lists no backend").count(), 1, "said once: {}", gw.errors());
    let (url, half) = (b.url(), b.url().len() - 1);
    file.write_all(format!("{}\n{}", a.url(), &url[..half]).as_bytes()).unwrap();
    steady(1500);
    file.write_all(format!("{}\n", &url[half..]).as_bytes()).unwrap();
    eventually("the whole list is used", || names(&gw, 4).contains_key("b"));
    assert_eq!(names(&gw, 8), [("a".into(), 4), ("b".into(), 4)].into());
}

#[test]
fn a_file_that_is_being_written_at_the_start_is_waited_for() {
    use std::{io::Write as _, time::Duration};
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    // The last line is half of an address when the process looks, and whole a moment later. The clock of whoever writes
    // it may be ahead of ours.
    let writes = |last: &Origin, ahead: u64| {
        let (url, mut file) = (last.url(), fs::File::create(&list).unwrap());
        let (begin, end) = url.split_at(url.len() - 2);
        file.write_all(format!("{}\n{begin}", a.url()).as_bytes()).unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(ahead)).unwrap();
        let end = format!("{end}\n");
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            file.write_all(end.as_bytes()).unwrap();
        })
    };
    let written = writes(&b, 3600);
    let mut gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    retry: {{ max_attempts: 1 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ));
    assert_eq!(names(&gw, 8), [("a".into(), 4), ("b".into(), 4)].into());
    written.join().unwrap();
    let written = writes(&c, 0);
    let mut predecessor = gw.upgrade();
    eventually("the predecessor leaves", || {
        // It goes on with the old list, or has taken up the new one; both are whole.
        for name in names(&gw, 4).keys() {
            assert!(["a", "b", "c"].contains(&name.as_str()), "{name}");
        }
        predecessor.try_wait().unwrap().is_some()
    });
    assert_eq!(names(&gw, 8), [("a".into(), 4), ("c".into(), 4)].into());
    written.join().unwrap();
    assert_eq!(gw.errors().matches("ERROR").count(), 0, "{}", gw.errors());
}

/// A gateway whose one service has these backends, and asks this server for names; no further look for half a minute.
pub(crate) fn named(urls: &str, zone: &Zone, more: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main:\n    urls: {urls}\n    discovery: {{ resolver: \"{}\" }}\n{more}routes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ))
}

#[test]
fn a_name_that_nobody_answers_for_keeps_no_other_waiting() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    let port = a.address.port();
    let gw = named(&format!("[\"http://users.test:{port}\", \"http://users.silent:{port}\"]"), &zone, "");
    gw.get("/").expect(200).says("a");
}

#[test]
fn a_name_that_failed_at_the_start_is_tried_again_soon() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let gw = named(&format!("[\"http://users.test:{}\"]", a.address.port()), &zone, "");
    gw.get("/").expect(503);
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    eventually("it is found", || gw.get("/").send().status == 200);
    let errors = gw.errors();
    assert_eq!(errors.matches("cannot resolve 'users.test'").count(), 1, "{errors}");
    assert!(errors.contains("can be resolved again"), "{errors}");
}

#[test]
fn the_first_answer_of_a_name_has_a_time_to_live_too() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 9]]);
    let retry = "    retry: { max_attempts: 1 }\n";
    let gw = named(&format!("[\"http://users.test:{}\"]", a.address.port()), &zone, retry);
    gw.get("/").expect(502);
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    eventually("the new address is used", || gw.get("/").send().status == 200);
}

#[test]
fn a_name_without_an_answer_keeps_its_backends_wherever_it_stands() {
    let (a, b, zone) = (Origin::start("a"), Origin::start("b"), Zone::default());
    for (name, origin) in [("one.test", &a), ("two.test", &b)] {
        zone.lock().insert((name.into(), 33), vec![srv(1, 1, origin.address.port(), "host.test")]);
    }
    zone.lock().insert(("host.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://one.test\", \"http://two.test\"]\n    discovery: {{ dns: srv, resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ));
    assert_eq!(names(&gw, 4).len(), 2);
    zone.lock().remove(&("two.test".to_owned(), 33));
    eventually("the failure is noticed", || gw.errors().contains("cannot resolve 'two.test'"));
    assert_eq!(names(&gw, 4).len(), 2, "it keeps what it had");
}

#[test]
fn another_backend_at_an_address_that_is_down_is_not_believed_to_be_up() {
    let (a, dead) = (Origin::start("a"), crate::harness::free_port());
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("backends");
    fs::write(&list, format!("{}\nhttp://127.0.0.1:{dead}\n", a.url())).unwrap();
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    discovery: {{ file: {} }}\n    health_check: {{ every: 100ms, unhealthy_after: 2 }}\n    retry: {{ max_attempts: 1 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        list.display()
    ));
    let up = |name: &str| gw.metric(&format!("gateway_backend_up{{backend=\"{name}\",service=\"main\"}}"));
    let at = format!("127.0.0.1:{dead}");
    assert_eq!(up(&at), Some(0.0), "the first check decides, before the first request");
    // The same place under another name, and with another protocol.
    for (line, name) in [
        (format!("h2c://127.0.0.1:{dead}"), at.clone()),
        (format!("http://127.0.0.1:{dead} 7"), at.clone()),
        (format!("http://localhost:{dead}"), format!("localhost:{dead} (127.0.0.1:{dead})")),
    ] {
        fs::write(&list, format!("{}\n{line}\n", a.url())).unwrap();
        eventually("the file is taken up", || up(&name).is_some() && gw.errors().contains("backends in the file"));
        eventually("it is down", || up(&name) == Some(0.0));
        (0..6).for_each(|_| drop(gw.get("/").expect(200)));
    }
}

#[test]
fn a_target_that_is_gone_takes_no_other_with_it() {
    let (a, zone) = (Origin::start("a"), Zone::default());
    let records = vec![srv(1, 1, a.address.port(), "gone.test"), srv(1, 1, a.address.port(), "host.test")];
    zone.lock().insert(("users.test".into(), 33), records);
    zone.lock().insert(("host.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"http://users.test\"]\n    discovery: {{ dns: srv, resolver: \"{}\" }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        dns(zone.clone())
    ));
    gw.get("/").expect(200).says("a");
}

#[test]
fn backends_that_were_just_found_are_checked_at_once() {
    let (well, origin, zone) = (Origin::start("well"), Origin::start("ill"), Zone::default());
    let ill = FaultProxy::start(origin.address, Fault::Status503);
    zone.lock().insert(("users.test".into(), 1), vec![vec![127, 0, 0, 1]]);
    let urls = format!("[\"http://users.test:{}\", \"{}\"]", ill.url().rsplit(':').next().unwrap(), well.url());
    let begun = std::time::Instant::now();
    let more = "    health_check: { path: /, every: 60s }\n    retry: { max_attempts: 1 }\n    outlier_ejection: { consecutive: 0 }\n";
    let gw = named(&urls, &zone, more);
    (0..10).for_each(|_| drop(gw.get("/").expect(200)));
    assert!(!gw.errors().contains("not all backends are known"), "{}", gw.errors());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_failed_look_up_is_said_in_plain_words() {
    let gw = named("[\"http://users.test:80\"]", &Zone::default(), "");
    eventually("the failure is said", || gw.errors().contains("cannot resolve 'users.test'"));
    let errors = gw.errors();
    assert!(errors.contains("the name server knows") && !errors.contains("Query"), "{errors}");
}
