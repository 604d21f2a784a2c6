//! A word on disk that other gateways have not been told of a purge yet: it outlives a process that ends, or is killed, before the
//! store is back.
//!
//! Each process has a file of its own beside its pid file, and holds a lock on it: what nobody holds was left behind by a process that
//! is gone. Whoever finds one holds it from then on, and purges everything: what was purged is not in it. It does not outlive a machine
//! that loses its disk's last seconds, nor a pid file that is said to be somewhere else from one start to the next.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use parking_lot::Mutex;

use crate::store::Complaints;

/// Between the name of the pid file and the number of the process.
const MARK: &str = ".untold.";

/// At the end of the name of a file that is being made.
const UNFINISHED: &str = ".new";

/// The word of this process, and those that others have left.
#[derive(Debug, Clone, Default)]
pub struct Untold(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pid_file: OnceLock<PathBuf>,
    /// The files of this process while they are there: one that it has made, and those that it has found.
    own: Mutex<Vec<(PathBuf, Flock<File>)>>,
    /// There are some: for those who do not wait for files.
    is_there: AtomicBool,
    /// Some were found, and nobody has been told so yet.
    found: AtomicBool,
    /// How often there was something new that nobody has been told of.
    noted: AtomicU64,
    complaints: Complaints,
}

impl Untold {
    /// From now on the word is kept beside this file; before that, and without one, nowhere.
    pub fn keep_beside(&self, pid_file: &str) {
        if !pid_file.is_empty() {
            let _ = self.0.pid_file.set(pid_file.into());
        }
    }

    /// Says that there is something that nobody has been told of.
    pub async fn note(&self) {
        self.0.noted.fetch_add(1, SeqCst);
        self.aside("purges that come while redis does not answer are lost with this process", Inner::note).await;
    }

    /// How often that was said.
    pub fn noted(&self) -> u64 {
        self.0.noted.load(SeqCst)
    }

    /// True while there is a word of this process.
    pub fn is_noted(&self) -> bool {
        self.0.is_there.load(SeqCst)
    }

    /// Everybody has been told of all that was said the first `noted` times; what was said since stays.
    pub async fn forget(&self, noted: u64) {
        let forget = move |inner: &Inner, _: &Path| inner.forget(noted);
        self.aside(
            "that everybody has been told of all purges is not written down, and the next process purges all",
            forget,
        )
        .await;
    }

    /// True when a process that is gone has left its word; it is this one's from now on.
    pub async fn take_over(&self) -> bool {
        self.aside(
            "whether a process that is gone has left purges that nobody was told of is not known",
            Inner::take_over,
        )
        .await;
        self.0.found.swap(false, SeqCst)
    }

    /// Waits for files, away from those who serve; when that fails, it says `so`, and why.
    async fn aside(&self, so: &'static str, act: impl FnOnce(&Inner, &Path) -> io::Result<()> + Send + 'static) {
        let inner = self.0.clone();
        let acted = tokio::task::spawn_blocking(move || {
            let Some(pid_file) = inner.pid_file.get() else { return };
            if let Err(e) = act(&inner, pid_file)
                && inner.complaints.due()
            {
                log::warn!("cache: {so}: beside {}: {e}", pid_file.display());
            }
        });
        // It does not panic; and while the process ends, nobody waits.
        let _ = acted.await;
    }
}

impl Inner {
    fn note(&self, pid_file: &Path) -> io::Result<()> {
        let mut own = self.own.lock();
        // Somebody may have deleted them.
        own.retain(|(path, _)| path.exists());
        if own.is_empty() {
            // What has the same name was left by a process with the same number, as in a container, and is not found yet.
            let id = std::process::id();
            let mut path = beside(pid_file, &id.to_string());
            for n in 1.. {
                if !path.exists() {
                    break;
                }
                path = beside(pid_file, &format!("{id}.{n}"));
            }
            // It has its name when it is locked: nobody takes it for one that was left.
            let fresh = beside(pid_file, &format!("{id}{UNFINISHED}"));
            let file = lock(File::create(&fresh)?)?;
            fs::rename(fresh, &path)?;
            own.push((path, file));
            self.is_there.store(true, SeqCst);
        }
        Ok(())
    }

