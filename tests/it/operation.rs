//! What an operator's mistakes and a full disk do: it is said before the start where that can be, once where it cannot,
//! and nothing keeps a process from leaving.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;

use crate::harness::{Certs, Gateway, Origin, Request, binary, eventually, free_port};

const ROUTE: &str = "routes: [ { match: { path: /* }, respond: { body: served } } ]\n";

/// Runs the binary in `dir`.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// What `-t` says of a file, which it refuses.
fn refused(dir: &Path, yaml: &str) -> String {
    let port = free_port();
    let text =
        format!("{yaml}listeners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\n{ROUTE}");
    fs::write(dir.join("t.yaml"), text).unwrap();
    let before = fs::read_dir(dir).unwrap().count();
    let output = run(dir, &["-t", "-c", "t.yaml"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{yaml}: {errors}");
    assert_eq!(fs::read_dir(dir).unwrap().count(), before, "a check leaves no files");
    errors
}

#[test]
fn files_that_cannot_be_written_are_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (yaml, said) in [
        ("access_log: { output: { file: no/access.log } }\n", "t.yaml:1:23: access_log.output: the directory '"),
        ("access_log: { output: { file: folder } }\n", "t.yaml:1:23: access_log.output: '"),
        ("pingora: { error_log: no/errors }\n", "t.yaml:1:23: pingora.error_log: the directory '"),
        ("pingora: { user: nosuchuser }\n", "t.yaml:1:18: pingora.user: there is no user 'nosuchuser'"),
        ("pingora: { group: nosuchgroup }\n", "t.yaml:1:19: pingora.group: there is no group 'nosuchgroup'"),
    ] {
        let errors = refused(dir.path(), yaml);
        assert!(errors.contains(said), "{errors}");
    }
}

/// A process that is killed when its test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file for a gateway that becomes nobody, in a folder of that user; its port.
fn for_nobody(dir: &Path) -> u16 {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    nix::unistd::chown(dir, Some(nobody.uid), None).unwrap();
    let (port, folder) = (free_port(), dir.display());
    let text = format!(
        "pingora: {{ user: nobody, threads: 1, upgrade_sock: {folder}/sock, error_log: {folder}/errors }}\nlisteners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\naccess_log: {{ output: {{ file: {folder}/access.log }} }}\n{ROUTE}"
    );
    fs::write(dir.join("t.yaml"), text).unwrap();
    port
}

/// The process is nobody's in each respect.
fn is_nobody(pid: i32) {
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for (field, id) in [("Uid:", nobody.uid.as_raw()), ("Gid:", nobody.gid.as_raw())] {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        assert!(line.split_whitespace().all(|found| found == id.to_string()), "{field}{line}");
    }
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
    assert!(!groups.split_whitespace().any(|group| group == "0"), "{groups}");
}

#[test]
fn a_process_in_the_foreground_becomes_its_user_too() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = for_nobody(dir.path());
    let start = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        let command = command.args(arguments).args(["-c", "t.yaml"]).current_dir(dir.path()).stdin(Stdio::null());
        Running(command.stderr(Stdio::null()).spawn().unwrap())
    };
    let serves = |Running(child): &Running| {
        let own = child.id().to_string();
        let pid = || fs::read_to_string(dir.path().join("sock.pid")).unwrap_or_default().trim() == own;
        eventually("it serves", pid);
        Request::new("GET", format!("http://127.0.0.1:{port}/")).expect(200).says("served");
        is_nobody(i32::try_from(child.id()).unwrap());
    };
    let leaves = |mut running: Running| eventually("it leaves", || running.0.try_wait().unwrap().is_some());
    let first = start(&[]);
    serves(&first);
    let second = start(&["-u"]);
    serves(&second);
    leaves(first);
    let line = || fs::read_to_string(dir.path().join("access.log")).unwrap_or_default().lines().count() == 2;
    eventually("its access log is written", line);
    kill(Pid::from_raw(i32::try_from(second.0.id()).unwrap()), Signal::SIGINT).unwrap();
    leaves(second);
    assert!(!dir.path().join("sock").exists() && !dir.path().join("sock.pid").exists());
}

