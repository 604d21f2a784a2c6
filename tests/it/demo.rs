//! `tollgate demo`: what it shows, and the tour that it makes by itself.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{Request, binary, eventually, free_port};

/// A process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("demo").args(arguments).env_remove("RUST_LOG").env_remove("LOG_LEVEL").stdin(Stdio::null());
    command
}

fn get(port: u16, path: &str) -> Request {
    Request::new("GET", format!("http://127.0.0.1:{port}{path}"))
}

/// The ports of the gateway and the admin pages, as the first line has them.
fn ports(line: &str) -> Vec<u16> {
    let after = line.split("http://127.0.0.1:").skip(1);
    after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()).collect()
}

#[test]
fn the_demo_runs_on_any_port_and_shows_what_can_be_tried() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::File::create(dir.path().join(name)).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let mut running = demo(&["--port", "0"]);
    let _running = Running(running.stdout(file("out")).stderr(file("err")).spawn().unwrap());
    eventually("the demo says where it is", || read("err").contains("Ctrl-C"));
    let found = ports(read("err").lines().find(|line| line.contains("http://127.0.0.1:")).unwrap());
    let (port, admin) = (found[0], found[1]);
    eventually("it serves", || get(admin, "/health/ready").try_send().is_ok_and(|answer| answer.status == 200));
    let here = format!("http://127.0.0.1:{port}/users");
    let text = get(port, "/").expect(200).has("content-type", "text/plain; charset=utf-8").says(&here);
    assert_eq!(text.body.lines().filter(|line| line.trim().starts_with("curl")).count(), 4, "{}", text.body);
    get(port, "/")
        .header("Accept", "text/html,*/*;q=0.8")
        .expect(200)
        .has("content-type", "text/html; charset=utf-8")
        .says(&format!("<a href=\"{here}\">"));
    get(port, "/reports").expect(401);
    get(port, "/reports").key("demo-key").expect(200).says("slow");
    // There and back again.
    let down = || get(admin, "/gateway/stats").expect(200).body.matches("\"healthy\":false").count();
    Request::new("POST", format!("http://127.0.0.1:{port}/users/fail")).expect(200);
    eventually("one backend is down", || {
        get(port, "/users").expect(200);
        down() == 1
    });
    Request::new("POST", format!("http://127.0.0.1:{port}/users/heal")).expect(200);
    eventually("it is up again", || down() == 0);
    assert_eq!(read("out"), "", "no access log that nobody asked for");
    let log = read("err");
    let of_the_failure = |line: &str| line.contains("is unhealthy") || line.contains("is ejected");
    assert!(log.lines().filter(|line| line.starts_with('[')).all(of_the_failure), "{log}");
}

#[test]
fn the_demos_configuration_is_printed_and_runs() {
    let port = free_port();
    let printed = demo(&["--print", "--port", &port.to_string()]).output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let run = |more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(more).args(["-c", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&printed.stdout).unwrap();
        child
    };
    let checked = run(&["-t"]).wait_with_output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let _running = Running(run(&[]));
    eventually("it serves", || get(port, "/reports").try_send().is_ok_and(|answer| answer.status == 401));
    // The default is the file as it stands.
    let file = demo(&["--print"]).output().unwrap();
    assert_eq!(String::from_utf8(file.stdout).unwrap(), fs::read_to_string("conf/demo.yaml").unwrap());
}

#[test]
fn the_access_log_of_the_demo_is_written_on_request() {
    let mut running =
        Running(demo(&["--port", "0", "--access-log"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let line = line_with(&mut BufReader::new(running.0.stderr.take().unwrap()), "http://127.0.0.1:");
    let found = ports(&line.expect("it says where it is"));
    eventually("it serves", || get(found[1], "/health/ready").try_send().is_ok_and(|answer| answer.status == 200));
    get(found[0], "/users").expect(200);
    let mut log = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut log).unwrap();
    assert!(log.contains("\"path\":\"/users\""), "{log}");
}

/// The tour with a folder of its own for temporary files.
fn tour(temporary: &tempfile::TempDir) -> Running {
    let mut command = demo(&["--tour"]);
    Running(command.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn files(folder: &tempfile::TempDir) -> usize {
    fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn the_tour_fails_no_request() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut running, begun) = (tour(&temporary), Instant::now());
    let (mut out, mut err) = (String::new(), String::new());
    running.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(running.0.wait().unwrap().success(), "{out}{err}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{out}");
    for step in ["has taken it out: ", "is used again", "tollgate -u", "and left", "failed: 0", "/limited  429: "] {
        assert!(out.contains(step), "{step} is not in {out}");
    }
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let counts = out.lines().find_map(|line| line.strip_prefix("sent ")?.split_once(", answered ")).unwrap();
    assert!(number(counts.0) == number(counts.1) && number(counts.0) > 200, "{counts:?}");
    assert_eq!((files(&temporary), err.as_str()), (0, ""));
}

/// Reads on until a line has this in it; nothing when it ends before.
fn line_with(out: &mut impl BufRead, text: &str) -> Option<String> {
    loop {
        let mut line = String::new();
        if out.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if line.contains(text) {
            return Some(line);
        }
    }
}

#[test]
fn an_interrupted_tour_leaves_nothing_behind() {
    // Ctrl-C, and a terminal that is closed.
    for signal in [Signal::SIGINT, Signal::SIGHUP] {
        let temporary = tempfile::tempdir().unwrap();
        // The tour looks for free ports and leaves them to its gateway: another program may take one meanwhile.
        let started = std::iter::repeat_with(|| {
            let mut running = tour(&temporary);
            let mut out = BufReader::new(running.0.stdout.take().unwrap());
            let line = line_with(&mut out, "the gateway serves");
            line.map(|line| (running, out, ports(&line)[0]))
        });
        let (mut running, _out, port) = started.take(5).find_map(|started| started).expect("it never serves");
        assert_eq!(files(&temporary), 1);
        kill(Pid::from_raw(i32::try_from(running.0.id()).unwrap()), signal).unwrap();
        let status = running.0.wait().unwrap();
        assert_eq!((status.code(), files(&temporary)), (Some(1), 0));
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "its gateway is gone");
    }
}

#[test]
fn a_demo_whose_port_is_taken_says_what_helps_and_no_page() {
    let taken = std::iter::repeat_with(|| std::net::TcpListener::bind(("127.0.0.1", free_port())));
    let taken = taken.into_iter().find_map(Result::ok).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = demo(&["--port", &port.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("--port"), "{said}");
    assert!(said.lines().count() == 1 && !said.contains("-u"), "{said}");
}
