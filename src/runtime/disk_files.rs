//! The folder in which a process keeps answers as files. It belongs to this process alone, which holds a lock in it: what nobody
//! holds was left behind by a process that is gone, and is removed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg, OFlag};
use parking_lot::Mutex;

/// How the folders of all processes begin.
const NAME: &str = "tollgate-cache-";
/// What is in it, when its process has left it to the next one.
const LIST: &str = "list";
/// The file in it that is locked.
const LOCK: &str = "lock";
/// Files are spread over so many folders.
const FOLDERS: u64 = 256;
/// So much of a file is read before memory is taken for all of it.
const FIRST: usize = 4096;
/// A folder that is not finished after this long never will be: it takes milliseconds.
const MAKING: Duration = Duration::from_secs(60);
/// A folder without a lock for this long is nobody's: its process looks for the lock every minute.
const FORGOTTEN: Duration = Duration::from_secs(180);

/// The folder of this process; it goes when nobody has it any more.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// It stays when this process ends.
    left: AtomicBool,
    lock: Mutex<Flock<File>>,
    next: AtomicU64,
}

impl Folder {
    /// Makes a folder in this directory.
    pub(super) fn make(directory: &Path) -> io::Result<Self> {
        let name = format!("{NAME}{}-{:016x}", std::process::id(), fastrand::u64(..));
        // It has its name when it is locked: nobody takes it for one that was left.
        let fresh = directory.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let lock = Mutex::new(lock(File::create(fresh.join(LOCK))?)?);
        for number in 0..FOLDERS {
            fs::create_dir(fresh.join(number.to_string()))?;
        }
        let path = directory.join(name);
        fs::rename(&fresh, &path)?;
        // Files of one process keep their numbers in the folder of another: none is to be in the way.
        Ok(Self { path, left: AtomicBool::new(false), lock, next: AtomicU64::new(fastrand::u64(..u64::MAX >> 1)) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes over the file with this number in the folder of another process, which keeps it.
    pub(super) fn link(&self, from: &Path, number: u64) -> io::Result<()> {
        fs::hard_link(file(from, number), self.file(number))
    }

    /// The number of the next file.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Writes the file with this number.
    pub(super) fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(number);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match create() {
            // Somebody has cleared the directory.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(&path))?;
                self.keep_lock()?;
                create()?
            }
            created => created?,
        };
        if let Err(e) = file.write_all(bytes) {
            // A full disk has a part of it.
            let _ = fs::remove_file(&path);
            return Err(e);
        }
        Ok(())
    }

    /// Reads a file of so many bytes; one that has become longer is cut off behind the first byte too many. Its memory is taken when
    /// the first bytes have come: a disk that hangs holds none.
    pub(super) fn read(&self, number: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(number))?.take(bytes.saturating_add(1));
        let mut first = [0; FIRST];
        let read = file.read(&mut first)?;
        let mut out = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0).saturating_add(1));
        out.extend_from_slice(&first[..read]);
        file.read_to_end(&mut out)?;
        Ok(out)
    }

    /// Makes its lock again if somebody has removed it: without one, whoever comes later takes the folder for a forgotten one.
    pub(super) fn keep_lock(&self) -> io::Result<()> {
        let path = self.path.join(LOCK);
        let mut held = self.lock.lock();
        let is_there = fs::metadata(&path).is_ok_and(|there| {
            held.metadata().is_ok_and(|held| (there.dev(), there.ino()) == (held.dev(), held.ino()))
        });
        if !is_there && self.path.exists() {
            *held = lock(File::create(path)?)?;
        }
        Ok(())
    }

    /// Removes files, as far as they are there.
    pub(super) fn remove(&self, numbers: &[u64]) {
        for number in numbers {
            let _ = fs::remove_file(self.file(*number));
        }
    }

    /// Leaves it to the next process, with a list of what is in it.
    pub(super) fn leave(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
        let unfinished = self.path.join(format!(".{LIST}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut list = BufWriter::new(options.open(&unfinished)?);
        write(&mut list)?;
        list.flush()?;
        fs::rename(unfinished, self.path.join(LIST))?;
        self.left.store(true, Relaxed);
        Ok(())
    }

    /// Removes all of it. What somebody writes meanwhile may stay, until the next process finds it.
    pub(super) fn clear(&self) {
        clear(&self.path);
    }

    fn file(&self, number: u64) -> PathBuf {
        file(&self.path, number)
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join((number % FOLDERS).to_string()).join(number.to_string())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.left.load(Relaxed) {
            return;
        }
        // It may have many files, and whoever had it last may be serving.
        let path = std::mem::take(&mut self.path);
        std::thread::spawn(move || clear(&path));
    }
}

/// Removes a folder; its lock goes last, so that what is cut off is found again.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.file_name() != LOCK) {
        // A folder, but for what somebody else has put there.
        let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
    }
    let _ = fs::remove_file(folder.join(LOCK));
    let _ = fs::remove_dir(folder);
}

