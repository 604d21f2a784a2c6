//! Which process may take over the files with answers that another one has left: the next one of the same gateway, and no other,
//! whatever its file says. What that one purges would come back otherwise, when one after it finds the files again.
//!
//! A file beside the pid file has a number that is in the list of what was left (`disk_left.rs`) while nobody has taken it. It is written
//! and taken under a lock. A process that leaves while another one has begun already leaves nothing: by then the pid file is that one's.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag},
};

/// Nobody keeps the lock longer, unless it hangs.
const TURN: Duration = Duration::from_secs(1);
/// Time between two looks whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// The file of this gateway.
#[derive(Debug)]
pub struct Heir(PathBuf);

impl Heir {
    /// The one beside this pid file.
    pub fn beside(pid_file: &Path) -> Self {
        let mut path = OsString::from(pid_file);
        path.push(".left");
        Self(path.into())
    }

    /// Takes the number, so that nobody finds it again.
    pub fn take(&self) -> Option<u64> {
        let mut file = self.open(false).ok()?;
        let mut text = String::new();
        let read = (&*file).take(64).read_to_string(&mut text);
        empty(&mut file).ok()?;
        read.ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    }

    /// This process begins, which `says` so in the pid file: what one before it leaves from now on is nobody's. With `leaves`, it may
    /// leave something itself one day.
    ///
    /// # Errors
    /// As `says`.
    pub fn begin(&self, leaves: bool, says: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let held = self.open(leaves);
        says()?;
        match held {
            Ok(mut file) => drop(empty(&mut file)),
            // Whoever keeps it for so long writes into what nobody finds.
            Err(_) => drop(fs::remove_file(&self.0)),
        }
        Ok(())
    }

    /// Leaves a number, if the pid file is this process's still.
    ///
    /// # Errors
    /// It is not, or the file cannot be written.
    pub fn leave(&self, number: u64, is_ours: impl FnOnce() -> bool) -> io::Result<()> {
        let mut file = self.open(true)?;
        empty(&mut file)?;
        if !is_ours() {
            return Err(io::Error::other("another process has begun"));
        }
        (&*file).write_all(format!("{number:016x}\n").as_bytes())
    }

    fn open(&self, create: bool) -> io::Result<Flock<File>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(flags.bits());
        let (mut file, begun) = (options.open(&self.0)?, Instant::now());
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(held),
                Err((file, Errno::EWOULDBLOCK)) if begun.elapsed() < TURN => file,
                Err((_, e)) => return Err(e.into()),
            };
            thread::sleep(LOOK);
        }
    }
}

fn empty(file: &mut Flock<File>) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_left_is_taken_once_and_by_the_next_one_alone() {
        let directory = tempfile::tempdir().unwrap();
        let heir = Heir::beside(&directory.path().join("pid"));
        assert_eq!(heir.take(), None);
        heir.begin(false, || Ok(())).unwrap();
        assert!(!heir.0.exists(), "where nothing is left there is no file");
        heir.leave(0xabc, || true).unwrap();
        assert_eq!([heir.take(), heir.take()], [Some(0xabc), None]);
        heir.leave(7, || true).unwrap();
        heir.begin(false, || Ok(())).unwrap();
        assert_eq!(heir.take(), None, "another one has begun");
        assert!(heir.leave(8, || false).is_err() && heir.take().is_none());
        std::fs::write(&heir.0, "no number").unwrap();
        assert_eq!(heir.take(), None);
    }

    #[test]
    fn nobody_waits_for_one_that_hangs() {
        let directory = tempfile::tempdir().unwrap();
        let heir = Heir::beside(&directory.path().join("pid"));
        heir.leave(7, || true).unwrap();
        let hangs = heir.open(false).unwrap();
        assert!(heir.take().is_none() && heir.leave(8, || true).is_err());
        heir.begin(true, || Ok(())).unwrap();
        (&*hangs).write_all(b"9").unwrap();
        drop(hangs);
        assert_eq!(heir.take(), None, "what it writes is found by nobody");
    }
}