#[test]
fn who_cannot_become_another_user_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for_nobody(dir.path());
    // Root without the right to become somebody else, as in a container that drops it.
    for mode in [&[][..], &["-d"]] {
        let mut command = Command::new("timeout");
        let command = command.args(["10", "setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid"]);
        let command = command.arg("--").arg(binary()).args(mode);
        let output = command.args(["-c", "t.yaml"]).current_dir(dir.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{errors}");
        let reason = "pingora.user: this process cannot become 'nobody': Operation not permitted";
        assert!(errors.contains(reason), "{errors}");
        for name in ["sock", "sock.pid"] {
            assert!(!dir.path().join(name).exists(), "it leaves nothing");
        }
    }
}

#[test]
fn the_upgrade_socket_must_be_in_a_directory_of_the_later_user() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = dir.path().display();
    let errors = refused(dir.path(), &format!("pingora: {{ user: nobody, upgrade_sock: {folder}/sock }}\n"));
    assert!(errors.contains("pingora.upgrade_sock: the user 'nobody' cannot write to"), "{errors}");
    let errors = refused(dir.path(), "pingora: { user: nobody }\n");
    assert!(errors.contains("pingora.user: the user 'nobody' cannot write to"), "{errors}");
    let port = for_nobody(dir.path());
    let pid = || fs::read_to_string(dir.path().join("sock.pid")).unwrap_or_default().trim().parse().unwrap_or(0);
    assert_eq!(run(dir.path(), &["-d", "-c", "t.yaml"]).status.code(), Some(0));
    for _ in 0..2 {
        let before = pid();
        let output = run(dir.path(), &["-u", "-d", "-c", "t.yaml"]);
        let errors = fs::read_to_string(dir.path().join("errors")).unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?} {errors}");
        eventually("the predecessor leaves", || kill(Pid::from_raw(before), None).is_err());
        is_nobody(pid());
        Request::new("GET", format!("http://127.0.0.1:{port}/")).expect(200).says("served");
    }
    kill(Pid::from_raw(pid()), Signal::SIGINT).unwrap();
    eventually("the last one leaves", || !dir.path().join("sock").exists());
}

#[test]
fn a_process_in_the_background_reads_the_file_that_was_checked_and_says_so_once() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let inner = dir.path().join("conf/conf");
    fs::create_dir_all(&inner).unwrap();
    let folder = dir.path().display();
    let text = |body: &str| {
        format!(
            "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock, error_log: {folder}/errors }}\nlisteners: \"127.0.0.1:{port}\"\nadmin: {{ enabled: false }}\nservices: {{ unused: {{ urls: \"http://127.0.0.1:1\" }} }}\nroutes: [ {{ match: {{ path: / }}, respond: {{ body: {body} }} }} ]\n"
        )
    };
    fs::write(dir.path().join("conf/t.yaml"), text("outer")).unwrap();
    fs::write(inner.join("t.yaml"), text("inner")).unwrap();
    let line = format!("umask 037; exec {} -d -c conf/t.yaml", binary());
    let output = Command::new("sh").args(["-c", &line]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let pid = read("pid").trim().to_owned();
    let body = Request::new("GET", format!("http://127.0.0.1:{port}/")).send().body;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGINT).unwrap();
    eventually("it leaves", || !dir.path().join("pid").exists());
    assert_eq!(body, "outer");
    assert!(status.contains("Umask:\t0037"), "{status}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &read("errors");
    assert_eq!(said.matches("tollgate 0.1.0 (pid ").count(), 1, "{said}");
    assert!(said.contains(&format!("(pid {pid}): conf/t.yaml")), "{said}");
    assert_eq!(said.matches("no route leads to this service").count(), 1, "{said}");
}

#[test]
fn a_process_in_the_background_reads_no_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "listeners: \"127.0.0.1:{}\"\nadmin: {{ enabled: false }}\nroutes: [ {{ match: {{ path: / }}, respond: {{}} }} ]\n",
        free_port()
    );
    fs::write(dir.path().join("t.yaml"), text).unwrap();
    let line = format!("{} -d -c - < t.yaml", binary());
    let output = Command::new("sh").args(["-c", &line]).current_dir(dir.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("cannot read standard input") && !errors.contains("is missing"), "{errors}");
}