/// What a process has left in this folder, and since when; nothing when it has not.
pub(super) fn list(folder: &Path) -> Option<(BufReader<File>, Duration)> {
    let list = open(&folder.join(LIST)).ok()?;
    let found = list.metadata().ok().filter(fs::Metadata::is_file)?;
    let since = found.modified().ok()?.elapsed().unwrap_or_default();
    Some((BufReader::new(list), since))
}

/// Removes the folders in this directory that processes have left behind, as far as it may, and unless one is `kept`.
pub(super) fn sweep(directory: &Path, kept: impl Fn(&Path) -> bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.as_encoded_bytes();
        let unfinished = name.strip_prefix(b".").is_some_and(|name| name.starts_with(NAME.as_bytes()));
        let is_one = unfinished && is_unchanged_for(&path, MAKING) || name.starts_with(NAME.as_bytes());
        if !is_one || !is_own(&path) {
            continue;
        }
        match open(&path.join(LOCK)).map(lock) {
            Ok(Ok(_lock)) if kept(&path) => {}
            Ok(Ok(_lock)) => clear(&path),
            // Somebody has removed it. Whoever has the folder still makes it again.
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_unchanged_for(&path, FORGOTTEN) => clear(&path),
            // Or its removal was cut off at the very end.
            Err(e) if e.kind() == io::ErrorKind::NotFound => drop(fs::remove_dir(&path)),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Whatever somebody else has put there must not be waited for, nor followed.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits()).open(path)
}

/// True for a folder that belongs to whom this process runs as, and for no link to one.
fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw())
}

/// True when nothing has come or gone in a folder for so long.
fn is_unchanged_for(path: &Path, least: Duration) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|since| since >= least))
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
        let write = |bytes: &[u8]| {
            let number = folder.number();
            folder.write(number, bytes).map(|()| number).unwrap()
        };
        let number = write(b"answer");
        assert_eq!(folder.read(number, 6).unwrap(), b"answer");
        fs::write(folder.file(number), "answers and more").unwrap();
        assert_eq!(folder.read(number, 6).unwrap(), b"answers", "one byte too many tells that it is another one");
        fs::remove_dir_all(&folder.path).unwrap();
        let number = write(b"again");
        assert_eq!(folder.read(number, 5).unwrap(), b"again", "somebody had cleared the directory");
        assert!(lock(File::open(folder.path.join(LOCK)).unwrap()).is_err(), "it is its own again");
        fs::remove_file(folder.path.join(LOCK)).unwrap();
        folder.keep_lock().unwrap();
        folder.keep_lock().unwrap();
        assert!(lock(File::open(folder.path.join(LOCK)).unwrap()).is_err());
        folder.remove(&[number, 77]);
        assert_eq!(folder.read(number, 6).unwrap_err().kind(), io::ErrorKind::NotFound);
        // As a process leaves it that was killed.
        let left = directory.path().join(format!("{NAME}1-2"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let pipe = directory.path().join(format!("{NAME}3-4"));
        fs::create_dir(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe.join(LOCK), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // As a process leaves it that was killed while it made or removed one.
        let names = [format!(".{NAME}5-6"), format!(".{NAME}7-8"), format!("{NAME}9-0")];
        let [made, being_made, removed] = names.map(|name| directory.path().join(name));
        for path in [&made, &being_made, &removed] {
            fs::create_dir(path).unwrap();
        }
        fs::create_dir(made.join("7")).unwrap();
        fs::write(made.join(LOCK), "").unwrap();
        // As somebody leaves it who removes old files, and the process that had it was killed.
        let forgotten = directory.path().join(format!("{NAME}11-12"));
        let new = directory.path().join(format!("{NAME}13-14"));
        for path in [&forgotten, &new] {
            fs::create_dir_all(path.join("0")).unwrap();
        }
        let long_ago = std::time::SystemTime::now() - FORGOTTEN - MAKING;
        for path in [&made, &forgotten] {
            File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        // A link leads elsewhere.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(LOCK), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), directory.path().join(format!("{NAME}15-16"))).unwrap();
        sweep(directory.path(), |_| false);
        assert!(!left.exists() && !made.exists() && !removed.exists());
        assert!(folder.path.exists() && being_made.exists());
        assert!(!forgotten.exists() && new.exists() && elsewhere.path().join(LOCK).exists());
        // A removal that is cut off leaves the lock: here by what cannot be removed, as it is a folder in the place of the lock.
        fs::create_dir(&left).unwrap();
        fs::create_dir_all(left.join("0").join("1")).unwrap();
        fs::create_dir(left.join(LOCK)).unwrap();
        clear(&left);
        assert!(!left.join("0").exists() && left.join(LOCK).exists());
        assert!(Folder::make(&directory.path().join("none")).is_err());
    }
}
