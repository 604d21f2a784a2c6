//! A Redis of a test's own, that keeps nothing, and that can be killed, stopped and started anew.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{sys::signal, unistd::Pid};

use super::{eventually, free_port, program};

/// A running Redis; killed on drop.
pub(crate) struct Redis {
    pub(crate) port: u16,
    more: Vec<String>,
    child: Child,
    dir: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start(more: &[&str]) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let more: Vec<String> = more.iter().map(|&argument| argument.to_owned()).collect();
        let child = Self::spawn(port, &more, &dir);
        let redis = Self { port, more, child, dir };
        redis.wait();
        redis
    }

    fn spawn(port: u16, more: &[String], dir: &tempfile::TempDir) -> Child {
        Command::new(program("redis-server", "redis-server"))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", &dir.path().display().to_string()])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        eventually("redis answers", || {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let mut answer = [0; 1];
            stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok()
        });
    }

    /// Begins it anew, with nothing in it.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = Self::spawn(self.port, &self.more, &self.dir);
        self.wait();
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn signal(&self, signal: signal::Signal) {
        signal::kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command of words without spaces, and answers what came back within a moment.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
