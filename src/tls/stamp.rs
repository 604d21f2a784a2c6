//! What tells that a file is another one than before.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::units::FileRef;

/// Which file it is, its length, when it was written, and when its mode or name changed last; nothing when there is
/// none.
pub(crate) type Stamp = Option<[i64; 6]>;

/// The stamp of a file. A link that is turned to another file counts too.
pub(crate) fn stamp(file: &FileRef) -> Stamp {
    let meta = fs::metadata(file.path().ok()?).ok()?;
    let (file, length) = (meta.ino().cast_signed(), meta.size().cast_signed());
    Some([file, length, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
}

/// Files that are read again when they have changed. What cannot be read is tried again at every look, for it may have been
/// want of descriptors; that is said once.
#[derive(Debug)]
pub(crate) struct Reread<S> {
    /// As they were when they were read.
    read: S,
    /// As they were when they could not be read, which has been said.
    failed: Option<S>,
}

impl<S: PartialEq> Reread<S> {
    /// They have been read like this.
    pub(crate) fn new(read: S) -> Self {
        Self { read, failed: None }
    }

    /// True when they are not as they were when they were read.
    pub(crate) fn have_changed(&self, found: &S) -> bool {
        self.read != *found
    }

    /// They could not be read: to be said, if it has not been.
    pub(crate) fn failed(&mut self, found: S, message: &str) {
        if self.failed.as_ref() == Some(&found) {
            return log::debug!("{message}");
        }
        log::error!("{message}");
        self.failed = Some(found);
    }
}
