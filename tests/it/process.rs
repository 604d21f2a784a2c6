//! The command line, exit codes, and how a process leaves.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::{
    discovery::{Zone, dns},
    handover::handles_signals,
    harness::{BINARY, Gateway, Origin, binary, eventually, free_port, full_backend, raw_backend, read_head},
    http2::Frames,
};

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&format!(
        "shutdown: {{ delay: 600ms }}\nservices:\n  main: {{ urls: [\"{}\"] }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n",
        origin.url()
    ))
}

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["check", "conf/demo.yaml"]).status.code(), Some(0));
    assert_eq!(run(&["-t"]).status.code(), Some(0), "the built-in configuration");
    assert_eq!(run(&["--bogus"]).status.code(), Some(2));
    let missing = run(&["-t", "-c", "/no/such/file.yaml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file.yaml:1:1: cannot read the file"));
}

#[test]
fn a_file_that_is_named_counts_more_than_the_variable() {
    let check = |variable: &str, arguments: &[&str]| {
        let mut command = Command::new(binary());
        let output = command.args(arguments).env("TOLLGATE_CONFIG", variable).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in
        [&["check", "conf/demo.yaml"][..], &["check", "-c", "conf/demo.yaml"], &["-t", "-c", "conf/demo.yaml"]]
    {
        let (code, said) = check("/no/such/file.yaml", arguments);
        assert!(code == Some(0) && said.starts_with("conf/demo.yaml: ok"), "{arguments:?}: {said}");
    }
    for arguments in [&["check"][..], &["-t"], &["run", "-t"]] {
        let (code, said) = check("conf/demo.yaml", arguments);
        assert!(code == Some(0) && said.starts_with("conf/demo.yaml: ok"), "{arguments:?}: {said}");
    }
    // An empty variable names no file.
    for arguments in [&["check"][..], &["-t"], &["run", "-t"]] {
        let (code, said) = check("", arguments);
        assert!(code == Some(0) && !said.contains("conf/demo.yaml"), "{arguments:?}: {said}");
    }
    let (code, _) = check("", &["-t", "-c", ""]);
    assert_eq!(code, Some(2), "an empty name that was given is a mistake");
    let (code, _) = check("conf/demo.yaml", &["check", "-c", "conf/demo.yaml", "conf/demo.yaml"]);
    assert_eq!(code, Some(2), "which one?");
}

#[test]
fn the_schema_is_json_and_knows_the_filters() {
    let schema: serde_json::Value = serde_json::from_slice(&run(&["schema"]).stdout).unwrap();
    assert!(schema["$defs"]["Filter"].to_string().contains("rate_limit"));
    assert!(schema["properties"]["services"].is_object());
}

#[test]
fn keys_are_hashed_and_made() {
    let made = String::from_utf8(run(&["hash-key", "--new"]).stdout).unwrap();
    let (key, digest) = (made.lines().next().unwrap().strip_prefix("key: ").unwrap(), made.lines().nth(1).unwrap());
    assert!(key.starts_with("tg_live_"), "{key}");
    assert_eq!(digest, format!("sha256: {}", tollgate::auth::Digest::of(key.as_bytes())));
    let mut hash = Command::new(BINARY).arg("hash-key").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut hash.stdin.take().unwrap(), b"demo-key\n").unwrap();
    let out = String::from_utf8(hash.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(out.trim(), tollgate::auth::Digest::of(b"demo-key").to_string());
}

#[test]
fn a_taken_port_is_said_at_once() {
    let (taken, dir) = (TcpListener::bind("127.0.0.1:0").unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("t.yaml");
    let address = taken.local_addr().unwrap();
    fs::write(&file, format!("listeners: [{{ address: \"{address}\" }}]\nadmin: {{ enabled: false }}\nroutes: [{{ match: {{ path: / }}, respond: {{}} }}]\n")).unwrap();
    let begun = Instant::now();
    let out = run(&["-c", &file.display().to_string()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains(&format!("cannot listen on {address}: another process has it")),
        "{out:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    let upgrade = run(&["-u", "-c", &file.display().to_string()]);
    assert_eq!(upgrade.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&upgrade.stderr).contains("no running gateway"), "{upgrade:?}");
}

#[test]
fn sigterm_turns_readiness_off_and_lets_requests_finish() {
    let origin = Origin::start("o");
    let mut gw = gateway(&origin);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| gw.get("/slow/1200").expect(200));
        eventually("the slow request is under way", || !origin.seen().is_empty());
        gw.signal(Signal::SIGTERM);
        eventually("readiness is off", || {
            gw.admin("/health/ready").try_send().is_ok_and(|answer| answer.status == 503)
        });
        // Load balancers that have not noticed yet are still served, on connections that close.
        gw.get("/").expect(200).has("connection", "close");
        slow.join().unwrap();
    });
    assert_eq!(gw.wait().code(), Some(0));
    assert!(!gw.path("pid").exists(), "the pid file goes with the process");
    assert!(gw.read("stdout").contains("/slow/1200"), "the log is complete");
}

