//! Where successors ask: the socket at `upgrade_sock`, and how it passes from one process to the next.
//!
//! Each process listens at a name of its own beside that place (`X.sock.PID`), and moves there when it is the one to be
//! asked. A successor exchanges its socket for that of its predecessor, so that either side can put it back. Whoever
//! looks and then moves holds the lock of the directory, so that nobody moves between. A socket that nobody listens on
//! any more was left by a process that was killed, and is taken away by the next that comes along.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, Uid, chownat, flock, open, renameat_with},
    io::Errno,
};

/// A lock is held for a few system calls; whoever holds it longer is none of ours.
const TURN: Duration = Duration::from_secs(1);

/// The socket at which a successor asks for the listening sockets.
#[derive(Debug)]
pub(super) struct UpgradeSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Where it is until the process is the one to be asked: `path` may still be that of the predecessor.
    fresh: PathBuf,
    identity: (u64, u64),
}

impl UpgradeSocket {
    /// Listens beside `path`; `install` or `exchange` moves it there.
    ///
    /// # Errors
    /// What is in the way.
    pub(super) fn bind(path: &str) -> Result<Self, String> {
        let fresh = PathBuf::from(format!("{path}.{}", std::process::id()));
        let failed = |e: io::Error| format!("cannot listen on {}: {e}", fresh.display());
        if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
            return Err(format!("upgrade_sock: there is something at '{path}' that is not a socket"));
        }
        let turn = Turn::take(path.as_ref());
        turn.sweep(path.as_ref());
        // A process of another container may have the same number.
        if answers(&fresh) {
            return Err(format!(
                "upgrade_sock: another process answers at '{}': wait until it has taken over",
                fresh.display()
            ));
        }
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(&fresh).map_err(failed)?;
        Ok(Self { listener, path: path.into(), fresh, identity })
    }

    /// Makes it that of the user whom this process becomes: a successor that has become it can then still tell whether
    /// somebody answers, and put it away. Before `install`.
    ///
    /// # Errors
    /// It stays as it is.
    pub(super) fn give_to(&self, owner: Uid) -> Result<(), String> {
        let failed = |e: io::Error| format!("{} cannot be given to the later user: {e}", self.fresh.display());
        // The directory may be that user's already: what is given away is what has been bound, not what stands there now.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = File::from(open(&self.fresh, flags, Mode::empty()).map_err(|e| failed(e.into()))?);
        let meta = place.metadata().map_err(failed)?;
        if !meta.file_type().is_socket() || meta.nlink() != 1 || (meta.dev(), meta.ino()) != self.identity {
            return Err(failed(Errno::STALE.into()));
        }
        chownat(&place, "", Some(owner), None, AtFlags::EMPTY_PATH).map_err(|e| failed(e.into()))
    }

    /// From now on this process is the one that is asked.
    ///
    /// # Errors
    /// Another one is, or the socket cannot be moved.
    pub(super) fn install(&self) -> Result<(), String> {
        let _turn = Turn::take(&self.path);
        let path = self.path.display();
        if answers(&self.path) {
            return Err(format!(
                "another gateway answers at '{path}': take over from it with -u, or give this one an upgrade_sock of its own"
            ));
        }
        fs::rename(&self.fresh, &self.path).map_err(|e| format!("cannot listen on {path}: {e}"))
    }

    /// The same in the place of the predecessor, whose socket is then where this one was, so that either side can put it
    /// back.
    pub(super) fn exchange(&self) -> io::Result<()> {
        let _turn = Turn::take(&self.path);
        self.swap()
    }

    fn swap(&self) -> io::Result<()> {
        if renameat_with(CWD, &self.fresh, CWD, &self.path, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
        // Not every file system can exchange two files.
        let aside = PathBuf::from(format!("{}.{ASIDE}", self.fresh.display()));
        fs::rename(&self.path, &aside)?;
        let installed = fs::rename(&self.fresh, &self.path);
        let _ = fs::rename(&aside, if installed.is_ok() { &self.fresh } else { &self.path });
        installed
    }

    /// Undoes `exchange`: the predecessor is asked again. False when it has taken its socket away.
    pub(super) fn withdraw(&self) -> bool {
        let _turn = Turn::take(&self.path);
        if self.is_at(&self.path) && self.fresh.symlink_metadata().is_ok() {
            let _ = self.swap();
        }
        // The predecessor may have done it already.
        !self.is_at(&self.path)
    }

    /// After a successor that has put its socket in this one's place and has then gone: this process is asked again.
    pub(super) fn put_back(&self) {
        let _turn = Turn::take(&self.path);
        if let Some(aside) = self.found().filter(|found| *found != self.path) {
            let _ = fs::rename(aside, &self.path);
        }
    }

    /// Takes away what a successor has left that was killed.
    pub(super) fn sweep(&self) {
        Turn::take(&self.path).sweep(&self.path);
    }

    /// Where it is now: a successor puts it where its own was.
    fn found(&self) -> Option<PathBuf> {
        let usual = [self.path.clone(), self.fresh.clone()];
        usual.into_iter().chain(beside(&self.path)).find(|place| self.is_at(place))
    }

    fn is_at(&self, path: &Path) -> bool {
        identity(path).is_ok_and(|found| found == self.identity)
    }

    /// Takes the socket away, wherever it is.
    pub(super) fn remove(&self) {
        let _turn = Turn::take(&self.path);
        if let Some(place) = self.found() {
            let _ = fs::remove_file(place);
        }
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// True when somebody answers at `path`, or might: only where certainly nobody does may another socket be put.
pub(super) fn answers(path: impl AsRef<Path>) -> bool {
    let dead = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    UnixStream::connect(path).err().is_none_or(|e| !dead.contains(&e.kind()))
}

/// What follows the number in the name of a socket that is moved in more than one step.
const ASIDE: &str = "old";

/// The sockets of processes that are not, not yet or no longer asked at `path`.
fn beside(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let ours = |other: &OsStr| {
        let Some(rest) = other.as_bytes().strip_prefix(name).and_then(|rest| rest.strip_prefix(b".")) else {
            return false;
        };
        let number = rest.strip_suffix(format!(".{ASIDE}").as_bytes()).unwrap_or(rest);
        // The first version called them all `.new`.
        rest == b"new" || !number.is_empty() && number.iter().all(u8::is_ascii_digit)
    };
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok());
    entries.into_iter().flatten().flatten().filter(|entry| ours(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// The right to move sockets. Without it (the directory cannot be locked) they are moved all the same: it guards against
/// rare moments.
struct Turn(Option<File>);

impl Turn {
    fn take(path: &Path) -> Self {
        let begun = Instant::now();
        let dir = path.parent().and_then(|dir| File::open(dir).ok());
        Self(dir.filter(|dir| {
            loop {
                match flock(dir, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => return true,
                    Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < TURN => {
                        thread::sleep(Duration::from_millis(5));
                    }
                    Err(_) => return false,
                }
            }
        }))
    }

    /// Takes away what killed processes have left. Only with the lock: between binding a socket and listening on it
    /// nobody answers there either.
    fn sweep(&self, path: &Path) {
        if self.0.is_none() {
            return;
        }
        let socket = |place: &Path| fs::symlink_metadata(place).is_ok_and(|meta| meta.file_type().is_socket());
        for left in beside(path).into_iter().filter(|place| socket(place) && !answers(place)) {
            let _ = fs::remove_file(left);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn place() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock").display().to_string();
        (dir, path)
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn either_side_puts_the_predecessors_socket_back() {
        let (dir, path) = place();
        let old = UpgradeSocket::bind(&path).unwrap();
        old.install().unwrap();
        let successor = || {
            let new = UpgradeSocket::bind(&path).unwrap();
            new.exchange().unwrap();
            assert!(new.is_at(&new.path) && old.is_at(&new.fresh));
            new
        };
        let new = successor();
        assert!(new.withdraw() && new.withdraw());
        assert!(new.is_at(&new.fresh), "it may be needed yet");
        new.remove();
        assert!(old.is_at(&old.path));
        // One that was killed does nothing any more. It had another name.
        let mut killed = successor();
        let aside = dir.path().join("sock.4711");
        fs::rename(&killed.fresh, &aside).unwrap();
        killed.identity = (0, 0);
        drop(killed);
        old.put_back();
        old.sweep();
        assert!(old.is_at(&old.path));
        let new = successor();
        old.remove();
        assert!(!new.withdraw(), "there is nothing to put back");
        assert!(new.is_at(&new.path) && !new.fresh.exists());
        drop(new);
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test]
    fn a_socket_that_somebody_listens_on_is_left_alone() {
        let (dir, path) = place();
        let old = UpgradeSocket::bind(&path).unwrap();
        old.install().unwrap();
        let new = UpgradeSocket::bind(&path).unwrap();
        new.exchange().unwrap();
        // The predecessor's is now where one of this number would be.
        let third = UpgradeSocket::bind(&path).unwrap_err();
        assert!(third.contains("another process answers at"), "{third}");
        assert!(new.withdraw() && old.is_at(&old.path));
        assert!(new.install().unwrap_err().contains("another gateway answers at"));
        drop((old, new));
        assert_eq!(names(&dir), [""; 0]);
    }

    #[test]
    fn what_killed_processes_have_left_is_taken_away() {
        let (dir, path) = place();
        for name in ["sock", "sock.new", "sock.17", "sock.17.old", "sock.x", "other.17"] {
            drop(UnixListener::bind(dir.path().join(name)).unwrap());
        }
        fs::write(dir.path().join("sock.18"), "no socket").unwrap();
        let alive = UnixListener::bind(dir.path().join("sock.19")).unwrap();
        UpgradeSocket::bind(&path).unwrap().install().unwrap();
        assert_eq!(names(&dir), ["other.17", "sock.18", "sock.19", "sock.x"]);
        drop(alive);
    }

    #[test]
    fn one_of_many_that_start_at_once_is_asked() {
        for _ in 0..20 {
            let (_dir, path) = place();
            let start = std::sync::Barrier::new(4);
            let claim = &|i: usize| {
                let own = format!("{path}.{i}");
                let listener = UnixListener::bind(&own).unwrap();
                let identity = identity(own.as_ref()).unwrap();
                let socket = UpgradeSocket { listener, path: path.clone().into(), fresh: own.into(), identity };
                start.wait();
                let installed = socket.install().is_ok();
                start.wait();
                installed
            };
            let count = thread::scope(|scope| {
                let claims: Vec<_> = (0..4).map(|i| scope.spawn(move || claim(i))).collect();
                claims.into_iter().map(|claim| claim.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(count, 1);
        }
    }
}
