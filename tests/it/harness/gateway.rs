//! The real binary on free ports, with a folder of its own.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};
use tempfile::TempDir;

use super::{Request, client, eventually, free_port};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// The binary under test. Another one can be named, to see that a new test fails with it.
pub(crate) fn binary() -> String {
    std::env::var("TOLLGATE_UNDER_TEST").unwrap_or_else(|_| BINARY.to_owned())
}

/// A running gateway; killed on drop.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    pub(crate) admin: u16,
    pub(crate) dir: TempDir,
    pub(crate) child: Child,
}

impl Gateway {
    /// Starts the gateway with `yaml`, which says `services:` and `routes:` and whatever else it is about; ports and
    /// files are added. `{dir}` stands for the gateway's folder, `{port}` for its port.
    pub(crate) fn start(yaml: &str) -> Self {
        // Another process may take a port between finding and binding it: then it is tried again.
        (0..5).find_map(|_| Self::try_start(yaml)).expect("the gateway does not start")
    }

    fn try_start(yaml: &str) -> Option<Self> {
        let (port, admin, dir) = (free_port(), free_port(), tempfile::tempdir().unwrap());
        let folder = dir.path().display().to_string();
        let pingora = format!("pingora: {{ threads: 2, pid_file: {folder}/pid, upgrade_sock: {folder}/sock }}\n");
        let listeners = format!("listeners: [ {{ address: \"127.0.0.1:{port}\" }} ]\n");
        let admin_block = format!("admin: {{ address: \"127.0.0.1:{admin}\" }}\n");
        let pingora = if yaml.contains("pingora:") { String::new() } else { pingora };
        let listeners = if yaml.contains("listeners:") { String::new() } else { listeners };
        let admin_block = if yaml.contains("admin:") { String::new() } else { admin_block };
        let rest =
            yaml.replace("{dir}", &folder).replace("{admin}", &admin.to_string()).replace("{port}", &port.to_string());
        let text = [pingora, listeners, admin_block, rest].concat();
        fs::write(dir.path().join("tollgate.yaml"), text).unwrap();
        let child = Self::spawn(&dir, &[]);
        let mut gateway = Self { port, admin, dir, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if gateway.child.try_wait().unwrap().is_some() {
                let errors = gateway.errors();
                assert!(errors.contains("cannot listen"), "the gateway ended: {errors}");
                return None;
            }
            if Request::new("GET", format!("http://127.0.0.1:{admin}/health/live"))
                .try_send()
                .is_ok_and(|a| a.status == 200)
                && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            {
                return Some(gateway);
            }
            assert!(Instant::now() < deadline, "the gateway does not answer: {}", gateway.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(dir: &TempDir, more: &[&str]) -> Child {
        let append = |name: &str| File::options().create(true).append(true).open(dir.path().join(name)).unwrap();
        Command::new(binary())
            .arg("-c")
            .arg(dir.path().join("tollgate.yaml"))
            .args(more)
            .env_remove("RUST_LOG")
            .env_remove("LOG_LEVEL")
            .stdout(append("stdout"))
            .stderr(append("stderr"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts a successor that takes over, and becomes it; answers the predecessor.
    pub(crate) fn upgrade(&mut self) -> Child {
        std::mem::replace(&mut self.child, Self::spawn(&self.dir, &["-u"]))
    }

    /// Starts a process in the place of one that has ended.
    pub(crate) fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir, &[]);
        eventually("it answers again", || {
            let live = Request::new("GET", format!("http://127.0.0.1:{}/health/live", self.admin));
            live.try_send().is_ok_and(|answer| answer.status == 200)
        });
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    pub(crate) fn admin(&self, path: &str) -> Request {
        Request::new("GET", format!("http://127.0.0.1:{}{path}", self.admin))
    }

    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        client::raw(self.port, bytes)
    }

    /// The value of a metric: its name with its labels, as in the exposition.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.admin("/metrics").expect(200).body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(crate) fn signal(&self, signal: signal::Signal) {
        signal::kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end of the process.
    /// The most memory that it has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn errors(&self) -> String {
        self.read("stderr")
    }

    /// The line of the access log about the request that was refused with `answer`, a whole problem document: lines of several
    /// connections may change places.
    pub(crate) fn line_of(&self, answer: &str) -> serde_json::Value {
        let id = answer.split_once("\"request_id\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let id = id.unwrap_or_else(|| panic!("no request id in {answer}")).0;
        let mut found = None;
        eventually("the line is written", || {
            let log = self.read("stdout");
            found = log.lines().find(|line| line.contains(id)).map(str::to_owned);
            found.is_some()
        });
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    /// The lines of the access log on standard output, once there are `count` of them.
    pub(crate) fn log(&self, count: usize) -> Vec<serde_json::Value> {
        eventually("the access log is written", || self.read("stdout").lines().count() >= count);
        self.read("stdout").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
