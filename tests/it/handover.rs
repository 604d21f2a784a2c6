//! Handing over, with each step of it failing: whatever goes wrong, somebody goes on serving, and `-u` says why.

use std::{
    fs,
    io::{IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

use crate::harness::{Gateway, Origin, Request, binary, eventually, free_port};

pub(crate) const ROUTE: &str = "routes: [ { match: { path: / }, respond: { body: served } } ]\n";

fn gateway() -> Gateway {
    Gateway::start(ROUTE)
}

/// A file like the gateway's, with other listeners and another admin address.
fn file(gw: &Gateway, listeners: &[String], admin: u16) -> String {
    let folder = gw.dir.path().display();
    let listeners: Vec<String> = listeners.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    let text = format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {} ]\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\n{ROUTE}",
        listeners.join(", ")
    );
    let path = gw.path("successor.yaml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Runs a process that should end by itself.
fn run(arguments: &[&str]) -> Output {
    // Files and not pipes: a process in the background keeps them open.
    let (out, errors) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut command = Command::new(binary());
    let command = command.args(arguments).stdin(Stdio::null());
    let mut child = command.stdout(out.reopen().unwrap()).stderr(errors.reopen().unwrap()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that is still there has been waited for long enough.
    let _ = child.kill();
    let status = child.wait().unwrap();
    Output { status, stdout: fs::read(out.path()).unwrap(), stderr: fs::read(errors.path()).unwrap() }
}

/// Runs a successor until it ends.
fn upgrade(file: &str, more: &[&str]) -> Output {
    run(&[&["-u", "-c", file], more].concat())
}

/// The upgrade failed for this reason, and the gateway goes on.
fn failed(gw: &mut Gateway, output: &Output, reason: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    assert!(errors.contains(reason), "'{reason}' is not in: {errors}");
    assert!(!errors.contains("listening on"), "{errors}");
    serves(gw);
}

fn serves(gw: &mut Gateway) {
    gw.get("/").expect(200).says("served");
    gw.admin("/health/ready").expect(200);
    assert!(gw.child.try_wait().unwrap().is_none(), "the gateway has gone");
    let pid = gw.child.id().to_string();
    eventually("the pid file names the process that serves", || gw.read("pid").trim() == pid);
}

/// Takes over for real, and sees the predecessor go.
fn succeeds(gw: &mut Gateway) {
    let mut predecessor = gw.upgrade();
    let successor = gw.child.id().to_string();
    eventually("the successor has written its pid", || gw.read("pid").trim() == successor);
    eventually("the predecessor leaves", || predecessor.try_wait().unwrap().is_some());
    serves(gw);
}

#[test]
fn a_failed_upgrade_leaves_the_old_process_serving() {
    let mut gw = gateway();
    let own = format!("127.0.0.1:{}", gw.port);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for daemon in [&[][..], &["-d"]] {
        let added = file(&gw, &[own.clone(), taken.to_string()], gw.admin);
        failed(&mut gw, &upgrade(&added, daemon), &format!("cannot listen on {taken}: another process has it"));
        let foreign = file(&gw, &[own.clone(), "192.0.2.1:1080".into()], gw.admin);
        failed(
            &mut gw,
            &upgrade(&foreign, daemon),
            "cannot listen on 192.0.2.1:1080: this machine has no such address",
        );
        let admin = file(&gw, std::slice::from_ref(&own), taken.port());
        failed(&mut gw, &upgrade(&admin, daemon), &format!("cannot listen on {taken}: another process has it"));
    }
    succeeds(&mut gw);
}

#[test]
fn an_upgrade_adds_and_drops_listeners() {
    let mut gw = gateway();
    let (old, added) = (gw.port, free_port());
    let listeners = [format!("127.0.0.1:{added}")];
    fs::rename(file(&gw, &listeners, gw.admin), gw.path("tollgate.yaml")).unwrap();
    let mut predecessor = gw.upgrade();
    eventually("the predecessor leaves", || predecessor.try_wait().unwrap().is_some());
    gw.port = added;
    serves(&mut gw);
    assert!(std::net::TcpStream::connect(("127.0.0.1", old)).is_err(), "nobody serves it, so nobody may accept there");
}

#[test]
fn a_command_that_goes_into_the_background_returns_when_its_process_serves() {
    let mut gw = gateway();
    let file = gw.path("tollgate.yaml").display().to_string();
    serves(&mut gw);
    for _ in 0..3 {
        let before = gw.read("pid").trim().to_owned();
        let output = run(&["-u", "-d", "-c", &file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let pid = gw.read("pid").trim().to_owned();
        assert_ne!(pid, before, "it is written before the command returns");
        assert!(!gw.path("pid.old").exists(), "the file of the process before is not needed any more");
        gw.get("/").expect(200).says("served");
        let before = Pid::from_raw(before.parse().unwrap());
        eventually("the predecessor leaves", || {
            let _ = gw.child.try_wait();
            kill(before, None).is_err()
        });
        assert_eq!(gw.admin("/gateway/stats").expect(200).json()["pid"].to_string(), pid);
    }
    let last = Pid::from_raw(gw.read("pid").trim().parse().unwrap());
    kill(last, Signal::SIGINT).unwrap();
    eventually("the last one leaves", || kill(last, None).is_err());
    assert!(!gw.path("sock").exists() && !gw.path("pid").exists(), "and takes its files away");
}

/// A connection to the gateway's upgrade socket, as a successor that has asked.
pub(crate) fn asking(gw: &Gateway) -> (UnixStream, String) {
    asking_at(&gw.path("sock"))
}

fn asking_at(socket: &Path) -> (UnixStream, String) {
    let mut stream = asked_at(socket);
    let answer = read_answer(&mut stream);
    (stream, answer)
}

fn asked_at(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"tollgate-upgrade 2\n").unwrap();
    stream
}

pub(crate) fn read_answer(stream: &mut UnixStream) -> String {
    let mut buffer = [0; 2048];
    let read = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[test]
fn a_successor_that_dies_before_it_serves_changes_nothing() {
    let mut gw = gateway();
    let (stream, answer) = asking(&gw);
    assert!(answer.starts_with("sockets ") && answer.contains(&gw.port.to_string()), "{answer}");
    drop(stream);
    eventually("it is said", || gw.errors().contains("the successor has gone"));
    serves(&mut gw);
    // Nor does one that says something else, or nothing at all.
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"nonsense\n").unwrap();
    eventually("it is said twice", || gw.errors().matches("upgrade:").count() >= 2);
    let silent = UnixStream::connect(gw.path("sock")).unwrap();
    serves(&mut gw);
    drop((stream, silent));
    succeeds(&mut gw);
}

#[test]
fn only_one_successor_at_a_time() {
    let mut gw = gateway();
    let first = asking(&gw);
    let own = file(&gw, &[format!("127.0.0.1:{}", gw.port)], gw.admin);
    failed(&mut gw, &upgrade(&own, &[]), "another successor is taking over");
    drop(first);
    eventually("it is said", || gw.errors().contains("the successor has gone"));
    succeeds(&mut gw);
}

#[test]
fn a_predecessor_that_does_not_hand_over_is_no_predecessor() {
    let mut gw = gateway();
    let own = file(&gw, &[format!("127.0.0.1:{}", gw.port)], gw.admin);
    let real = gw.path("sock");
    fs::rename(&real, gw.path("sock.real")).unwrap();
    for (answer, reason) in [
        (None, "no running gateway answers"),
        (Some(&b""[..]), "closed the connection"),
        (Some(b"nonsense\n"), "answered 'nonsense'"),
        (Some(b"sockets 127.0.0.1:1 127.0.0.1:2\n"), "named 2 sockets and sent 0"),
        (Some(b"refused because of reasons\n"), "because of reasons"),
    ] {
        let _ = fs::remove_file(&real);
        let fake = UnixListener::bind(&real).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        let output = if let Some(answer) = answer {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = fake.accept().unwrap();
                    let mut hello = [0; 64];
                    let _ = stream.read(&mut hello);
                    stream.write_all(answer).unwrap();
                });
                upgrade(&own, &[])
            })
        } else {
            // The file is there, and nobody behind it.
            drop(fake);
            upgrade(&own, &[])
        };
        failed(&mut gw, &output, reason);
    }
    let _ = fs::remove_file(&real);
    failed(&mut gw, &upgrade(&own, &[]), "no running gateway");
    fs::rename(gw.path("sock.real"), &real).unwrap();
    succeeds(&mut gw);
}

