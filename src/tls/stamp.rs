//! What tells that a file is another one than before.

use std::{fs, os::unix::fs::MetadataExt as _};

/// Which file it is, its length, when it was written, and when its mode or name changed last; nothing when there is
/// none.
pub(crate) type Stamp = Option<[i64; 6]>;

/// The stamp of what is at `path`. A link that is turned to another file counts too.
pub(crate) fn stamp(path: &str) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    let (file, length) = (meta.ino().cast_signed(), meta.size().cast_signed());
    Some([file, length, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
}