#[test]
fn a_daemon_keeps_its_working_directory() {
    let (certs, a, b) = (Certs::new(), Origin::start("a"), Origin::start("b"));
    certs.issue("a", "first", &["a.example"]);
    let (dir, port, plain) = (certs.dir(), free_port(), free_port());
    fs::write(dir.join("backends"), a.url()).unwrap();
    let text = format!(
        "pingora: {{ threads: 1, pid_file: pid, upgrade_sock: sock, error_log: errors }}\nlisteners:\n  - {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [ {{ cert: a.pem, key: a.key }} ] }} }}\n  - {{ address: \"127.0.0.1:{plain}\" }}\nadmin: {{ enabled: false }}\naccess_log: {{ output: {{ file: access.log }} }}\nservices: {{ main: {{ discovery: {{ file: backends }} }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\n"
    );
    fs::write(dir.join("t.yaml"), text).unwrap();
    let output = run(dir, &["-d", "-c", "t.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let pid = Pid::from_raw(read("pid").trim().parse().unwrap());
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let get = || Request::new("GET", format!("http://127.0.0.1:{plain}/")).expect(200).body;
        assert_eq!(get(), "a");
        eventually("the access log is in the folder", || read("access.log").contains("\"status\":200"));
        certs.issue("a", "second", &["a.example"]);
        fs::write(dir.join("backends"), format!("{}\n", b.url())).unwrap();
        eventually("the other backend is used", || get() == "b");
        eventually("the certificate is taken up", || read("errors").contains("certificates were read again"));
    }));
    kill(pid, Signal::SIGINT).unwrap();
    eventually("it leaves", || !dir.join("pid").exists());
    seen.unwrap();
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_a_process_from_leaving() {
    for (signals, delay) in [(&[Signal::SIGINT][..], 0), (&[Signal::SIGTERM, Signal::SIGINT], 100)] {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let folder = dir.path().display();
        let text = format!(
            "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\n{ROUTE}"
        );
        fs::write(dir.path().join("t.yaml"), text).unwrap();
        let mut child = Command::new(binary())
            .args(["-c", "t.yaml"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it serves", || dir.path().join("pid").exists());
        // More than a pipe holds.
        let path = "x".repeat(2000);
        for _ in 0..60 {
            Request::new("GET", format!("http://127.0.0.1:{port}/{path}")).expect(200);
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        for signal in signals {
            let _ = kill(pid, *signal);
            std::thread::sleep(Duration::from_millis(delay));
        }
        let mut status = None;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the process leaves", || {
                status = child.try_wait().unwrap();
                status.is_some()
            });
        }));
        let _ = child.kill();
        let _ = child.wait();
        assert!(ended.is_ok(), "{signals:?}");
        assert_eq!(status.unwrap().code(), Some(0));
    }
}

#[test]
fn a_full_disk_is_said_once() {
    let gw = Gateway::start(&format!("access_log: {{ output: {{ file: /dev/full }} }}\n{ROUTE}"));
    let lost = "gateway_access_log_dropped_total";
    for count in 1..=3 {
        gw.get("/").expect(200);
        // Each is written for itself.
        eventually("it is counted", || gw.metric(lost) == Some(f64::from(count)));
    }
    let errors = gw.errors();
    assert_eq!(errors.matches("ERROR").count(), 1, "{errors}");
    assert!(errors.contains("access log: lines are lost: No space left on device"), "{errors}");
}

#[test]
fn a_named_pipe_without_a_reader_makes_no_signal_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let gw = Gateway::start(&format!(
        "access_log: {{ output: {{ file: {} }} }}\nservices: {{}}\nroutes: [ {{ match: {{ path: / }}, respond: {{}} }} ]\n",
        pipe.display()
    ));
    gw.get("/").expect(200);
    gw.signal(nix::sys::signal::Signal::SIGUSR1);
    std::thread::sleep(std::time::Duration::from_millis(200));
    gw.get("/").expect(200);
}

