//! Handing over under load: `tollgate -u` three times while `wrk` runs.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use crate::harness::{Gateway, Origin, eventually, program};

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