#[test]
fn sigint_stops_at_once() {
    let origin = Origin::start("o");
    let mut gw = gateway(&origin);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| gw.get("/slow/8000").try_send());
        eventually("the slow request is under way", || !origin.seen().is_empty());
        let begun = Instant::now();
        gw.signal(Signal::SIGINT);
        assert!(slow.join().unwrap().is_err());
        assert!(begun.elapsed() < Duration::from_secs(3));
    });
    assert_eq!(gw.wait().code(), Some(0));
}

#[test]
fn sigquit_without_a_successor_changes_nothing() {
    let origin = Origin::start("o");
    let gw = gateway(&origin);
    gw.signal(Signal::SIGQUIT);
    eventually("it is said", || gw.errors().contains("SIGQUIT does nothing"));
    gw.get("/").expect(200);
}

#[test]
fn a_daemon_leaves_its_pid() {
    let dir = tempfile::tempdir().unwrap();
    let (port, folder) = (free_port(), dir.path().display().to_string());
    let yaml = format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock, error_log: {folder}/errors }}\nlisteners: [{{ address: \"127.0.0.1:{port}\" }}]\nadmin: {{ enabled: false }}\nshutdown: {{ delay: 10ms }}\nroutes: [{{ match: {{ path: / }}, respond: {{ body: here }} }}]\n"
    );
    let file = dir.path().join("t.yaml");
    fs::write(&file, yaml).unwrap();
    assert_eq!(run(&["-d", "-c", &file.display().to_string()]).status.code(), Some(0));
    let url = format!("http://127.0.0.1:{port}/");
    eventually("the daemon serves", || {
        crate::harness::Request::new("GET", url.clone()).try_send().is_ok_and(|a| a.body == "here")
    });
    eventually("the pid file is written", || {
        fs::read_to_string(dir.path().join("pid")).is_ok_and(|text| !text.trim().is_empty())
    });
    let pid: i32 = fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("the daemon leaves", || nix::sys::signal::kill(Pid::from_raw(pid), None).is_err());
}

#[test]
fn what_the_end_of_the_grace_period_cuts_is_told_and_logged() {
    let waits = raw_backend(|mut stream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(20));
    });
    let agrees = raw_backend(|mut stream| {
        read_head(&mut stream);
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        // Three frames, the last one without data.
        let _ = stream.write_all(agreed.as_bytes()).and_then(|()| stream.write_all(b"\x81\x02hi\x82\x01x\x89\x00"));
        std::thread::sleep(Duration::from_secs(20));
    });
    let mut gw = Gateway::start(&format!(
        "pingora: {{ threads: 2, grace_period_seconds: 2, pid_file: {{dir}}/pid, upgrade_sock: {{dir}}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{{port}}\", h2c: true }} ]\nservices:\n  waits: {{ urls: [\"http://{waits}\"] }}\n  agrees: {{ urls: [\"http://{agrees}\"] }}\nroutes:\n  - {{ match: {{ path: /ws }}, service: agrees }}\n  - {{ match: {{ path: /* }}, service: waits }}\n"
    ));
    let connect = |request: &str| {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client
    };
    let mut tunnel = connect("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(read_head(&mut tunnel).starts_with("HTTP/1.1 101 "));
    let mut slow = connect("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut frames = Frames::connect(&gw);
    frames.request(b"GET", &[], true);
    eventually("all are under way", || gw.metric("gateway_requests_in_flight") == Some(3.0));
    gw.signal(Signal::SIGTERM);
    let mut said = Vec::new();
    tunnel.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"\x81\x02hi\x82\x01x\x89\x00\x88\x02\x03\xe9", "1001, between two frames");
    assert!(read_head(&mut slow).starts_with("HTTP/1.1 503 "));
    let end = std::iter::repeat_with(|| frames.end()).find(|end| end != "goaway");
    assert_eq!(end.as_deref(), Some("status 503"), "the stream is answered too");
    gw.wait();
    assert!(gw.errors().contains("left with 3 requests under way"), "{}", gw.errors());
    let mut lines: Vec<_> =
        gw.log(3).iter().map(|line| (line["status"].as_u64(), line["by"].clone(), line["reason"].clone())).collect();
    lines.sort_by_key(|line| line.0);
    let cut = |status| (Some(status), Value::from("gateway"), Value::from("shutdown"));
    assert_eq!(lines, [cut(101), cut(503), cut(503)]);
}

