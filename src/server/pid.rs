//! The pid file: whom to signal.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _};

use nix::{errno::Errno, sys::signal, unistd::Pid};

/// Writes our process id, in one step, so that nobody reads half of it.
pub(super) fn write(path: &str) -> io::Result<()> {
    let fresh = format!("{path}.new");
    // Not through a link that somebody else has put there.
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&fresh)?;
    io::Write::write_all(&mut file, format!("{}\n", std::process::id()).as_bytes())?;
    fs::rename(fresh, path)
}

/// Removes the file, if it is still ours.
pub(super) fn remove(path: &str) {
    if is_ours(path) {
        let _ = fs::remove_file(path);
    }
}

/// True while it names this process: after an upgrade it names the successor.
pub(super) fn is_ours(path: &str) -> bool {
    read(path) == Some(Pid::this())
}

fn read(path: &str) -> Option<Pid> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Pid::from_raw)
}

/// Where a daemon's start (Pingora's) moves the file of the process before it.
fn old(path: &str) -> String {
    format!("{path}.old")
}

/// Takes the file of the process before away, when a daemon has come to serve in its place.
pub(super) fn forget_old(path: &str) {
    let old = old(path);
    if read(&old).is_some() {
        let _ = fs::remove_file(old);
    }
}

/// Undoes what a daemon's start does to the file of the process before it, when the daemon does not come to serve.
pub(super) fn give_back(path: &str) {
    // Signal 0 asks whether it is there (kill(2)); one of another user is.
    let lives = |pid: &Pid| *pid != Pid::this() && !matches!(signal::kill(*pid, None), Err(Errno::ESRCH));
    if !is_ours(path) {
        return;
    }
    if read(&old(path)).as_ref().is_some_and(lives) {
        let _ = fs::rename(old(path), path);
    } else {
        forget_old(path);
    }
}

/// The same, done by the process before: after a daemon that was killed before it came to serve.
pub(super) fn take_back(path: &str) {
    if read(&old(path)) == Some(Pid::this()) {
        let _ = fs::rename(old(path), path);
    }
}
