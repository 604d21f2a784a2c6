//! An answer as a file of its own.

use std::{io, time::Duration};

use http::HeaderMap;

use super::disk_files::Folder;
use crate::{
    cache::{
        disk::Spot,
        entry::Entry,
        held::Held,
        key::Key,
        stored_form::{self, Stored},
    },
    clock::Now,
};

/// What is known of a file takes at most so many bytes of memory; what would take more, with its URL, tags and what `Vary` names, is not
/// written.
const HEAVIEST: usize = 2048;
/// What would be given for less than this is not written.
const LEAST_USE: Duration = Duration::from_secs(1);

/// True when it is worth a file.
pub(super) fn is_worth_it(key: &Key, entry: &Entry, now: Now) -> bool {
    Spot::weight(key, &entry.selection, &entry.tags) <= HEAVIEST && stored_form::useful_for(entry, now) >= LEAST_USE
}

/// What a file is about: whoever puts another one in its place, be it an older one of the same answer, does not get it read.
fn about<'a>(key: &'a Key, variant: &'a str, number: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [key.bytes(), variant.as_bytes(), number]
}

/// Writes an answer; its number and its length. Nothing is written of one that nobody would be given.
pub(super) fn write(folder: &Folder, key: &Key, entry: &Entry, now: Now) -> io::Result<Option<(u64, u64)>> {
    let variant = entry.selection.name();
    let number = folder.number();
    let Some(bytes) = stored_form::write(entry, now, &about(key, &variant, &number.to_le_bytes())) else {
        return Ok(None);
    };
    folder.write(number, &bytes)?;
    Ok(Some((number, bytes.len() as u64)))
}

/// Reads the answer in this place; nothing when the file is not as it was written.
pub(super) fn read(
    folder: &Folder,
    key: &Key,
    spot: &Spot,
    request: &HeaderMap,
    now: Now,
    held: &Held,
) -> io::Result<Option<Entry>> {
    let bytes = folder.read(spot.number, spot.bytes)?;
    if bytes.len() as u64 != spot.bytes {
        return Ok(None);
    }
    let variant = spot.selection.name();
    let number = spot.number.to_le_bytes();
    let stored = Stored { bytes: &bytes, about: &about(key, &variant, &number), kept: Duration::ZERO };
    let entry = stored_form::read(&stored, request, now, held).filter(|entry| entry.selection == spot.selection);
    Ok(entry.map(|entry| entry.as_it_came(spot.stored, spot.initial_age)))
}

/// What is known of a file with this answer.
pub(super) fn spot(entry: &Entry, (number, bytes): (u64, u64)) -> Spot {
    let (selection, tags) = (entry.selection.clone(), entry.tags.clone());
    Spot { number, bytes, stored: entry.stored, initial_age: entry.terms.initial_age, selection, tags }
}