/// A predecessor of our own, which hands `socket` over as `address`; the successor's connection, when it serves.
pub(crate) fn hand_over(fake: &UnixListener, socket: &TcpListener, address: &str) -> (UnixStream, String) {
    let (mut stream, _) = fake.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let said = |stream: &mut UnixStream| {
        let mut buffer = [0; 64];
        let read = stream.read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    assert_eq!(said(&mut stream), "tollgate-upgrade 2\n");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let line = format!("sockets {address}\n");
    sendmsg(&stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::empty()).unwrap();
    let mut answer = said(&mut stream);
    if answer == "without []\n" {
        stream.write_all(b"go on\n").unwrap();
        answer = said(&mut stream);
    }
    (stream, answer)
}

/// A successor, which goes on by itself and says beside its file what is wrong.
pub(crate) fn spawn(file: &str) -> Child {
    let mut command = Command::new(binary());
    let command = command.args(["-u", "-c", file]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(fs::File::create(format!("{file}.errors")).unwrap()).spawn().unwrap()
}

/// The upgrade sockets in a folder beside the one at which a process is asked.
fn others(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("sock.")).collect()
}

/// A folder with a file for one listener, which this process has, and where it listens for successors.
pub(crate) fn fake() -> (TempDir, String, TcpListener, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let folder = dir.path().display();
    let text = format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {{ address: \"{}\" }} ]\nadmin: {{ enabled: false }}\n{ROUTE}",
        socket.local_addr().unwrap()
    );
    let file = dir.path().join("t.yaml");
    fs::write(&file, text).unwrap();
    fs::write(dir.path().join("pid"), format!("{}\n", std::process::id())).unwrap();
    let upgrade = UnixListener::bind(dir.path().join("sock")).unwrap();
    (dir, file.display().to_string(), socket, upgrade)
}

#[test]
fn a_successor_that_is_not_let_go_ends() {
    for (mode, address) in [(&[][..], None), (&["-d"], None), (&[], Some("127.0.0.1:1"))] {
        let (dir, file, socket, fake) = fake();
        let own = address.map_or_else(|| socket.local_addr().unwrap().to_string(), str::to_owned);
        let output = std::thread::scope(|scope| {
            let output = scope.spawn(|| upgrade(&file, mode));
            let (mut stream, answer) = hand_over(&fake, &socket, &own);
            if address.is_some() {
                assert_eq!(answer, "", "it has gone: the address is another one");
            } else {
                assert_eq!(answer, "serving\n");
                stream.write_all(b"staying\n").unwrap();
            }
            output.join().unwrap()
        });
        assert!(!output.status.success(), "{mode:?}: {output:?}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = if address.is_some() { "another process has it" } else { "the running process stays" };
        assert!(errors.contains(reason), "{mode:?}: {errors}");
        let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string(), "{mode:?}");
        assert!(!dir.path().join("pid.old").exists(), "{mode:?}");
    }
}

#[test]
fn a_predecessor_that_dies_while_it_hands_over_is_replaced() {
    for answered in [false, true] {
        let (dir, file, socket, fake) = fake();
        let address = socket.local_addr().unwrap();
        let mut child = spawn(&file);
        let (mut stream, answer) = hand_over(&fake, &socket, &address.to_string());
        assert_eq!(answer, "serving\n");
        drop(fake);
        if answered {
            // It dies before it hears that the successor has taken over.
            stream.shutdown(std::net::Shutdown::Read).unwrap();
            stream.write_all(b"leaving\n").unwrap();
        }
        drop((stream, socket));
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            Request::new("GET", format!("http://{address}/")).expect(200).says("served");
        }
        assert!(child.try_wait().unwrap().is_none());
        eventually("it can be replaced itself", || UnixStream::connect(dir.path().join("sock")).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Starts a gateway that becomes nobody; the owner of the socket at which it is asked.
fn owner_of_socket(file: &str, socket: &Path) -> u32 {
    let mut command = Command::new(binary());
    let mut first = command.args(["-c", file]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let own = first.id().to_string();
    let pid = socket.with_file_name("pid");
    eventually("it serves", || fs::read_to_string(&pid).is_ok_and(|text| text.trim() == own));
    let owner = fs::metadata(socket).unwrap().uid();
    first.kill().unwrap();
    first.wait().unwrap();
    owner
}

#[test]
fn a_predecessor_that_dies_is_replaced_by_a_successor_that_has_become_another_user() {
    // Only root becomes somebody else.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (dir, file, socket, fake) = fake();
    let (address, place) = (socket.local_addr().unwrap(), dir.path().join("sock"));
    drop((socket, fake));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    nix::unistd::chown(dir.path(), Some(nobody.uid), None).unwrap();
    let text = fs::read_to_string(&file).unwrap().replace("threads: 1,", "threads: 1, user: nobody,");
    fs::write(&file, text).unwrap();
    let owner = owner_of_socket(&file, &place);
    // What such a process leaves when it is killed, and what a successor of it has left.
    fs::remove_file(&place).unwrap();
    let (fake, left) = (UnixListener::bind(&place).unwrap(), dir.path().join("sock.4711"));
    drop(UnixListener::bind(&left).unwrap());
    for path in [&place, &left] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        nix::unistd::chown(path, Some(owner.into()), None).unwrap();
    }
    let socket = TcpListener::bind(address).unwrap();
    let mut child = spawn(&file);
    let (stream, answer) = hand_over(&fake, &socket, &address.to_string());
    assert_eq!(answer, "serving\n");
    drop((fake, stream, socket));
    let errors = || fs::read_to_string(format!("{file}.errors")).unwrap();
    eventually("it serves alone", || {
        assert!(child.try_wait().unwrap().is_none(), "{}", errors());
        errors().contains("the process before has ended by itself")
    });
    Request::new("GET", format!("http://{address}/")).expect(200).says("served");
    let (stream, answer) = asking_at(&place);
    assert!(answer.starts_with("sockets "), "{answer}");
    // Another successor that is killed: what it leaves is swept by a process that is not root any more.
    drop(UnixListener::bind(&left).unwrap());
    nix::unistd::chown(&left, Some(owner.into()), None).unwrap();
    drop(stream);
    eventually("it is taken away", || !left.exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sigquit_with_a_stale_socket_changes_nothing() {
    let mut gw = gateway();
    let _ = fs::remove_file(gw.path("sock"));
    drop(UnixListener::bind(gw.path("sock")).unwrap());
    gw.signal(Signal::SIGQUIT);
    eventually("it is said", || gw.errors().contains("SIGQUIT"));
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        serves(&mut gw);
    }
    assert!(!gw.errors().contains("shutdown"), "{}", gw.errors());
}

#[test]
fn sighup_changes_nothing() {
    let mut gw = gateway();
    gw.signal(Signal::SIGHUP);
    eventually("it is said", || gw.errors().contains("SIGHUP does nothing"));
    serves(&mut gw);
}

#[test]
fn a_second_gateway_does_not_take_the_upgrade_socket_away() {
    let mut gw = gateway();
    let other = file(&gw, &[format!("127.0.0.1:{}", free_port())], free_port());
    let output = run(&["-c", &other]);
    failed(&mut gw, &output, "another gateway answers at");
    succeeds(&mut gw);
}

#[test]
fn a_move_to_an_overlapping_address_wants_a_restart() {
    let mut gw = gateway();
    let wider = file(&gw, &[format!("0.0.0.0:{}", gw.port)], gw.admin);
    let output = upgrade(&wider, &[]);
    failed(&mut gw, &output, "an upgrade cannot change it into this: restart instead");
}

#[test]
fn a_look_at_the_upgrade_socket_is_not_worth_a_line() {
    let mut gw = gateway();
    let before = gw.errors().lines().count();
    for _ in 0..3 {
        drop(UnixStream::connect(gw.path("sock")).unwrap());
    }
    // What is said after it is the first that is said.
    drop(asking(&gw));
    eventually("the successor is missed", || gw.errors().contains("the successor has gone"));
    let said = gw.errors();
    assert_eq!(said.lines().skip(before).filter(|line| line.contains("upgrade:")).count(), 1, "{said}");
    serves(&mut gw);
}

#[test]
fn a_process_that_was_stopped_for_a_moment_hands_over_all_the_same() {
    let mut gw = gateway();
    let (mut stream, _) = asking(&gw);
    gw.signal(Signal::SIGSTOP);
    let process = gw.child.id();
    eventually("it is stopped", || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        status.contains("State:\tT")
    });
    gw.signal(Signal::SIGCONT);
    serves(&mut gw);
    stream.write_all(b"serving\n").unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"leaving\n");
    drop(stream);
    eventually("the successor is missed", || gw.errors().contains("goes on serving"));
    serves(&mut gw);
}

#[test]
fn a_successor_that_has_gone_while_the_process_was_stopped_does_not_relieve_it() {
    let mut gw = gateway();
    let (mut stream, _) = asking(&gw);
    gw.signal(Signal::SIGSTOP);
    stream.write_all(b"serving\n").unwrap();
    drop(stream);
    gw.signal(Signal::SIGCONT);
    eventually("it is said", || gw.errors().contains("goes on serving"));
    serves(&mut gw);
    // Nor does one that goes when it has heard that it may take over.
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"serving\n").unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"leaving\n");
    // It had put its own socket there, as a successor does.
    fs::rename(gw.path("sock"), gw.path("sock.new")).unwrap();
    drop(UnixListener::bind(gw.path("sock")).unwrap());
    drop(stream);
    eventually("it is said twice", || gw.errors().matches("goes on serving").count() == 2);
    succeeds(&mut gw);
}

#[test]
fn a_successor_that_has_not_been_waited_for_ends_and_puts_the_socket_back() {
    let (dir, file, socket, fake) = fake();
    let own = socket.local_addr().unwrap().to_string();
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| upgrade(&file, &[]));
        let (mut stream, answer) = hand_over(&fake, &socket, &own);
        assert_eq!(answer, "serving\n");
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        stream.write_all(b"leaving\n").unwrap();
        output.join().unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("the running process stays: it has not waited"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
    drop(UnixStream::connect(dir.path().join("sock")).unwrap());
    fake.set_nonblocking(true).unwrap();
    assert!(fake.accept().is_ok(), "it is the predecessor's again");
}

#[test]
fn a_successor_that_is_not_let_go_finishes_what_it_has_accepted() {
    let origin = Origin::start("o");
    let (_dir, file, socket, fake) = fake();
    let address = socket.local_addr().unwrap();
    let text = fs::read_to_string(&file).unwrap().replace(ROUTE, "");
    let rest = format!(
        "services: {{ main: {{ urls: [\"{}\"] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\n",
        origin.url()
    );
    fs::write(&file, text + &rest).unwrap();
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| upgrade(&file, &[]));
        let (mut stream, answer) = hand_over(&fake, &socket, &address.to_string());
        assert_eq!(answer, "serving\n");
        let slow = scope.spawn(move || Request::new("GET", format!("http://{address}/slow/1000")).expect(200));
        eventually("the slow request is under way", || !origin.seen().is_empty());
        stream.write_all(b"staying\n").unwrap();
        slow.join().unwrap();
        output.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_process_that_is_taking_over_itself_has_no_successor_yet() {
    let (dir, file, socket, fake) = fake();
    let mut child = spawn(&file);
    let (mut stream, answer) = hand_over(&fake, &socket, &socket.local_addr().unwrap().to_string());
    assert_eq!(answer, "serving\n");
    let [own] = &others(dir.path())[..] else { panic!("{:?}", others(dir.path())) };
    // Its predecessor may stay: one that took over from it now would be a second one.
    assert_eq!(asking_at(own).1, "refused this process has not taken over itself yet: try again\n");
    let mut early = asked_at(own);
    let mut taken = [0; 6];
    stream.write_all(b"leaving\n").unwrap();
    stream.read_exact(&mut taken).unwrap();
    assert_eq!(&taken, b"taken\n");
    assert!(read_answer(&mut early).starts_with("sockets "), "one that asked a moment too early is answered then");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_third_process_leaves_the_predecessors_socket_alone() {
    let mut gw = gateway();
    let (mut stream, _) = asking(&gw);
    stream.write_all(b"serving\n").unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    // As a successor does; this one takes its time, and is asked itself meanwhile.
    fs::rename(gw.path("sock"), gw.path("sock.new")).unwrap();
    let fake = UnixListener::bind(gw.path("sock")).unwrap();
    let socket = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let third = file(&gw, std::slice::from_ref(&address), free_port());
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| upgrade(&third, &[]));
        let (mut stream, answer) = hand_over(&fake, &socket, &address);
        assert_eq!(answer, "serving\n");
        stream.write_all(b"staying\n").unwrap();
        output.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop((fake, stream));
    eventually("it is said", || gw.errors().contains("goes on serving"));
    succeeds(&mut gw);
    assert!(others(gw.dir.path()).is_empty());
}

#[test]
fn a_killed_successor_leaves_no_socket_behind() {
    let mut gw = gateway();
    let (stream, _) = asking(&gw);
    // One of the first version was killed as well.
    let killed = |name: &str| {
        drop(UnixListener::bind(gw.path(name)).unwrap());
        // A test beside this one may be about to start a process, which has a copy.
        eventually("nobody listens", || UnixStream::connect(gw.path(name)).is_err());
    };
    killed("sock.new");
    killed("sock.4711");
    drop(stream);
    eventually("nothing is left of it", || others(gw.dir.path()).is_empty());
    killed("sock.new");
    succeeds(&mut gw);
    eventually("nothing is left of it", || others(gw.dir.path()).is_empty());
}

#[test]
fn a_predecessor_that_has_just_died_is_not_said_to_serve() {
    let (dir, file, _socket, fake) = fake();
    let output = std::thread::scope(|scope| {
        let output = scope.spawn(|| upgrade(&file, &[]));
        let (stream, _) = fake.accept().unwrap();
        // Closing it might not be enough: a test beside this one may be about to start a process, which has a copy.
        fs::remove_file(dir.path().join("sock")).unwrap();
        drop((fake, stream));
        output.join().unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("; now no running gateway answers there"), "{errors}");
    assert!(!errors.contains("goes on serving"), "{errors}");
}

#[test]
fn a_process_that_leaves_is_not_said_to_go_on_serving() {
    let origin = Origin::start("o");
    let mut gw = Gateway::start(&format!(
        "services: {{ main: {{ urls: [\"{}\"] }} }}\nroutes: [ {{ match: {{ path: /* }}, service: main }} ]\nshutdown: {{ delay: 0s }}\n",
        origin.url()
    ));
    let file = gw.path("tollgate.yaml").display().to_string();
    let address = gw.port;
    let slow = std::thread::spawn(move || Request::new("GET", format!("http://127.0.0.1:{address}/slow/2000")).send());
    eventually("the slow request is under way", || !origin.seen().is_empty());
    gw.signal(Signal::SIGTERM);
    eventually("the listener is closed", || std::net::TcpStream::connect(("127.0.0.1", address)).is_err());
    let output = upgrade(&file, &[]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("the running process refused: this process is leaving; start without -u"), "{errors}");
    eventually("it is said", || gw.errors().contains("a successor was refused"));
    assert!(!gw.errors().contains("goes on serving"), "{}", gw.errors());
    slow.join().unwrap();
    gw.wait();
}

/// Waits until a process handles signals.
pub(crate) fn handles_signals(child: &Child) {
    eventually("signals are handled", || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() >> (Signal::SIGHUP as u64 - 1) & 1 == 1
    });
}

#[test]
fn a_successor_that_is_told_to_leave_does_not_take_over() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (dir, file, socket, fake) = fake();
        let mut child = spawn(&file);
        let (mut stream, answer) = hand_over(&fake, &socket, &socket.local_addr().unwrap().to_string());
        assert_eq!(answer, "serving\n");
        handles_signals(&child);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let errors = || fs::read_to_string(format!("{file}.errors")).unwrap();
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        eventually("it is told", || ended(&mut child) || errors().contains("leaving:"));
        let _ = stream.write_all(b"leaving\n");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert_eq!(said, "", "{signal}: the running process must stay");
        eventually("it ends", || ended(&mut child));
        if signal == Signal::SIGTERM {
            assert_eq!(child.wait().unwrap().code(), Some(1));
            let reason = "the running process stays: this one has been told to leave";
            assert!(errors().contains(reason), "{}", errors());
        }
        drop(UnixStream::connect(dir.path().join("sock")).unwrap());
        fake.set_nonblocking(true).unwrap();
        assert!(fake.accept().is_ok(), "it is the predecessor's");
    }
}

