//! One fetch per key: whoever comes while an answer is on its way waits for it, for a while. An answer that turns out to be
//! for one request only is remembered for a moment, so that nobody waits for the next one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

/// For so long nobody waits for a key whose answer could not be kept.
const PASS: Duration = Duration::from_secs(10);

/// The most keys of one shard that are remembered as such.
const MOST: usize = 4096;

const SHARDS: usize = 16;

/// What became of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// It is under way.
    Flying,
    /// The answer is stored.
    Stored,
    /// It is not, and will not be.
    NotStored,
}

#[derive(Debug)]
enum Slot {
    Flying(watch::Receiver<Landing>),
    /// Until then.
    Passing(Duration),
}

/// The fetches that are under way.
#[derive(Debug, Default)]
pub struct Flights([Mutex<HashMap<u128, Slot>>; SHARDS]);

/// What to do about a key.
#[derive(Debug)]
pub enum Join {
    /// Fetch it: the others wait.
    Lead(Flight),
    /// Wait for the one who does.
    Wait(watch::Receiver<Landing>),
    /// Fetch it for yourself.
    Pass,
}

/// A fetch; when it is dropped, nobody waits for it any longer.
#[derive(Debug)]
pub struct Flight {
    flights: Arc<Flights>,
    hash: u128,
    landing: watch::Sender<Landing>,
}

impl Flights {
    fn shard(&self, hash: u128) -> &Mutex<HashMap<u128, Slot>> {
        // The hash is even: any of its bits will do.
        &self.0[usize::try_from(hash & (SHARDS as u128 - 1)).unwrap_or(0)]
    }

    /// What to do about the key with this hash at `now` (monotonic).
    pub fn join(self: &Arc<Self>, hash: u128, now: Duration) -> Join {
        let mut shard = self.shard(hash).lock();
        match shard.get(&hash) {
            Some(Slot::Flying(landing)) => return Join::Wait(landing.clone()),
            Some(Slot::Passing(until)) if now < *until => return Join::Pass,
            Some(Slot::Passing(_)) | None => {}
        }
        let (landing, receiver) = watch::channel(Landing::Flying);
        shard.insert(hash, Slot::Flying(receiver));
        Join::Lead(Flight { flights: self.clone(), hash, landing })
    }
}

impl Flight {
    /// The answer is stored.
    pub fn stored(self) {
        self.landing.send_replace(Landing::Stored);
    }

    /// The answer is for this request alone, and so will be those to the others: they go by themselves.
    pub fn pass(self, now: Duration) {
        let mut shard = self.flights.shard(self.hash).lock();
        if shard.len() >= MOST {
            shard.retain(|_, slot| !matches!(slot, Slot::Passing(until) if *until <= now));
        }
        if shard.len() < MOST {
            shard.insert(self.hash, Slot::Passing(now.saturating_add(PASS)));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.hash).lock();
        if let Some(Slot::Flying(_)) = shard.get(&self.hash) {
            shard.remove(&self.hash);
        }
        drop(shard);
        self.landing.send_if_modified(|landing| {
            let flying = *landing == Landing::Flying;
            *landing = if flying { Landing::NotStored } else { *landing };
            flying
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_the_others_hear_of_it() {
        let (flights, key, s) = (Arc::new(Flights::default()), 7, Duration::from_secs);
        let Join::Lead(flight) = flights.join(key, s(0)) else { panic!("nobody leads") };
        let Join::Wait(waiting) = flights.join(key, s(0)) else { panic!("nobody waits") };
        flight.stored();
        assert_eq!(*waiting.borrow(), Landing::Stored);
        let Join::Lead(flight) = flights.join(key, s(0)) else { panic!("the next one leads again") };
        let Join::Wait(waiting) = flights.join(key, s(0)) else { panic!("nobody waits") };
        drop(flight);
        assert_eq!(*waiting.borrow(), Landing::NotStored);
        let Join::Lead(flight) = flights.join(key, s(0)) else { panic!("nobody leads") };
        flight.pass(s(1));
        assert!(matches!(flights.join(key, s(5)), Join::Pass));
        assert!(matches!(flights.join(key, s(12)), Join::Lead(_)), "it may be another answer by now");
    }
}
