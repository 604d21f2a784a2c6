//! The systemd unit: hardened as promised, and saying nothing that the binary does not understand. And that the process
//! tells systemd when it serves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

const UNIT: &str = "systemd/tollgate.service";

#[test]
fn the_unit_is_hardened() {
    let out = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", UNIT])
        .output()
        .expect("'systemd-analyze' is missing: install the Debian package 'systemd'");
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{out:?}"));
    let score: f64 = line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let _ = writeln!(std::io::stderr(), "systemd-analyze security: {score}");
    assert!(score <= 2.0, "{line}");
}

#[test]
fn the_unit_speaks_the_binarys_language() {
    let help = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let unit = fs::read_to_string(UNIT).unwrap();
    let commands = unit.lines().filter(|line| line.starts_with("ExecStart=") || line.starts_with("ExecReload="));
    let mut flags = 0;
    for flag in commands.flat_map(str::split_whitespace).filter(|word| word.starts_with('-')) {
        assert!(help.contains(&format!("{flag}, --")), "{flag} is not an option: {help}");
        flags += 1;
    }
    assert_eq!(flags, 6, "ExecStart and two ExecReload lines");
    assert!(unit.contains("RestartPreventExitStatus=78"));
}

#[test]
fn the_process_says_when_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (folder, file) = (dir.path().display(), dir.path().join("t.yaml"));
    let yaml = format!(
        "pingora: {{ threads: 1, upgrade_sock: {folder}/sock }}\nlisteners: [{{ address: \"127.0.0.1:{port}\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: {{ path: / }}, respond: {{}} }}]\n"
    );
    fs::write(&file, yaml).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("-c")
        .arg(&file)
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 256];
    let read = socket.recv(&mut buffer);
    child.kill().unwrap();
    child.wait().unwrap();
    let message = String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
    assert!(message.contains("READY=1") && message.contains(&format!("MAINPID={}", child.id())), "{message}");
}
