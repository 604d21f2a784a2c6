//! Files that a configuration names, read whole. A pipe would be waited for, and a device may have no end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::fcntl::OFlag;

/// A larger file is none of those that a configuration names.
const MOST: u64 = 16 << 20;

/// What is in a regular file, or in the one that a link leads to.
///
/// # Errors
/// Why it cannot be read, also when it is something else or too large.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a named pipe would wait for its other end.
    let file: File = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST >> 20)));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// The same, and that it is no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8"))
}