#[test]
fn the_pid_file_names_the_process_that_serves_when_a_daemon_has_been_killed() {
    let mut gw = gateway();
    let (stream, _) = asking(&gw);
    // As the start of a daemon does.
    fs::rename(gw.path("pid"), gw.path("pid.old")).unwrap();
    fs::write(gw.path("pid"), "4711\n").unwrap();
    drop(stream);
    serves(&mut gw);
    assert!(!gw.path("pid.old").exists());
    succeeds(&mut gw);
}

#[test]
fn a_pid_file_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, victim) = (dir.path().display(), dir.path().join("victim"));
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, dir.path().join("pid.new")).unwrap();
    let mut gw = Gateway::start(&format!(
        "pingora: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {{dir}}/sock }}\n{ROUTE}"
    ));
    let pid = gw.child.id().to_string();
    eventually("it is written", || fs::read_to_string(dir.path().join("pid")).is_ok_and(|text| text.trim() == pid));
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    gw.signal(Signal::SIGINT);
    gw.wait();
}

/// What a command with the default places prints until it says this.
fn says(command: &mut Command, errors: &Path, wanted: &str) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(errors).unwrap());
    let child = child.spawn().unwrap();
    eventually(wanted, || fs::read_to_string(errors).unwrap().contains(wanted));
    child
}

