//! One fetch per key: whoever comes while an answer is on its way waits for it, for a while. An answer that turns out to be
//! for one request only is remembered for a moment, so that nobody waits for the next one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::underway::Underway;

/// For so long nobody waits for a key whose answer could not be kept.
const PASS: Duration = Duration::from_secs(10);

/// The most keys of one shard that are remembered as such.
const MOST: usize = 4096;

const SHARDS: usize = 16;

/// What became of a fetch.
#[derive(Debug, Clone)]
pub enum Landing {
    /// It is under way.
    Flying,
    /// Its answer comes, and may be given to those who wait.
    Open(Arc<Underway>),
    /// The answer is stored.
    Stored,
    /// It is not, and will not be.
    NotStored,
}

#[derive(Debug)]
enum Slot {
    /// The fetch with this number; nobody waits for it before the first one does.
    Flying(u64, Option<watch::Sender<Landing>>),
    /// Until then.
    Passing(Duration),
}

/// The fetches that are under way.
#[derive(Debug, Default)]
pub struct Flights {
    shards: [Mutex<HashMap<u128, Slot>>; SHARDS],
    /// Of all fetches that there have been.
    count: AtomicU64,
}

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
    number: u64,
    landed: bool,
}

impl Flights {
    fn shard(&self, hash: u128) -> &Mutex<HashMap<u128, Slot>> {
        // The hash is even: any of its bits will do.
        &self.shards[usize::try_from(hash & (SHARDS as u128 - 1)).unwrap_or(0)]
    }

    /// What to do about the key with this hash at `now` (monotonic).
    pub fn join(self: &Arc<Self>, hash: u128, now: Duration) -> Join {
        let mut shard = self.shard(hash).lock();
        match shard.get_mut(&hash) {
            Some(Slot::Flying(_, landing)) => {
                let landing = landing.get_or_insert_with(|| watch::channel(Landing::Flying).0);
                return Join::Wait(landing.subscribe());
            }
            Some(Slot::Passing(until)) if now < *until => return Join::Pass,
            Some(Slot::Passing(_)) | None => {}
        }
        let number = self.count.fetch_add(1, Relaxed);
        shard.insert(hash, Slot::Flying(number, None));
        Join::Lead(Flight { flights: self.clone(), hash, number, landed: false })
    }

    /// The same for somebody who would not fetch it for others.
    pub fn join_others(&self, hash: u128) -> Join {
        match self.shard(hash).lock().get_mut(&hash) {
            Some(Slot::Flying(_, landing)) => {
                Join::Wait(landing.get_or_insert_with(|| watch::channel(Landing::Flying).0).subscribe())
            }
            Some(Slot::Passing(_)) | None => Join::Pass,
        }
    }

    /// Nobody waits any longer for the answer that comes: it has been purged, and the next one who asks fetches it anew.
    pub fn give_up(&self, hash: u128, underway: &Arc<Underway>) {
        let mut shard = self.shard(hash).lock();
        let Some(Slot::Flying(_, Some(waiting))) = shard.get(&hash) else { return };
        let is_it = matches!(&*waiting.borrow(), Landing::Open(comes) if Arc::ptr_eq(comes, underway));
        let slot = is_it.then(|| shard.remove(&hash)).flatten();
        drop(shard);
        if let Some(Slot::Flying(_, Some(waiting))) = slot {
            waiting.send_replace(Landing::NotStored);
        }
    }
}

impl Flight {
    /// The answer comes: those who wait may be given it.
    pub fn open(&self, underway: &Arc<Underway>) {
        if let Some(Slot::Flying(number, waiting)) = self.flights.shard(self.hash).lock().get_mut(&self.hash)
            && *number == self.number
            && !self.landed
        {
            let waiting = waiting.get_or_insert_with(|| watch::channel(Landing::Flying).0);
            waiting.send_replace(Landing::Open(underway.clone()));
        }
    }

    /// The answer is stored.
    pub fn stored(self) {
        let mut this = self;
        this.land(Landing::Stored, None);
    }

    /// The answer is for this request alone, and so will be those to the others: they go by themselves.
    pub fn pass(self, now: Duration) {
        let mut this = self;
        this.land(Landing::NotStored, Some(now));
    }

    /// Tells those who wait, once; nobody waits for this key until it has been `PASS` since `passing`.
    fn land(&mut self, landing: Landing, passing: Option<Duration>) {
        // Another request leads by now.
        if std::mem::replace(&mut self.landed, true) {
            return;
        }
        let mut shard = self.flights.shard(self.hash).lock();
        if !matches!(shard.get(&self.hash), Some(Slot::Flying(number, _)) if *number == self.number) {
            return;
        }
        let slot = shard.remove(&self.hash);
        if let Some(now) = passing {
            if shard.len() >= MOST {
                shard.retain(|_, slot| !matches!(slot, Slot::Passing(until) if *until <= now));
            }
            if shard.len() < MOST {
                shard.insert(self.hash, Slot::Passing(now.saturating_add(PASS)));
            }
        }
        drop(shard);
        if let Some(Slot::Flying(_, Some(waiting))) = slot {
            waiting.send_replace(landing);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land(Landing::NotStored, None);
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
        assert!(matches!(flights.join_others(key), Join::Wait(_)));
        flight.stored();
        assert!(matches!(*waiting.borrow(), Landing::Stored));
        let Join::Lead(flight) = flights.join(key, s(0)) else { panic!("the next one leads again") };
        let Join::Wait(waiting) = flights.join(key, s(0)) else { panic!("nobody waits") };
        drop(flight);
        assert!(matches!(*waiting.borrow(), Landing::NotStored));
        let Join::Lead(flight) = flights.join(key, s(0)) else { panic!("nobody leads") };
        flight.pass(s(1));
        assert!(matches!(flights.join(key, s(5)), Join::Pass));
        assert!(matches!((flights.join_others(key), flights.join_others(8)), (Join::Pass, Join::Pass)));
        assert!(matches!(flights.join(key, s(12)), Join::Lead(_)), "it may be another answer by now");
    }
}
