//! The folder in which a process keeps answers as files. It belongs to this process alone, which holds a lock in it: what nobody
//! holds was left behind by a process that is gone, and is removed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use nix::fcntl::{Flock, FlockArg, OFlag};

/// How the folders of all processes begin.
const NAME: &str = "tollgate-cache-";
/// The file in it that is locked.
const LOCK: &str = "lock";
/// Files are spread over so many folders.
const FOLDERS: u64 = 256;

/// The folder of this process; it goes when nobody has it any more.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
    next: AtomicU64,
}

impl Folder {
    /// Makes a folder in this directory.
    pub(super) fn make(directory: &Path) -> io::Result<Self> {
        let name = format!("{NAME}{}-{:016x}", std::process::id(), fastrand::u64(..));
        // It has its name when it is locked: nobody takes it for one that was left.
        let fresh = directory.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let lock = lock(File::create(fresh.join(LOCK))?)?;
        for number in 0..FOLDERS {
            fs::create_dir(fresh.join(number.to_string()))?;
        }
        let path = directory.join(name);
        fs::rename(&fresh, &path)?;
        Ok(Self { path, _lock: lock, next: AtomicU64::new(0) })
    }

    /// Writes a file; gives back its number.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<u64> {
        let number = self.next.fetch_add(1, Relaxed);
        let path = self.file(number);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match create() {
            // Somebody has cleared the directory.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(&path))?;
                create()?
            }
            created => created?,
        };
        if let Err(e) = file.write_all(bytes) {
            // A full disk has a part of it.
            let _ = fs::remove_file(&path);
            return Err(e);
        }
        Ok(number)
    }

    /// Reads a file of so many bytes; one that has become longer is cut off behind the first byte too many.
    pub(super) fn read(&self, number: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0).saturating_add(1));
        File::open(self.file(number))?.take(bytes.saturating_add(1)).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Removes files, as far as they are there.
    pub(super) fn remove(&self, numbers: &[u64]) {
        for number in numbers {
            let _ = fs::remove_file(self.file(*number));
        }
    }

    /// Removes all of it. What somebody writes meanwhile may stay, until the next process finds it.
    pub(super) fn clear(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join((number % FOLDERS).to_string()).join(number.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It may have many files, and whoever had it last may be serving.
        let path = std::mem::take(&mut self.path);
        std::thread::spawn(move || fs::remove_dir_all(path));
    }
}

/// Removes the folders in this directory that processes have left behind, as far as it may.
pub(super) fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(NAME.as_bytes())
            // Whatever somebody else has put there must not be waited for.
            && let Ok(file) = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(entry.path().join(LOCK))
            && let Ok(_lock) = lock(file)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read_until_it_is_removed_and_what_is_left_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::make(directory.path()).unwrap();
        let number = folder.write(b"answer").unwrap();
        assert_eq!(folder.read(number, 6).unwrap(), b"answer");
        fs::write(folder.file(number), "answers and more").unwrap();
        assert_eq!(folder.read(number, 6).unwrap(), b"answers", "one byte too many tells that it is another one");
        fs::remove_dir_all(&folder.path).unwrap();
        let number = folder.write(b"again").unwrap();
        assert_eq!(folder.read(number, 5).unwrap(), b"again", "somebody had cleared the directory");
        folder.remove(&[number, 77]);
        assert_eq!(folder.read(number, 6).unwrap_err().kind(), io::ErrorKind::NotFound);
        // As a process leaves it that was killed.
        let left = directory.path().join(format!("{NAME}1-2"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let pipe = directory.path().join(format!("{NAME}3-4"));
        fs::create_dir(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe.join(LOCK), nix::sys::stat::Mode::S_IRWXU).unwrap();
        sweep(directory.path());
        assert!(!left.exists() && folder.path.exists());
        assert!(Folder::make(&left).is_err());
    }
}