/// A folder for the default places, and in it a file for listeners on these ports.
fn listening_on(dir: &Path, name: &str, ports: &[u16]) -> PathBuf {
    let listeners: Vec<String> = ports.iter().map(|port| format!("{{ address: \"127.0.0.1:{port}\" }}")).collect();
    let text = format!("listeners: [ {} ]\nadmin: {{ enabled: false }}\n{ROUTE}", listeners.join(", "));
    fs::write(dir.join(name), text).unwrap();
    dir.join(name)
}

/// A command whose default places are in `dir`.
fn in_folder(dir: &Path, file: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(more).arg("-c").arg(file).env("XDG_RUNTIME_DIR", dir).env_remove("RUNTIME_DIRECTORY");
    command
}

#[test]
fn a_successor_finds_a_process_whose_first_listener_was_another_one() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), [free_port(), free_port()]);
    let file = |name: &str, ports: &[u16]| listening_on(dir.path(), name, ports);
    let command = |file: &Path, more: &[&str]| in_folder(dir.path(), file, more);
    let first = file("one.yaml", &ports[..1]);
    let mut one = says(&mut command(&first, &[]), &dir.path().join("one.log"), "listening on");
    let second = file("two.yaml", &[ports[1], ports[0]]);
    let mut two = says(&mut command(&second, &["-u"]), &dir.path().join("two.log"), "listening on");
    eventually("the first leaves", || one.try_wait().unwrap().is_some());
    let mut three = says(&mut command(&second, &["-u"]), &dir.path().join("three.log"), "listening on");
    eventually("the second leaves", || two.try_wait().unwrap().is_some());
    for port in ports {
        Request::new("GET", format!("http://127.0.0.1:{port}/")).expect(200).says("served");
    }
    three.kill().unwrap();
    three.wait().unwrap();
}