    fn forget(&self, noted: u64) -> io::Result<()> {
        let mut own = self.own.lock();
        if self.noted.load(SeqCst) != noted {
            return Ok(());
        }
        let mut failed = Ok(());
        own.retain(|(path, _)| match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                failed = Err(e);
                true
            }
            _ => false,
        });
        self.is_there.store(!own.is_empty(), SeqCst);
        failed
    }

    fn take_over(&self, pid_file: &Path) -> io::Result<()> {
        let Some((folder, name)) = pid_file.parent().zip(pid_file.file_name()) else { return Ok(()) };
        let begin = [name.as_encoded_bytes(), MARK.as_bytes()].concat();
        let mut failed = Ok(());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if !name.starts_with(&begin) || name.ends_with(UNFINISHED.as_bytes()) || !entry.path().is_file() {
                continue;
            }
            match left(&entry.path()) {
                Ok(Some(file)) => {
                    self.own.lock().push((entry.path(), file));
                    self.is_there.store(true, SeqCst);
                    self.noted.fetch_add(1, SeqCst);
                    self.found.store(true, SeqCst);
                }
                Ok(None) => {}
                Err(e) => failed = Err(e),
            }
        }
        failed
    }
}

/// The file, if nobody holds it and it is there still.
fn left(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match lock(file) {
        Err(Errno::EWOULDBLOCK) => Ok(None),
        file => Ok(Some(file?).filter(|_| path.exists())),
    }
}

fn lock(file: File) -> Result<Flock<File>, Errno> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)
}

fn beside(pid_file: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(pid_file);
    name.push(format!("{MARK}{end}"));
    name.into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn what_a_process_leaves_is_found_once_and_what_one_holds_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let text = pid_file.display().to_string();
        let begun = || {
            let untold = Untold::default();
            untold.keep_beside(&text);
            untold
        };
        let files = || fs::read_dir(folder.path()).unwrap().count();
        let one = begun();
        assert!(!one.take_over().await && files() == 0);
        one.note().await;
        one.note().await;
        assert!(files() == 1 && !one.take_over().await && !begun().take_over().await, "it is there, and tells itself");
        // It is killed; the one that finds its word may have its number, as in a container.
        drop(one);
        fs::write(beside(&pid_file, "1"), "").unwrap();
        fs::create_dir(beside(&pid_file, "2")).unwrap();
        let next = begun();
        assert!(next.take_over().await && !next.take_over().await && !begun().take_over().await);
        next.note().await;
        assert_eq!(files(), 3, "it needs no other one");
        drop(next);
        let last = begun();
        assert!(last.take_over().await, "nobody was told by the one that found it");
        last.forget(last.noted()).await;
        assert!(files() == 1 && !last.is_noted() && !begun().take_over().await);
        Untold::default().note().await;
    }

    #[tokio::test]
    async fn what_is_said_meanwhile_is_not_forgotten_and_what_was_deleted_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let untold = Untold::default();
        untold.keep_beside(&folder.path().join("pid").display().to_string());
        let files = || fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        let before = untold.noted();
        untold.note().await;
        untold.forget(before).await;
        assert_eq!(files().len(), 1);
        fs::remove_file(&files()[0]).unwrap();
        untold.note().await;
        assert_eq!(files().len(), 1);
        for _ in 0..2 {
            fs::remove_file(&files()[0]).unwrap();
            untold.forget(untold.noted()).await;
            assert!(files().is_empty() && !untold.is_noted());
            untold.note().await;
            assert_eq!(files().len(), 1);
        }
        // One with the same name that was left before it could be found.
        let next = Untold::default();
        next.keep_beside(&folder.path().join("pid").display().to_string());
        drop(untold);
        next.note().await;
        assert!(files().len() == 2 && next.take_over().await);
        next.forget(next.noted()).await;
        assert!(files().is_empty());
    }
}
