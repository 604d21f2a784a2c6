//! The harness: real backends, the real binary, and a client that says what it expects in one line.

mod certs;
mod client;
mod fault;
mod gateway;
mod h2_client;
mod h2_origin;
mod issuer;
mod load;
mod origin;
mod raw;
mod redis;

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::{Duration, Instant},
};

pub(crate) use certs::Certs;
pub(crate) use client::{Answer, Request, raw as client_raw};
pub(crate) use fault::{Fault, FaultProxy};
pub(crate) use gateway::{BINARY, Gateway, binary};
pub(crate) use h2_client::h2_request;
pub(crate) use h2_origin::H2Origin;
pub(crate) use issuer::{JwksServer, Publishes, TestKey};
pub(crate) use load::{Tally, load};
pub(crate) use origin::{Origin, Seen};
pub(crate) use raw::{full_backend, raw_backend, read_head};
pub(crate) use redis::Redis;

/// A port that nobody listens on now and that this process gives to nobody else. It lies below those that the system
/// hands out by itself (32768 and up), or the next connection could take it before its owner does, and a test would
/// talk to the gateway of another one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    // Processes that run side by side begin at different places.
    let begin = u16::try_from(std::process::id() * 101 % u32::from(COUNT)).unwrap();
    let ports = (0..COUNT).map(|_| FIRST + NEXT.fetch_add(1, Relaxed).wrapping_add(begin) % COUNT);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no port is free")
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
