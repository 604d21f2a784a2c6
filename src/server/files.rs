//! Files with answers on their way from a process to its successor (`answers.rs`): the successor asks for some at a time, and makes
//! links to them in its own folder. What is purged meanwhile is told between.

use std::{
    io,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::parts;
use crate::{
    cache::{disk::Spot, handed_file, key::Key},
    clock::Now,
    runtime::{Shared, cache_disk::CacheDisk},
};

/// So many at a time, or a few more.
const BATCH: usize = 256;
/// The folder of a process is there within milliseconds, if at all.
const FOLDER: Duration = Duration::from_secs(5);
/// Time between two looks whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// What is still to be handed on.
pub(super) struct Files {
    /// Found out when somebody asks.
    rest: Option<Vec<Key>>,
}

impl Files {
    /// All that there are, or none.
    pub(super) fn of(gives: bool) -> Self {
        Self { rest: if gives { None } else { Some(Vec::new()) } }
    }

    /// The next of them, and in which folder they are; without any, these were all.
    pub(super) fn give(&mut self, out: &mut impl io::Write, shared: &Shared) -> io::Result<()> {
        let disk = shared.cache_disk.load_full();
        let folder = disk.as_ref().and_then(|disk| disk.folder());
        if let Some((disk, folder)) = disk.as_ref().zip(folder) {
            let mut given = 0;
            let rest = self.rest.get_or_insert_with(|| disk.known.keys());
            while given < BATCH
                && let Some(key) = rest.pop()
            {
                // The newest last, for it is the first of those that a request may be given.
                for spot in disk.known.files(&key).iter().rev() {
                    if let Some(file) = handed_file::write(&key, spot, Now::read()) {
                        parts::write(out, parts::FILE, &file)?;
                        given += 1;
                    }
                }
            }
            if given > 0 {
                return parts::write(out, parts::SOME, folder.as_os_str().as_bytes());
            }
        }
        shared.neighbours.has_given_all();
        parts::write(out, parts::SOME, &[])
    }
}

/// Files that are taken over, in a thread of its own: making links may take its time, and what is purged must not wait for it.
pub(super) struct Taking {
    some: Vec<(Key, Spot)>,
    links: SyncSender<Batch>,
    shared: Arc<Shared>,
}

/// Files that are in this folder.
type Batch = (PathBuf, Vec<(Key, Spot)>);

/// The files of this process, and which of what is purged here came before: to be taken before somebody may purge.
pub(super) type Place = (Arc<CacheDisk>, u64);

impl Taking {
    /// Nothing when this process has no files.
    pub(super) fn begin(place: Option<Place>, shared: &Arc<Shared>) -> Option<Self> {
        let place = place?;
        let (links, some) = sync_channel(1);
        let own = shared.clone();
        thread::spawn(move || take_all(&place, some, &own));
        Some(Self { some: Vec::new(), links, shared: shared.clone() })
    }

    /// One of some.
    pub(super) fn take(&mut self, file: &[u8]) {
        self.some.extend(handed_file::read(file, &self.shared.cache.keys, Now::read(), Duration::ZERO));
    }

    /// These were some, in this folder; false when they were all.
    pub(super) fn link(&mut self, folder: &[u8]) -> bool {
        let some = std::mem::take(&mut self.some);
        let folder = PathBuf::from(std::ffi::OsStr::from_bytes(folder));
        !some.is_empty() && self.links.try_send((folder, some)).is_ok()
    }
}

fn take_all((disk, ticket): &Place, some: Receiver<Batch>, shared: &Shared) {
    let begun = Instant::now();
    while disk.folder().is_none() {
        if begun.elapsed() > FOLDER {
            return;
        }
        thread::sleep(LOOK);
    }
    shared.neighbours.ask_for_more();
    let mut taken = 0;
    for (folder, files) in some {
        for (key, spot) in files {
            match disk.take_over(&folder, &key, spot, *ticket) {
                Ok(has_place) => taken += usize::from(has_place),
                // It is gone by now.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    log::warn!("upgrade: no more files come from the process before, after {taken}: {e}");
                    return;
                }
            }
        }
        shared.neighbours.ask_for_more();
    }
    if taken > 0 {
        log::info!("upgrade: {taken} files with answers come from the process before");
    }
}