#[test]
fn requests_that_are_cut_while_connecting_or_while_nobody_reads_have_their_lines_too() {
    let full = full_backend();
    let much = raw_backend(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        let part = vec![b'a'; 65536];
        while stream.write_all(&part).is_ok() {}
    });
    let mut gw = Gateway::start(&format!(
        "pingora: {{ threads: 2, grace_period_seconds: 2, pid_file: {{dir}}/pid, upgrade_sock: {{dir}}/sock }}\nservices:\n  full: {{ urls: [\"http://{}\"], timeouts: {{ connect: 30s }} }}\n  much: {{ urls: [\"http://{much}\"] }}\nroutes:\n  - {{ match: {{ path: /full }}, service: full }}\n  - {{ match: {{ path: /much }}, service: much }}\n",
        full.address
    ));
    let send = |path: &str| {
        let mut client = TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: h\r\nReferer: http://r.test/\r\n\r\n").unwrap();
        client
    };
    let (mut connecting, _unread) = (send("/full"), send("/much"));
    eventually("both are under way", || gw.metric("gateway_requests_in_flight") == Some(2.0));
    gw.signal(Signal::SIGTERM);
    assert!(read_head(&mut connecting).starts_with("HTTP/1.1 503 "));
    gw.wait();
    let mut lines = gw.log(2);
    lines.sort_by_key(|line| line["path"].to_string());
    for (line, status) in lines.iter().zip([503, 200]) {
        let told = (&line["status"], &line["by"], &line["reason"], &line["referer"]);
        assert_eq!(told, (&status.into(), &"gateway".into(), &"shutdown".into(), &"http://r.test/".into()), "{line}");
    }
}

#[test]
fn clients_that_wait_for_a_start_are_served_when_it_is_told_to_leave() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let (folder, resolver) = (dir.path().display(), dns(Zone::default()));
    let file = dir.path().join("t.yaml");
    let text = format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\nshutdown: {{ delay: 800ms }}\nservices: {{ s: {{ urls: [\"http://users.silent\"], discovery: {{ resolver: \"{resolver}\" }} }} }}\nroutes: [ {{ match: {{ path: /s }}, service: s }}, {{ match: {{ path: /* }}, respond: {{ body: here }} }} ]\n"
    );
    fs::write(&file, text).unwrap();
    let mut child = Command::new(binary())
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.path().join("errors")).unwrap())
        .spawn()
        .unwrap();
    let mut client = None;
    eventually("it listens", || {
        client = TcpStream::connect(("127.0.0.1", port)).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    // Its one name is not answered for: it waits for it, and nobody is accepted.
    handles_signals(&child);
    nix::sys::signal::kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    assert!(read.is_ok() && answer.ends_with("here"), "{read:?} {answer}");
    eventually("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_file_is_found_read_from_standard_input_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], input: &str| {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .current_dir(&dir)
            .env_remove("TOLLGATE_CONFIG")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let yaml = "listeners: [ { address: \"127.0.0.1:18080\" } ]\nadmin: { enabled: false }\nroutes: [ { match: { path: /* }, respond: { status: 204 } } ]\n";
    let counts = "ok (1 route, 0 services, 0 tests)\n";
    assert!(check(&["-t"], "").1.starts_with("built-in: ok"));
    assert_eq!(check(&["-t", "-c", "-"], yaml), (Some(0), format!("standard input: {counts}")));
    let (code, errors) = check(&["-t", "-c", "-"], "routs: 1\n");
    assert!(code == Some(78) && errors.starts_with("standard input:1:1: unknown key 'routs'"), "{errors}");
    fs::write(dir.path().join("tollgate.yaml"), yaml).unwrap();
    assert_eq!(check(&["-t"], ""), (Some(0), format!("tollgate.yaml: {counts}")));
}

#[test]
fn the_program_tells_what_it_is_and_how_it_is_used() {
    let said = |arguments: &[&str]| String::from_utf8(run(arguments).stdout).unwrap();
    let version = said(&["--version"]);
    assert!(version.contains("pingora 0.9.1") && version.contains("rustls 0.23"), "{version}");
    for (shell, text) in [("bash", "complete -F"), ("zsh", "#compdef tollgate"), ("fish", "complete -c tollgate")] {
        assert!(said(&["completions", shell]).contains(text), "{shell}");
    }
    assert!(said(&["man"]).contains(".TH tollgate 1"));
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let run = |args: &[&str], out: Stdio| {
        let mut command = Command::new(binary());
        command.args(args).stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"key\n");
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let commands: [&[&str]; 6] =
        [&["schema"], &["man"], &["completions", "bash"], &["demo", "--print"], &["hash-key"], &["hash-key", "--new"]];
    for args in commands {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = run(args, full.into());
        assert!(code == Some(1) && said.starts_with("standard output cannot be written to: "), "{args:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(args, writer.into()), (Some(0), String::new()), "{args:?}");
    }
}
