//! The pid file: whom a successor takes over from.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _, path::Path};

use nix::{sys::signal, unistd::Pid};

/// Writes our process id, in one step, so that nobody reads half of it.
pub(super) fn write(path: &str) -> io::Result<()> {
    let fresh = format!("{path}.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
    io::Write::write_all(&mut file, format!("{}\n", std::process::id()).as_bytes())?;
    fs::rename(fresh, path)
}

/// Removes the file, if it is still ours: after an upgrade it names the successor.
pub(super) fn remove(path: &str) {
    if read(path) == Some(Pid::this()) {
        let _ = fs::remove_file(path);
    }
}

fn read(path: &str) -> Option<Pid> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(Pid::from_raw)
}

/// The running process that `path` names.
///
/// # Errors
/// Why there is none.
pub(super) fn running(path: &str) -> Result<Pid, String> {
    if !Path::new(path).exists() {
        return Err(format!("no running gateway: there is no pid file '{path}'"));
    }
    let pid = read(path).filter(|pid| pid.as_raw() > 1).ok_or_else(|| format!("'{path}' holds no process id"))?;
    // Signal 0 asks whether it is there (kill(2)).
    signal::kill(pid, None).map_err(|e| format!("no running gateway: process {pid} of '{path}': {e}"))?;
    Ok(pid)
}