#[test]
fn lines_wait_for_the_reader_of_a_named_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut gw = Gateway::start(&format!("access_log: {{ output: {{ file: {} }} }}\n{ROUTE}", pipe.display()));
    for path in ["/1", "/2"] {
        gw.get(path).expect(200);
    }
    let read = Arc::new(Mutex::new(String::new()));
    let lines = read.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(fs::File::open(pipe).unwrap()).lines() {
            *lines.lock() += &(line.unwrap() + "\n");
        }
    });
    eventually("both have a line", || read.lock().lines().count() == 2);
    assert_eq!(gw.errors().matches("access log: nobody reads").count(), 1, "{}", gw.errors());
    gw.get("/3").expect(200);
    eventually("the third has one, too", || read.lock().contains("\"path\":\"/3\""));
    assert_eq!(gw.metric("gateway_access_log_dropped_total"), Some(0.0));
    gw.signal(Signal::SIGINT);
    gw.wait();
}

#[test]
fn lines_wait_for_the_next_reader_of_a_named_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut gw = Gateway::start(&format!("access_log: {{ output: {{ file: {} }} }}\n{ROUTE}", pipe.display()));
    for round in 0..3 {
        // The first of them finds that nobody reads any more.
        for line in 0..3 {
            gw.get(&format!("/{round}/{line}")).expect(200);
            eventually("it is said", || gw.errors().matches("access log: nobody reads").count() == round + 1);
        }
        let (read, pipe) = (Arc::new(Mutex::new(String::new())), pipe.clone());
        let lines = read.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(fs::File::open(pipe).unwrap()).lines().take(3) {
                *lines.lock() += &(line.unwrap() + "\n");
            }
        });
        eventually("it has three lines", || read.lock().lines().count() == 3);
        for line in 0..3 {
            assert!(read.lock().contains(&format!("\"path\":\"/{round}/{line}\"")), "{round} {line}: {}", read.lock());
        }
        reader.join().unwrap();
    }
    assert_eq!(gw.metric("gateway_access_log_dropped_total"), Some(0.0));
    assert_eq!(gw.errors().matches("has a reader").count(), 3, "{}", gw.errors());
    assert!(!gw.errors().contains("lines are lost"), "{}", gw.errors());
    gw.signal(Signal::SIGINT);
    gw.wait();
}

#[test]
fn a_pipe_that_nobody_reads_does_not_keep_a_process_from_leaving() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut gw = Gateway::start(&format!("access_log: {{ output: {{ file: {} }} }}\n{ROUTE}", pipe.display()));
    gw.get("/").expect(200);
    gw.signal(Signal::SIGUSR1);
    gw.signal(Signal::SIGINT);
    assert_eq!(gw.wait().code(), Some(0));
}

#[test]
fn an_error_log_that_nobody_writes_is_said() {
    let yaml =
        "pingora: { threads: 1, pid_file: '{dir}/pid', upgrade_sock: '{dir}/sock', error_log: '{dir}/errors' }\n";
    let mut gw = Gateway::start(&format!("{yaml}{ROUTE}"));
    eventually("it is said", || gw.errors().contains("pingora.error_log: only a daemon (-d) writes there"));
    gw.get("/").expect(200);
    gw.signal(Signal::SIGINT);
    gw.wait();
}

#[test]
fn the_first_request_has_its_line() {
    for _ in 0..10 {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let folder = dir.path().display();
        let text = format!(
            "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\naccess_log: {{ output: {{ file: {folder}/log }} }}\n{ROUTE}"
        );
        fs::write(dir.path().join("t.yaml"), text).unwrap();
        let mut command = Command::new(binary());
        let command = command.args(["-c", "t.yaml"]).current_dir(dir.path()).stdin(Stdio::null());
        let _gateway = Running(command.stderr(Stdio::null()).spawn().unwrap());
        // It waits in the socket's queue until the first connection is accepted.
        let mut stream = None;
        eventually("it listens", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        eventually("it has a line", || log().lines().count() == 1);
    }
}
