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
//! have been missed: then everything is purged. Gateways that keep answers in Redis hand none on: in the same one they hear of one
//! another's purges by themselves, but not at the same moment.

use std::{
    io::{self, BufReader, BufWriter, Write},
    iter,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
};

use super::{
    files::{Files, Place, Taking},
    line::line,
    parts::{self, CHANGES},
};
use crate::{
    cache::{
        handed_on::{self, FORM},
        memory::Ticket,
    },
    clock::Now,
    runtime::{
        Shared,
        neighbours::Side,
        words::{Listener, Word},
    },
};

/// Begins the line of a successor that would have answers.
const ANSWERS: &str = "answers ";
/// In place of a number that there is not.
const NONE: &str = "none";

/// What a successor says when its answers would be made as those here, and which Redis it keeps them in.
fn request(shared: &Shared) -> String {
    let settings = shared.neighbours.settings();
    let number = |number: Option<u64>| number.map_or(NONE.to_owned(), |number| format!("{number:016x}"));
    format!("{ANSWERS}{FORM} {} {}", number(settings.id), number(settings.redis))
}

/// Which Redis this process keeps answers in, as it is said when answers have been given.
fn redis(shared: &Shared) -> Vec<u8> {
    shared.neighbours.settings().redis.map_or(Vec::new(), |redis| redis.to_le_bytes().to_vec())
}

/// What a successor gets.
pub(super) struct Gift {
    stream: UnixStream,
    words: Listener,
    /// Answers, too.
    gives: bool,
}

impl Gift {
    /// What the successor asks for that has taken over, of which there is `words` to tell; nothing for one that does not know how.
    pub(super) fn wanted(stream: UnixStream, words: Listener, shared: &Arc<Shared>) -> Option<Self> {
        let asked = asked(&stream).filter(|asked| asked.starts_with(ANSWERS)).zip(stream.try_clone().ok());
        let Some((asked, other)) = asked else {
            shared.neighbours.has_no_successor();
            return None;
        };
        let (own, settings) = (request(shared), shared.neighbours.settings());
        let same_redis = settings.redis.is_some() && asked.rsplit(' ').next() == own.rsplit(' ').next();
        listen(other, shared.clone(), same_redis);
        Some(Self { stream, words, gives: asked == own && settings.id.is_some() })
    }

    /// Hands on what is kept, and then tells of purges until this process ends. A successor that is stopped is waited for.
    pub(super) fn give(self, shared: &Shared) {
        let mut out = BufWriter::new(&self.stream);
        if let Err(e) = self.give_to(&mut out, shared) {
            log::debug!("upgrade: the successor is not told what is kept, or purged: {e}");
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        shared.neighbours.has_been_told();
    }

    fn give_to(&self, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
        let (mut stays, mut files) = (!self.gives || give_all(out, shared, &self.words)?, Files::of(self.gives));
        parts::write(out, parts::DONE, &redis(shared))?;
        out.flush()?;
        while stays {
            stays = match self.words.hear() {
                Some(Word::More) => files.give(out, shared).map(|()| true)?,
                Some(word) => parts::say(out, &word)?,
                None => return Err(io::Error::other("the process before this one may have purged more")),
            };
            out.flush()?;
        }
        parts::write(out, parts::BYE, &[])?;
        out.flush()
    }
}

fn asked(mut stream: &UnixStream) -> Option<String> {
    stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).ok()?;
    line(&mut stream).ok()
}

