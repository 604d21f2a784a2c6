//! What a process that ends leaves of its files to the one that is started in its place: its folder, with a list of what is in it.
//! (One that takes over while the other serves is told: `server/files.rs`.)
//!
//! The list is a number of parts: the length, sixteen bytes of a SHA-256, and the part. The first says who has left it, with a number
//! (`heir.rs`); all others are files (`cache/handed_file.rs`). One that was cut off, or altered, ends there.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    disk_answer,
    disk_files::{self, Folder},
};
use crate::{
    cache::{disk::Disk, handed_file, handed_on::FORM, key::Keys, memory::Memory},
    clock::Now,
    units::Sha256,
};

/// What is in memory is written for so long.
const WRITING: Duration = Duration::from_secs(1);
/// What another gateway has left may be removed after this long: it does not come again.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// More than any part.
const LONGEST: u32 = 64 << 10;
const SUM: usize = 16;

/// Who leaves files, and takes over those that were left with the same mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Equal where answers are made by the same settings.
    pub settings: u64,
    /// Equal for the processes of one gateway.
    pub gateway: PathBuf,
    /// That of what may be taken over.
    pub number: Option<u64>,
}

impl Mark {
    /// What the list of this gateway begins with.
    fn gateway(&self) -> Vec<u8> {
        [self.gateway.as_os_str().as_encoded_bytes(), b"\n"].concat()
    }

    fn settings(&self) -> String {
        format!("{FORM} {:016x}\n", self.settings)
    }
}

/// Leaves the folder under this number, with what memory has, as far as there is room for it.
pub(super) fn leave(folder: &Folder, known: &Disk, memory: &Memory, mark: &Mark, number: u64) -> io::Result<()> {
    let (written, result) = write_memory(folder, known, memory);
    if let Err(e) = result {
        log::warn!("cache: not all that is in memory is left to the next process: {e}");
    }
    write_list(folder, known, mark, number).or_else(|_| {
        // There is no room for it: what it says of these files is found to be wrong.
        folder.remove(&written);
        write_list(folder, known, mark, number)
    })
}

fn write_list(folder: &Folder, known: &Disk, mark: &Mark, number: u64) -> io::Result<()> {
    folder.leave(|list| {
        let (now, written) = (Now::read(), Now::calendar().as_millis());
        let last = format!("{number:016x} {written}");
        put(list, &[&mark.gateway()[..], mark.settings().as_bytes(), last.as_bytes()].concat())?;
        for key in known.keys() {
            for spot in known.files(&key).iter().rev() {
                if let Some(file) = handed_file::write(&key, spot, now) {
                    put(list, &file)?;
                }
            }
        }
        Ok(())
    })
}

/// Writes what memory has for `WRITING` at most; the numbers of the files, and what went wrong.
fn write_memory(folder: &Folder, known: &Disk, memory: &Memory) -> (Vec<u64>, io::Result<()>) {
    let (begun, mut written, mut result) = (Instant::now(), Vec::new(), Ok(()));
    for key in memory.keys().into_iter().filter(|key| !key.is_one_clients()) {
        let Some(variants) = memory.get(&key) else { continue };
        for entry in variants.entries().iter().rev() {
            let (now, ticket) = (Now::read(), known.ticket());
            if known.has(&key, &entry.selection) || !disk_answer::is_worth_it(&key, entry, now) {
                continue;
            }
            match disk_answer::write(folder, &key, entry, now) {
                Ok(Some(file)) => {
                    written.push(file.0);
                    known.add(&key, disk_answer::spot(entry, file), ticket);
                }
                Ok(None) => {}
                Err(e) => result = Err(e),
            }
        }
        if begun.elapsed() > WRITING {
            break;
        }
    }
    (written, result)
}

/// Takes over the files in a folder that nobody holds, if they were left to this process; true when it is not to be removed.
pub(super) fn look(left: &Path, own: Option<&Folder>, known: &Disk, keys: &Keys, mark: Option<&Mark>) -> bool {
    let Some((mut list, since)) = disk_files::list(left) else { return false };
    let Some(said) = take(&mut list) else { return false };
    let Some(rest) = mark.and_then(|mark| said.strip_prefix(&mark.gateway()[..])) else { return since < FORGOTTEN };
    let Some(own) = own else { return true };
    let same = mark.and_then(|mark| rest.strip_prefix(mark.settings().as_bytes()));
    let numbers = same.and_then(|rest| std::str::from_utf8(rest).ok()?.split_once(' '));
    let is_ours = |number: &str| u64::from_str_radix(number, 16).ok() == mark.and_then(|mark| mark.number);
    let written = numbers.filter(|(number, _)| is_ours(number)).and_then(|(_, written)| written.parse().ok());
    let Some(ago) = written.and_then(|written| Now::calendar().checked_sub(Duration::from_millis(written))) else {
        return false;
    };
    let (now, mut taken) = (Now::read(), 0);
    while let Some(part) = take(&mut list) {
        let Some((key, spot)) = handed_file::read(&part, keys, now, ago) else { continue };
        if own.link(left, spot.number).is_ok() {
            // What was purged since this process began does not come back.
            taken += usize::from(known.add(&key, spot, 0));
        }
    }
    log::info!("cache: {taken} answers on disk come from the process before");
    false
}

fn put(out: &mut impl Write, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).ok().filter(|length| *length <= LONGEST);
    // It has no place in a list, and is not found again.
    let Some(length) = length else { return Ok(()) };
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&sum(part))?;
    out.write_all(part)
}

fn take(from: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut said) = ([0; 4], [0; SUM]);
    from.read_exact(&mut length).ok()?;
    from.read_exact(&mut said).ok()?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return None;
    }
    let mut part = vec![0; usize::try_from(length).ok()?];
    from.read_exact(&mut part).ok()?;
    (sum(&part) == said).then_some(part)
}

fn sum(part: &[u8]) -> [u8; SUM] {
    let mut digest = Sha256::new();
    digest.update(part);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&digest.finish()[..SUM]);
    sum
}
