//! `-u`: the successor's side of taking over.
//!
//! Pingora's order of events asks an operator to start the successor and then, within five seconds, to send SIGQUIT to
//! the predecessor. Here the successor does it: once its upgrade socket is there, it signals the process that the pid
//! file names. A predecessor that finds no waiting successor ignores the signal (`signals.rs`), so no order of events
//! leaves nobody serving.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};

/// Pingora waits about five seconds for the sockets.
const PATIENCE: Duration = Duration::from_secs(5);

/// Signals `predecessor` as soon as the upgrade socket at `sock` waits. A socket that a dead successor left behind is
/// removed first, or it would be taken for ours.
pub(super) fn summon(predecessor: Pid, sock: &str) -> thread::JoinHandle<()> {
    let _ = std::fs::remove_file(sock);
    let sock = sock.to_owned();
    thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        // Only looked at: the successor accepts one connection and takes it for the predecessor's.
        while !Path::new(&sock).exists() {
            if Instant::now() > deadline {
                log::error!("upgrade: no socket at {sock}");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        log::info!("upgrade: taking over from process {predecessor}");
        if let Err(e) = signal::kill(predecessor, signal::Signal::SIGQUIT) {
            log::error!("upgrade: cannot signal process {predecessor}: {e}");
        }
    })
}
