//! The harness: real backends, the real binary, and a client that says what it expects in one line.

mod certs;
mod client;
mod fault;
mod gateway;
mod origin;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

pub(crate) use certs::Certs;
pub(crate) use client::Request;
pub(crate) use fault::{Fault, FaultProxy};
pub(crate) use gateway::{BINARY, Gateway};
pub(crate) use origin::Origin;

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `ready` says so, for at most ten seconds.
pub(crate) fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The path of a tool that `scripts/deps` keeps within the project.
pub(crate) fn tool(name: &str) -> String {
    let path = format!("{}/target/tools/{name}/bin/{name}", env!("CARGO_MANIFEST_DIR"));
    assert!(std::path::Path::new(&path).exists(), "'{name}' is missing: run 'scripts/deps test'");
    path
}

/// The path of a program that a test needs; says which Debian package has it when it is missing.
pub(crate) fn program(name: &str, package: &str) -> String {
    let found = std::env::var("PATH")
        .unwrap_or_default()
        .split(':')
        .map(|dir| format!("{dir}/{name}"))
        .find(|path| std::path::Path::new(path).is_file());
    found.unwrap_or_else(|| panic!("'{name}' is missing: install the Debian package '{package}'"))
}
