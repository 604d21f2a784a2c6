//! A word on disk that other gateways have not been told of a purge yet: it outlives a process that ends, or is killed, before the
//! store is back.
//!
//! Each process has a file of its own beside its pid file, and holds a lock on it: what nobody holds was left behind by a process that
//! is gone. What was purged is not in it; whoever finds it purges everything. It does not outlive a machine that loses its disk's
//! last seconds, nor a pid file that is said to be somewhere else from one start to the next.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;

/// Between the name of the pid file and the number of the process.
const MARK: &str = ".untold.";

/// The word of this process, and those that others have left.
#[derive(Debug, Clone, Default)]
pub struct Untold(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pid_file: OnceLock<PathBuf>,
    /// The file of this process while it is there.
    own: Mutex<Option<Flock<File>>>,
    complained: AtomicBool,
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
        self.aside(Inner::note).await.unwrap_or_default();
    }

    /// True while there is a word of this process.
    pub fn is_noted(&self) -> bool {
        self.0.own.lock().is_some()
    }

    /// Everybody has been told.
    pub async fn forget(&self) {
        self.aside(Inner::forget).await.unwrap_or_default();
    }

    /// True when a process that is gone has left its word; it is this one's from now on.
    pub async fn take_over(&self) -> bool {
        self.aside(Inner::take_over).await.unwrap_or_default()
    }

    /// Waits for a file, away from those who serve.
    async fn aside<T: Send + 'static>(&self, act: fn(&Inner, &Path) -> io::Result<T>) -> Option<T> {
        let inner = self.0.clone();
        let acted = tokio::task::spawn_blocking(move || {
            let pid_file = inner.pid_file.get()?;
            let acted = act(&inner, pid_file);
            if let Err(e) = &acted
                && !inner.complained.swap(true, Relaxed)
            {
                let place = pid_file.display();
                log::warn!(
                    "cache: purges that come while redis does not answer are lost with this process: beside {place}: {e}"
                );
            }
            acted.ok()
        });
        acted.await.ok().flatten()
    }
}

impl Inner {
    fn note(&self, pid_file: &Path) -> io::Result<()> {
        let mut own = self.own.lock();
        if own.is_none() {
            let path = beside(pid_file, &std::process::id().to_string());
            // It has its name when it is locked: nobody takes it for one that was left.
            let fresh = beside(pid_file, "new");
            let file = lock(File::create(&fresh)?)?;
            fs::rename(fresh, path)?;
            *own = Some(file);
        }
        Ok(())
    }

    fn forget(&self, pid_file: &Path) -> io::Result<()> {
        let mut own = self.own.lock();
        if own.is_some() {
            fs::remove_file(beside(pid_file, &std::process::id().to_string()))?;
            *own = None;
        }
        Ok(())
    }

    fn take_over(&self, pid_file: &Path) -> io::Result<bool> {
        let Some((folder, name)) = pid_file.parent().zip(pid_file.file_name()) else { return Ok(false) };
        let begin = [name.as_encoded_bytes(), MARK.as_bytes()].concat();
        let mut left = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(&begin)
                && let Ok(file) = File::open(entry.path())
                && let Ok(file) = lock(file)
                && entry.path().exists()
            {
                left.push((entry.path(), file));
            }
        }
        if left.is_empty() {
            return Ok(false);
        }
        // One's own comes first: there is a word at all times. It may have the name of one that is left.
        self.note(pid_file)?;
        let own = beside(pid_file, &std::process::id().to_string());
        for (path, _) in left.iter().filter(|(path, _)| *path != own) {
            fs::remove_file(path)?;
        }
        Ok(true)
    }
}

fn lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
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
        let next = begun();
        assert!(next.take_over().await && files() == 1 && !next.take_over().await);
        drop(next);
        let last = begun();
        assert!(last.take_over().await, "nobody was told by the one that found it");
        last.forget().await;
        assert!(files() == 0 && !begun().take_over().await);
        Untold::default().note().await;
    }
}