#[test]
fn a_daemon_that_follows_a_process_has_the_same_pid_file() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), [free_port(), free_port()]);
    let first = listening_on(dir.path(), "one.yaml", &ports[..1]);
    let mut one = says(&mut in_folder(dir.path(), &first, &[]), &dir.path().join("one.log"), "listening on");
    let second = listening_on(dir.path(), "two.yaml", &[ports[1], ports[0]]);
    let log = fs::File::create(dir.path().join("two.log")).unwrap();
    let mut two = in_folder(dir.path(), &second, &["-u", "-d"]);
    assert!(two.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status().unwrap().success());
    eventually("the first leaves", || one.try_wait().unwrap().is_some());
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pids: Vec<String> = names.filter(|name| name.contains(".pid")).collect();
    assert_eq!(pids, [format!("tollgate-{}.pid", ports[0])]);
    let pid = fs::read_to_string(dir.path().join(&pids[0])).unwrap();
    Request::new("GET", format!("http://127.0.0.1:{}/", ports[1])).expect(200).says("served");
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGINT).unwrap();
}

#[test]
fn signals_during_the_start_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (port, folder) = (free_port(), dir.path().display().to_string());
    // Nobody answers there: the start waits for it.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "pingora: {{ pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\nlisteners: [ {{ address: \"127.0.0.1:{port}\" }} ]\nadmin: {{ enabled: false }}\nservices: {{ s: {{ urls: [ \"http://name.test\" ], discovery: {{ resolver: \"{}\" }} }} }}\n{ROUTE}",
        silent.local_addr().unwrap()
    );
    let file = dir.path().join("t.yaml");
    fs::write(&file, text).unwrap();
    let errors = dir.path().join("errors");
    let mut command = Command::new(binary());
    // A slip in the environment silences nothing.
    let mut child =
        says(command.arg("-c").arg(&file).env("LOG_LEVEL", "warning"), &errors, "LOG_LEVEL: not a log level");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGQUIT] {
        kill(pid, signal).unwrap();
    }
    eventually("it serves all the same", || fs::read_to_string(&errors).unwrap().contains("listening on"));
    Request::new("GET", format!("http://127.0.0.1:{port}/")).expect(200).says("served");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_successor_passes_by_sockets_at_which_nobody_answers() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), [free_port(), free_port(), free_port()]);
    let first = listening_on(dir.path(), "one.yaml", &ports[2..]);
    let mut one = says(&mut in_folder(dir.path(), &first, &[]), &dir.path().join("one.log"), "listening on");
    // What processes leave that are killed: at the name of its own, and at another of its listeners'.
    for port in &ports[..2] {
        drop(UnixListener::bind(dir.path().join(format!("tollgate-{port}.sock"))).unwrap());
    }
    let second = listening_on(dir.path(), "two.yaml", &ports);
    let mut two = says(&mut in_folder(dir.path(), &second, &["-u"]), &dir.path().join("two.log"), "listening on");
    eventually("the first leaves", || one.try_wait().unwrap().is_some());
    for port in ports {
        Request::new("GET", format!("http://127.0.0.1:{port}/")).expect(200).says("served");
    }
    two.kill().unwrap();
    two.wait().unwrap();
}
