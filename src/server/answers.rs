//! Kept answers on their way from a process to its successor, over the connection of their hand-over (`handover.rs`), once the
//! successor has taken over. Whatever goes wrong costs answers that are fetched again, and nothing else.
//!
//! ```text
//! successor                              process before
//! answers FORM SETTINGS\n          ->
//!                                  <-    a LENGTH ANSWER          for each, if both say the same (`cache/handed_on.rs`)
//!                                  <-    d                        these were all
//!                                  <-    p LENGTH PURGE           at any time: this was purged there
//!                                  <-    b                        it ends, and has told of all purges
//! ```
//!
//! A letter, and four bytes of the length of what follows. When the connection ends without a farewell, purges may have been missed:
//! then everything is purged. Gateways that keep answers in Redis hand none on: they hear of one another's purges by themselves,
//! but not at the same moment.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use super::line::{PROMPT, line};
use crate::{
    cache::{
        handed_on,
        memory::Ticket,
        purge::{Manner, Purge},
    },
    clock::Now,
    runtime::{Live, Shared, purging, successor::Word},
};

/// Begins the line of a successor that would have answers.
const ANSWERS: &str = "answers ";
/// The settings of one that would have none.
const NONE: &str = "none";
/// Another build may mean something else by the same bytes.
const FORM: &str = concat!("1 ", env!("CARGO_PKG_VERSION"), " (", env!("TOLLGATE_BUILD"), ")");

const ANSWER: u8 = b'a';
const DONE: u8 = b'd';
const PURGED: u8 = b'p';
const BYE: u8 = b'b';

/// The longest that a successor may take nothing.
const STALL: Duration = Duration::from_secs(10);
/// Larger than any answer that is kept.
const LONGEST: u32 = 1 << 30;

/// What a successor says when its answers would be made as those here.
fn request(shared: &Shared) -> String {
    let settings = shared.successor.settings().map_or(NONE.to_owned(), |settings| format!("{settings:016x}"));
    format!("{ANSWERS}{FORM} {settings}")
}

/// What a successor gets.
pub(super) struct Gift {
    stream: UnixStream,
    words: Receiver<Word>,
    /// Answers, too.
    gives: bool,
}

impl Gift {
    /// What the successor asks for that has taken over; nothing for one that does not know how.
    pub(super) fn wanted(stream: UnixStream, shared: &Shared) -> Option<Self> {
        let mut stream = stream;
        stream.set_read_timeout(Some(PROMPT)).and_then(|()| stream.set_write_timeout(Some(STALL))).ok()?;
        let asked = line(&mut stream).ok().filter(|asked| asked.starts_with(ANSWERS))?;
        let own = request(shared);
        Some(Self { stream, words: shared.successor.begin(), gives: asked == own && !own.ends_with(NONE) })
    }

    /// Hands on what is kept, and then tells of purges until this process ends.
    pub(super) fn give(self, shared: &Shared) {
        let mut out = BufWriter::new(&self.stream);
        if let Err(e) = self.give_to(&mut out, shared) {
            let stalls = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            let why = if stalls { format!("it has taken nothing for {STALL:?}") } else { e.to_string() };
            log::warn!("upgrade: the successor is not told what is kept, or purged: {why}");
        }
        shared.successor.has_been_told();
    }

    fn give_to(&self, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
        let mut leaves = self.gives && give_all(out, shared, &self.words)?;
        part(out, DONE, &[])?;
        out.flush()?;
        while !leaves {
            match self.words.recv() {
                Ok(Word::Purged(purge, manner)) => part(out, PURGED, &purge.write(manner))?,
                Ok(Word::Bye) => leaves = true,
                Err(_) => return Err(io::Error::other("too much was purged at once")),
            }
            out.flush()?;
        }
        part(out, BYE, &[])?;
        out.flush()
    }
}

/// True when this process is at its end by then.
fn give_all(out: &mut impl Write, shared: &Shared, words: &Receiver<Word>) -> io::Result<bool> {
    let (memory, mut leaves) = (shared.cache.memory().clone(), false);
    for key in memory.keys() {
        for word in words.try_iter() {
            match word {
                Word::Purged(purge, manner) => part(out, PURGED, &purge.write(manner))?,
                Word::Bye => leaves = true,
            }
        }
        // It may be gone by now.
        let Some(variants) = memory.get(&key) else { continue };
        // The newest last, for it is the first of those that a request may be given.
        for entry in variants.entries().iter().rev() {
            if let Some(answer) = handed_on::write(&key, entry, Now::read()) {
                part(out, ANSWER, &answer)?;
            }
        }
    }
    Ok(leaves)
}

fn part(out: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&[kind])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// Takes over what the process before has kept, in a thread of its own: what was purged here since the ticket was taken is not.
pub(super) fn take(stream: UnixStream, live: Arc<Live>, ticket: Ticket) {
    thread::spawn(move || {
        let mut taken = 0;
        let ended = ask(stream, &live).and_then(|stream| take_all(stream, &live, ticket, &mut taken));
        if let Err(e) = ended
            && taken > 0
        {
            log::warn!("upgrade: the process before has not said all that it has purged: everything is purged: {e}");
            purging::purge(&live.shared, &Purge::All, Manner::Hard, Now::read());
        }
    });
}

fn ask(stream: UnixStream, live: &Live) -> io::Result<UnixStream> {
    let mut stream = stream;
    stream.set_read_timeout(None)?;
    stream.write_all(format!("{}\n", request(&live.shared)).as_bytes())?;
    Ok(stream)
}

fn take_all(stream: UnixStream, live: &Live, ticket: Ticket, taken: &mut usize) -> io::Result<()> {
    let (mut stream, mut bytes, mut size) = (BufReader::new(stream), Vec::new(), 0);
    let cache = &live.shared.cache;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(io::Error::other("it says what cannot be"));
        }
        bytes.clear();
        (&mut stream).take(length.into()).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match kind {
            ANSWER => {
                let answer = handed_on::read(&bytes, &cache.keys, Now::read(), cache.held());
                if let Some((key, entry)) = answer
                    && cache.insert(&key, entry, ticket).is_ok()
                {
                    (*taken, size) = (*taken + 1, size + bytes.len());
                }
            }
            DONE if *taken > 0 => log::info!("upgrade: {taken} answers, {size} bytes, come from the process before"),
            PURGED => {
                let (purge, manner) = Purge::read(&bytes);
                for purge in purge.by_rules(&live.load().cache_queries) {
                    purging::purge(&live.shared, &purge, manner, Now::read());
                }
            }
            BYE => return Ok(()),
            _ => {}
        }
    }
}
