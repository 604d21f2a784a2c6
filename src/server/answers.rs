//! Kept answers on their way from a process to its successor, over the connection of their hand-over (`handover.rs`), once the
//! successor has taken over. Whatever goes wrong costs answers that are fetched again, and nothing else.
//!
//! ```text
//! successor                              process before
//! answers FORM SETTINGS\n          ->
//!                                  <-    a ANSWER                 for each, if both say the same (`cache/handed_on.rs`)
//!                                  <-    d                        these were all that are in memory
//! m                                ->                             some files with answers, too (`files.rs`)
//!                                  <-    f FILE                   for each of some
//!                                  <-    s FOLDER                 that is where they are; `s` alone when there are no more
//!                                  <-    p PURGE                  at any time: this was purged there
//! p PURGE                          ->                             the same
//!                                  <-    b                        it ends, and has told of all purges
//! ```
//!
//! Each tells its own other neighbour, too, if it has one: of three processes, the first may still be busy when the third takes
//! over. So nobody says farewell before its own predecessor has done so. When the connection ends without a farewell, purges may
//! have been missed: then everything is purged. Gateways that keep answers in Redis hand none on: they hear of one another's purges
//! by themselves, but not at the same moment.

use std::{
    io::{self, BufReader, BufWriter, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use super::{
    files::{Files, Place, Taking},
    line::{PROMPT, line},
    parts,
};
use crate::{
    cache::{
        handed_on::{self, FORM},
        memory::Ticket,
    },
    clock::Now,
    runtime::{
        Shared,
        neighbours::{Side, Word},
    },
};

/// Begins the line of a successor that would have answers.
const ANSWERS: &str = "answers ";
/// The settings of one that would have none.
const NONE: &str = "none";
/// The longest that a successor may take nothing.
const STALL: Duration = Duration::from_secs(10);
/// What a successor says when its answers would be made as those here.
fn request(shared: &Shared) -> String {
    let settings = shared.neighbours.settings().id.map_or(NONE.to_owned(), |settings| format!("{settings:016x}"));
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
    /// What the successor asks for that has taken over, of which there is `words` to tell; nothing for one that does not know how.
    pub(super) fn wanted(stream: UnixStream, words: Receiver<Word>, shared: &Arc<Shared>) -> Option<Self> {
        let asked = asked(&stream).filter(|asked| asked.starts_with(ANSWERS)).zip(stream.try_clone().ok());
        let Some((asked, other)) = asked else {
            shared.neighbours.has_no_successor();
            return None;
        };
        listen(other, shared.clone());
        let own = request(shared);
        Some(Self { stream, words, gives: asked == own && !own.ends_with(NONE) })
    }

    /// Hands on what is kept, and then tells of purges until this process ends.
    pub(super) fn give(self, shared: &Shared) {
        let mut out = BufWriter::new(&self.stream);
        if let Err(e) = self.give_to(&mut out, shared) {
            let stalls = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            let why = if stalls { format!("it has taken nothing for {STALL:?}") } else { e.to_string() };
            log::warn!("upgrade: the successor is not told what is kept, or purged: {why}");
            // So that it knows; what it says is read on.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        shared.neighbours.has_been_told();
    }

    fn give_to(&self, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
        let (mut stays, mut files) = (!self.gives || give_all(out, shared, &self.words)?, Files::of(self.gives));
        parts::write(out, parts::DONE, &[])?;
        out.flush()?;
        while stays {
            let word = self.words.recv().map_err(|_| io::Error::other("it could not be told all in time"))?;
            stays = match word {
                Word::More => files.give(out, shared).map(|()| true)?,
                word => parts::say(out, &word)?,
            };
            out.flush()?;
        }
        parts::write(out, parts::BYE, &[])?;
        out.flush()
    }
}

fn asked(mut stream: &UnixStream) -> Option<String> {
    stream.set_read_timeout(Some(PROMPT)).and_then(|()| stream.set_write_timeout(Some(STALL))).ok()?;
    let asked = line(&mut stream).ok()?;
    stream.set_read_timeout(None).ok()?;
    Some(asked)
}

/// False when this process is at its end by then.
fn give_all(out: &mut impl Write, shared: &Shared, words: &Receiver<Word>) -> io::Result<bool> {
    let (memory, mut stays) = (shared.cache.memory().clone(), true);
    for key in memory.keys() {
        for word in words.try_iter() {
            stays &= parts::say(out, &word)?;
        }
        // It may be gone by now.
        let Some(variants) = memory.get(&key) else { continue };
        // The newest last, for it is the first of those that a request may be given.
        for entry in variants.entries().iter().rev() {
            if let Some(answer) = handed_on::write(&key, entry, Now::read()) {
                parts::write(out, parts::ANSWER, &answer)?;
            }
        }
    }
    Ok(stays)
}

/// Purges here what the successor purges, in a thread of its own.
fn listen(stream: UnixStream, shared: Arc<Shared>) {
    thread::spawn(move || {
        let (mut stream, mut bytes) = (BufReader::new(stream), Vec::new());
        while let Ok(kind) = parts::read(&mut stream, &mut bytes) {
            match kind {
                parts::PURGED => parts::hear(&shared, Side::After, &bytes),
                parts::MORE => shared.neighbours.is_asked_for_more(),
                _ => {}
            }
        }
        shared.neighbours.has_given_all();
        parts::miss(&shared, Side::After);
    });
}

/// What may be taken over: not what was purged here since.
pub(super) struct Tickets {
    memory: Ticket,
    disk: Option<Place>,
}

impl Tickets {
    /// To be taken before anything can be purged here.
    pub(super) fn take(shared: &Shared) -> Self {
        let disk = shared.cache_disk.load_full();
        Self { memory: shared.cache.memory().ticket(), disk: disk.map(|disk| (disk.clone(), disk.known.ticket())) }
    }
}

/// Takes over what the process before has kept, and hears what it purges, in threads of their own. `words` is what there is to tell it; there is no stream to one that has ended by itself.
pub(super) fn take(stream: Option<UnixStream>, words: Receiver<Word>, shared: Arc<Shared>, tickets: Tickets) {
    thread::spawn(move || {
        let stream = stream.ok_or_else(|| io::Error::other("it has ended before"));
        let ended = stream.and_then(|stream| {
            ask(&stream, &shared)?;
            let other = stream.try_clone()?;
            thread::spawn(move || tell(&other, &words));
            take_all(&stream, &shared, tickets)
        });
        if let Err(e) = ended {
            log::warn!("upgrade: the process before has not said all that it has purged: everything is purged: {e}");
            parts::miss(&shared, Side::Before);
        }
        shared.neighbours.has_ended();
    });
}

fn ask(mut stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.write_all(format!("{}\n", request(shared)).as_bytes())
}

/// Tells the process before what is purged here, until one of both ends, or it could not be told all in time: then it is to know.
fn tell(mut stream: &UnixStream, words: &Receiver<Word>) {
    let told = words.iter().try_for_each(|word| parts::say(&mut stream, &word).map(drop));
    if let Err(e) = told {
        log::debug!("upgrade: the process before is not told what is purged: {e}");
    }
    let _ = stream.shutdown(Shutdown::Write);
}

fn take_all(stream: &UnixStream, shared: &Arc<Shared>, tickets: Tickets) -> io::Result<()> {
    let (mut stream, mut bytes) = (BufReader::new(stream), Vec::new());
    let (mut taken, mut size, mut files) = (0, 0, None);
    loop {
        match parts::read(&mut stream, &mut bytes)? {
            parts::ANSWER => {
                let cache = &shared.cache;
                let answer = handed_on::read(&bytes, &cache.keys, Now::read(), cache.held());
                if let Some((key, entry)) = answer
                    && cache.take_over(&key, entry, tickets.memory).is_ok()
                {
                    (taken, size) = (taken + 1, size + bytes.len());
                }
            }
            parts::DONE => {
                if taken > 0 {
                    log::info!("upgrade: {taken} answers, {size} bytes, come from the process before");
                }
                files = Taking::begin(tickets.disk.clone(), shared);
            }
            parts::FILE => files.iter_mut().for_each(|files| files.take(&bytes)),
            // Nothing is waited for any more when these were all.
            parts::SOME => drop(files.take_if(|files| !files.link(&bytes))),
            parts::PURGED => parts::hear(shared, Side::Before, &bytes),
            parts::BYE => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{
        cache::purge::{Manner, Purge},
        runtime::purging,
    };

    /// More than can wait to be said.
    fn purge_much(shared: &Shared) {
        for _ in 0..2000 {
            purging::purge(shared, &Purge::All, Manner::Hard, Now::read());
        }
    }

    /// What the other end hears until the connection ends, and whether that was all.
    fn heard(mut other: UnixStream) -> (usize, bool) {
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (mut bytes, mut purges, mut farewell) = (Vec::new(), 0, false);
        let end = loop {
            match parts::read(&mut other, &mut bytes) {
                Ok(kind) => {
                    purges += usize::from(kind == parts::PURGED);
                    farewell |= kind == parts::BYE;
                }
                Err(e) => break e,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "it must know that this is the end");
        (purges, farewell)
    }

    #[test]
    fn who_could_not_be_told_all_knows_it() {
        let shared = Shared::new();
        let (own, mut other) = UnixStream::pair().unwrap();
        other.write_all(format!("{}\n", request(&shared)).as_bytes()).unwrap();
        let gift = Gift::wanted(own, shared.neighbours.precede(), &shared).unwrap();
        purge_much(&shared);
        let listener = thread::spawn(move || heard(other));
        gift.give(&shared);
        let (purges, farewell) = listener.join().unwrap();
        assert!(purges < 2000 && !farewell, "{purges}");

        let (own, other) = UnixStream::pair().unwrap();
        let words = shared.neighbours.follow();
        purge_much(&shared);
        let listener = thread::spawn(move || heard(other));
        tell(&own, &words);
        assert!(listener.join().unwrap().0 < 2000);
    }

    #[test]
    fn a_farewell_is_the_end() {
        let shared = Shared::new();
        let (own, mut other) = UnixStream::pair().unwrap();
        other.write_all(format!("{}\n", request(&shared)).as_bytes()).unwrap();
        let gift = Gift::wanted(own, shared.neighbours.precede(), &shared).unwrap();
        purging::purge(&shared, &Purge::All, Manner::Hard, Now::read());
        shared.neighbours.leave(Duration::ZERO, || false);
        gift.give(&shared);
        let mut bytes = Vec::new();
        let said = [(); 3].map(|()| parts::read(&mut other, &mut bytes).unwrap());
        assert_eq!(said, [parts::DONE, parts::PURGED, parts::BYE]);
    }
}