/// False when this process is at its end by then.
fn give_all(out: &mut impl Write, shared: &Shared, words: &Listener) -> io::Result<bool> {
    let (memory, mut stays) = (shared.cache.memory().clone(), true);
    for key in memory.keys() {
        while let Some(word) = words.has_heard() {
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
fn listen(stream: UnixStream, shared: Arc<Shared>, same_redis: bool) {
    thread::spawn(move || {
        let (mut stream, mut bytes) = (BufReader::new(stream), Vec::new());
        let end = loop {
            match parts::read(&mut stream, &mut bytes) {
                Ok(parts::PURGED) => parts::hear(&shared, Some(Side::After), &bytes),
                Ok(parts::MORE) => shared.neighbours.is_asked_for_more(),
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        shared.neighbours.has_given_all();
        // After this one's farewell nothing is to come, and nobody is given anything here.
        if shared.neighbours.has_successor() {
            parts::miss(&shared, Side::After, same_redis, &end);
        }
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

/// Takes over what the process before has kept, and hears what it purges, in threads of their own. `words` is what there is to tell it;
/// there is no stream to one that has ended by itself.
pub(super) fn take(stream: Option<UnixStream>, words: Listener, shared: Arc<Shared>, tickets: Tickets) {
    thread::spawn(move || {
        let (stream, mut same_redis) = (stream.ok_or_else(|| io::Error::other("it has ended before")), false);
        let ended = stream.and_then(|stream| {
            ask(&stream, &shared)?;
            let other = stream.try_clone()?;
            thread::spawn(move || tell(&other, &words));
            take_all(&stream, &shared, tickets, &mut same_redis)
        });
        if let Err(e) = ended {
            parts::miss(&shared, Side::Before, same_redis, &e);
        }
        shared.neighbours.has_ended();
    });
}

fn ask(mut stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    stream.write_all(format!("{}\n", request(shared)).as_bytes())
}

/// Tells the process before what is purged here, until one of both ends.
fn tell(mut stream: &UnixStream, words: &Listener) {
    let told = iter::from_fn(|| words.hear()).try_for_each(|word| parts::say(&mut stream, &word).map(drop));
    if let Err(e) = told {
        log::debug!("upgrade: the process before is not told what is purged: {e}");
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Tells the process that goes on serving at `upgrade_sock` what this one has purged and purges still, for it has accepted connections,
/// and does not come to serve.
pub(super) fn confess(upgrade_sock: String, words: Listener) {
    thread::spawn(move || {
        let told = UnixStream::connect(upgrade_sock).and_then(|stream| {
            (&stream).write_all(format!("{CHANGES}\n").as_bytes())?;
            iter::from_fn(|| words.hear()).try_for_each(|word| parts::say(&mut &stream, &word).map(drop))
        });
        if let Err(e) = told {
            log::warn!("upgrade: the running process is not told what requests to this one have changed: {e}");
        }
    });
}

/// Hears what such a process has purged, until it ends. Whether that was all, nobody says.
pub(super) fn hear(stream: &UnixStream, shared: &Shared) {
    let (mut stream, mut bytes) = (BufReader::new(stream), Vec::new());
    let end = loop {
        match parts::read(&mut stream, &mut bytes) {
            Ok(parts::PURGED) => parts::hear(shared, None, &bytes),
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    parts::miss(shared, Side::After, false, &end);
}

fn take_all(stream: &UnixStream, shared: &Arc<Shared>, tickets: Tickets, same_redis: &mut bool) -> io::Result<()> {
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
                *same_redis = !bytes.is_empty() && bytes == redis(shared);
                if taken > 0 {
                    log::info!("upgrade: {taken} answers, {size} bytes, come from the process before");
                }
                files = Taking::begin(tickets.disk.clone(), shared);
            }
            parts::FILE => files.iter_mut().for_each(|files| files.take(&bytes)),
            // Nothing is waited for any more when these were all.
            parts::SOME => drop(files.take_if(|files| !files.link(&bytes))),
            parts::PURGED => parts::hear(shared, Some(Side::Before), &bytes),
            parts::BYE => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::{
        cache::purge::{Manner, Purge},
        runtime::purging,
    };

    /// More than can wait to be said.
    fn purge_much(shared: &Shared) {
        for _ in 0..2000 {
            purging::purge(shared, &Purge::Url("http://a.test/x".into()), Manner::Soft, Now::read());
        }
    }

    /// What the other end hears to be purged until the connection ends, and whether that was all.
    fn heard(mut other: UnixStream) -> (Vec<(Purge, Manner)>, bool) {
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (mut bytes, mut purges, mut farewell) = (Vec::new(), Vec::new(), false);
        let end = loop {
            match parts::read(&mut other, &mut bytes) {
                Ok(parts::PURGED) => purges.push(Purge::read(&bytes)),
                Ok(kind) => farewell |= kind == parts::BYE,
                Err(e) => break e,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "it must know that this is the end");
        (purges, farewell)
    }

    #[test]
    fn who_has_not_listened_is_told_to_purge_everything_and_what_comes_later() {
        let shared = Shared::new();
        let (own, mut other) = UnixStream::pair().unwrap();
        other.write_all(format!("{}\n", request(&shared)).as_bytes()).unwrap();
        let gift = Gift::wanted(own, shared.neighbours.precede(), &shared).unwrap();
        purge_much(&shared);
        let (giver, listener) = (shared.clone(), thread::spawn(move || heard(other)));
        let giving = thread::spawn(move || gift.give(&giver));
        purging::purge(&shared, &Purge::Tag(b"later".into()), Manner::Soft, Now::read());
        shared.neighbours.leave(Duration::from_secs(5), || false);
        giving.join().unwrap();
        let (purges, farewell) = listener.join().unwrap();
        assert!(purges.len() < 2000 && farewell && purges.contains(&(Purge::All, Manner::Hard)));
        assert_eq!(purges.last(), Some(&(Purge::Tag(b"later".into()), Manner::Soft)));
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
