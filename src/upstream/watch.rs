//! A file of backends that is looked at again and again. Whoever writes it may be in the middle of it: what is read counts
//! only when the file has been left alone for a while, and was the same before and after reading.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::units::read_text;

/// Time between two looks at the file.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// So long a file must be left alone before it is read.
const SETTLED: Duration = Duration::from_millis(500);

/// So long when its last line has no end: there may be more of it to come.
const UNFINISHED: Duration = Duration::from_secs(2);

/// Reads a file that may be being written, at start: waits for it to settle, as later looks do.
pub(crate) fn read_settled(path: &Path) -> io::Result<String> {
    let deadline = Instant::now() + 2 * UNFINISHED;
    let mut seen = None;
    loop {
        let text = read_text(path)?;
        let modified = fs::metadata(path)?.modified()?;
        let since = match seen {
            Some((same, since)) if same == modified => since,
            _ => Instant::now(),
        };
        seen = Some((modified, since));
        // A time that is still to come (another machine's clock) says nothing: then it counts how long we have seen it.
        let age = modified.elapsed().unwrap_or_else(|_| since.elapsed());
        let wanted = if text.is_empty() || !text.ends_with('\n') { UNFINISHED } else { SETTLED };
        let left = wanted.saturating_sub(age);
        if left.is_zero() || Instant::now() > deadline {
            return Ok(text);
        }
        std::thread::sleep(left);
    }
}

/// What shows that a file has been written, or put in the place of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

/// A file, and what is known of it.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    /// As it was seen last, and since when it has been so.
    seen: Option<(Option<Stamp>, Instant)>,
    /// As it was when it was read.
    taken: Option<Stamp>,
    /// That what is there now cannot be read has been said.
    said: bool,
}

impl Watched {
    /// A file that has not been looked at.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: None, taken: None, said: false }
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = fs::metadata(&self.path).ok()?;
        Some(Stamp { modified: (meta.mtime(), meta.mtime_nsec()), length: meta.len(), inode: meta.ino() })
    }

    /// Its text, when it has changed and settled since it was read last; or why it cannot be read.
    pub(crate) fn changed(&mut self, now: Instant) -> Option<Result<String, String>> {
        let stamp = self.stamp();
        let since = match self.seen {
            Some((seen, since)) if seen == stamp => since,
            _ => {
                self.seen = Some((stamp, now));
                self.said = false;
                now
            }
        };
        let quiet = now.saturating_duration_since(since);
        if stamp == self.taken || quiet < SETTLED {
            return None;
        }
        let text = read_text(&self.path);
        let finished = text.as_ref().map_or(true, |text| text.is_empty() || text.ends_with('\n'));
        // Written while it was read: the next look sees it change.
        if self.stamp() != stamp || !finished && quiet < UNFINISHED {
            return None;
        }
        match text {
            Ok(text) => {
                self.taken = stamp;
                Some(Ok(text))
            }
            // It is tried again at each look, for it may have been want of descriptors, but said once.
            Err(_) if self.said => None,
            Err(e) => {
                self.said = true;
                Some(Err(format!("cannot read '{}': {e}", self.path.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_file_counts_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let mut file = Watched::new(&path);
        let start = Instant::now();
        let mut at = |millis| file.changed(start + Duration::from_millis(millis)).map(Result::unwrap);
        fs::write(&path, "one\n").unwrap();
        assert_eq!(at(0), None);
        assert_eq!(at(250), None);
        assert_eq!(at(500).as_deref(), Some("one\n"));
        assert_eq!(at(5000), None, "nothing has changed");
        fs::write(&path, "one\ntw").unwrap();
        assert_eq!(at(5250), None);
        assert_eq!(at(6250), None, "its last line may go on");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(at(6500), None);
        assert_eq!(at(7000).as_deref(), Some("one\ntwo\n"));
        fs::write(&path, "three").unwrap();
        assert_eq!(at(7250), None);
        assert_eq!(at(9250).as_deref(), Some("three"), "it was complete after all");
        fs::write(dir.path().join("new"), "other").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(at(9500), None);
        assert_eq!(at(11_500).as_deref(), Some("other"));
    }

    #[test]
    fn a_file_that_is_gone_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(&path, "one\n").unwrap();
        let mut file = Watched::new(&path);
        let start = Instant::now();
        let mut at = |millis| file.changed(start + Duration::from_millis(millis)).map(|text| text.is_ok());
        assert_eq!((at(0), at(500)), (None, Some(true)));
        fs::remove_file(&path).unwrap();
        assert_eq!((at(750), at(1250), at(1500), at(9000)), (None, Some(false), None, None));
        fs::write(&path, "one\n").unwrap();
        assert_eq!((at(9250), at(9750)), (None, Some(true)));
    }
}
