//! What a process and its successor say once the successor serves (`answers.rs`): a letter, four bytes of the length of what
//! follows, and that.

use std::{
    fmt,
    io::{self, Read, Write},
};

use crate::{
    cache::purge::{Manner, Purge},
    runtime::{Shared, neighbours::Side, purging, words::Word},
};

/// What one says first that has accepted connections, and does not take over: what it purges follows (`answers.rs`).
pub(super) const CHANGES: &str = "tollgate-changes 1";

/// A kept answer.
pub(super) const ANSWER: u8 = b'a';
/// These were all that are in memory.
pub(super) const DONE: u8 = b'd';
/// Something was purged.
pub(super) const PURGED: u8 = b'p';
/// Some files are asked for.
pub(super) const MORE: u8 = b'm';
/// What is known of a file.
pub(super) const FILE: u8 = b'f';
/// These were some, in this folder; or, without any, there are no more.
pub(super) const SOME: u8 = b's';
/// Nothing more is said.
pub(super) const BYE: u8 = b'b';

/// Larger than any answer that is kept.
const LONGEST: u32 = 1 << 30;

pub(super) fn write(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// Reads what is said next into `bytes`; the letter.
pub(super) fn read(from: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<u8> {
    let mut head = [0; 5];
    let ended = |e: io::Error| {
        let ended = e.kind() == io::ErrorKind::UnexpectedEof;
        if ended { io::Error::new(e.kind(), "it has ended") } else { e }
    };
    from.read_exact(&mut head).map_err(ended)?;
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other("it says what cannot be"));
    }
    bytes.clear();
    from.take(length.into()).read_to_end(bytes)?;
    if bytes.len() as u64 == u64::from(length) { Ok(kind) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Says a word; false when it was the last one.
pub(super) fn say(out: &mut impl Write, word: &Word) -> io::Result<bool> {
    match word {
        Word::Purged(purge, manner) => write(out, PURGED, &purge.write(*manner)).map(|()| true),
        Word::More => write(out, MORE, &[]).map(|()| true),
        Word::Bye => Ok(false),
    }
}

/// Purges what the process on that side says that it has purged, or another one.
pub(super) fn hear(shared: &Shared, from: Option<Side>, bytes: &[u8]) {
    let (purge, manner) = Purge::read(bytes);
    purging::heard(shared, from, &purge, manner);
}

/// Purges everything, for it is not known what the process on that side has purged; not if it keeps answers in the `same_redis`: there
/// it has told of it. Says so.
pub(super) fn miss(shared: &Shared, from: Side, same_redis: bool, why: &dyn fmt::Display) {
    let which = if from == Side::Before { "process before" } else { "successor" };
    if same_redis {
        return log::debug!("upgrade: the {which} says no more of what it purges, but in redis: {why}");
    }
    log::warn!("upgrade: the {which} has not said all that it has purged: everything is purged: {why}");
    purging::heard(shared, Some(from), &Purge::All, Manner::Hard);
}
