//! How many requests may be under way at once, with a short, bounded queue before it. Whoever finds the queue full, or
//! waits too long, is sent away: waiting longer than the client would is work for nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A limit on what is under way.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: AtomicU32,
    inside: AtomicU32,
    queue: usize,
    wait: Duration,
    /// How many stand in `waiting`, or are about to: whoever leaves an empty queue behind takes no lock. With them, those
    /// who wait for something else under the same setting.
    queued: Arc<AtomicUsize>,
    waiting: Mutex<Waiting>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// As many wait as may.
    QueueFull,
    /// It has waited for as long as one may.
    WaitOver,
}

/// Those who wait, in the order in which they came: first come, first served. Whoever gives up is taken out at once, or
/// the next one to come would find a queue of the long gone.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    senders: BTreeMap<u64, oneshot::Sender<Permit>>,
}

/// The right to be under way; on drop it goes to the next one in the queue.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<ConcurrencyLimit>,
    /// Nobody is told that it is free: whoever drops it looks for the next one himself.
    quiet: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.inside.fetch_sub(1, SeqCst);
        if !self.quiet {
            self.limiter.wake();
        }
    }
}

/// A place in the queue, given up on drop.
struct Queued<'a> {
    limiter: &'a ConcurrencyLimit,
    ticket: Option<u64>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.limiter.waiting.lock().senders.remove(&ticket);
        }
        self.limiter.queued.fetch_sub(1, SeqCst);
    }
}

impl ConcurrencyLimit {
    /// A limit of `limit` requests; `queue` more may wait, each for at most `wait`.
    pub fn new(limit: u32, queue: u32, wait: Duration) -> Arc<Self> {
        let queue = usize::try_from(queue).unwrap_or(usize::MAX);
        let (limit, inside, queued) = (AtomicU32::new(limit), AtomicU32::new(0), Arc::default());
        Arc::new(Self { limit, inside, queue, wait, queued, waiting: Mutex::default() })
    }

    /// How many requests hold a permit.
    pub fn inside(&self) -> u32 {
        self.inside.load(SeqCst)
    }

    /// How many may, as of now: an adaptive limit moves.
    pub fn limit(&self) -> u32 {
        self.limit.load(SeqCst)
    }

    /// The number of those who wait; whoever waits for something else under the same setting counts there too.
    pub(crate) fn queued(&self) -> Arc<AtomicUsize> {
        self.queued.clone()
    }

    /// Changes the limit. Whoever is inside stays.
    pub fn resize(self: &Arc<Self>, limit: u32) {
        if self.limit.swap(limit, SeqCst) < limit {
            self.wake();
        }
    }

    /// A permit, at once or after waiting.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn enter(self: &Arc<Self>) -> Result<Permit, Busy> {
        if let Some(pass) = self.try_enter() {
            return Ok(pass);
        }
        let before = self.queued.fetch_add(1, SeqCst);
        let mut queued = Queued { limiter: self, ticket: None };
        if before >= self.queue {
            return Err(Busy::QueueFull);
        }
        let receiver = {
            let mut waiting = self.waiting.lock();
            // Whoever left before we were counted has woken nobody.
            if let Some(pass) = self.try_enter() {
                return Ok(pass);
            }
            let (sender, receiver) = oneshot::channel();
            let ticket = waiting.next;
            waiting.next += 1;
            waiting.senders.insert(ticket, sender);
            queued.ticket = Some(ticket);
            receiver
        };
        let received = tokio::time::timeout(self.wait, receiver).await;
        received.ok().and_then(Result::ok).ok_or(Busy::WaitOver)
    }

    /// A permit, if one is free; without waiting.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.limit();
        let free = |inside: u32| (inside < limit).then(|| inside + 1);
        self.inside.fetch_update(SeqCst, SeqCst, free).ok()?;
        Some(Permit { limiter: self.clone(), quiet: false })
    }

    /// The same for whatever no client waits for: it leaves half of the places free.
    pub fn try_enter_half(self: &Arc<Self>) -> Option<Permit> {
        if self.inside() >= self.limit().div_ceil(2) { None } else { self.try_enter() }
    }

    /// Lets waiting requests in while there is room.
    fn wake(self: &Arc<Self>) {
        while self.queued.load(SeqCst) > 0 {
            let next = {
                let mut waiting = self.waiting.lock();
                if waiting.senders.is_empty() {
                    return;
                }
                let Some(pass) = self.try_enter() else { return };
                waiting.senders.pop_first().map(|(_, next)| (next, pass))
            };
            // A receiver that is just leaving: the next one, here and not from within the drop of its pass, or a queue
            // that leaves as one would be as many calls deep as it is long.
            if let Some((next, pass)) = next
                && let Err(mut pass) = next.send(pass)
            {
                pass.quiet = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_one_waits_and_beyond_the_queue_one_leaves() {
        let limiter = ConcurrencyLimit::new(1, 1, Duration::from_millis(100));
        let first = limiter.enter().await.unwrap();
        let waiter = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.enter().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(limiter.enter().await.err(), Some(Busy::QueueFull));
        drop(first);
        let second = waiter.await.unwrap().expect("the waiting one comes in");
        assert_eq!(limiter.inside(), 1);
        let begun = tokio::time::Instant::now();
        assert_eq!(limiter.enter().await.err(), Some(Busy::WaitOver), "nobody leaves in time");
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        drop(second);
        assert_eq!(limiter.inside(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_larger_limit_lets_the_queue_in() {
        let limiter = ConcurrencyLimit::new(1, 5, Duration::from_secs(1));
        let _first = limiter.enter().await.unwrap();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move { limiter.enter().await })
            })
            .collect();
        tokio::task::yield_now().await;
        limiter.resize(4);
        let mut passes = Vec::new();
        for waiter in waiters {
            passes.push(waiter.await.unwrap().expect("there is room now"));
        }
        assert_eq!(limiter.inside(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_that_gives_up_leaves_nothing_behind() {
        let limiter = ConcurrencyLimit::new(1, 200_000, Duration::from_millis(100));
        let first = limiter.enter().await.unwrap();
        let waiters: Vec<_> = (0..100_000)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move { limiter.enter().await.is_ok() })
            })
            .collect();
        while limiter.queued.load(SeqCst) < 100_000 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(60)).await;
        let last = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.enter().await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(60)).await;
        for waiter in waiters {
            assert!(!waiter.await.unwrap(), "nobody left in time");
        }
        // Whoever leaves now finds the last one, and not by as many calls deep as the queue was long.
        drop(first);
        assert!(last.await.unwrap().is_ok());
        assert_eq!((limiter.inside(), limiter.queued.load(SeqCst)), (0, 0));
        assert!(limiter.waiting.lock().senders.is_empty());
        assert!(limiter.enter().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn receivers_that_are_gone_cost_no_stack() {
        let limiter = ConcurrencyLimit::new(1, 200_000, Duration::from_millis(100));
        let first = limiter.enter().await.unwrap();
        // As if each had left between its time-out and its farewell.
        for ticket in 0..100_000 {
            limiter.waiting.lock().senders.insert(ticket, oneshot::channel().0);
        }
        limiter.queued.fetch_add(100_000, SeqCst);
        drop(first);
        assert!(limiter.waiting.lock().senders.is_empty());
        assert_eq!(limiter.inside(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_inside_than_the_limit_and_all_leave() {
        let limiter = ConcurrencyLimit::new(3, 1000, Duration::from_secs(10));
        let most = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..400)
            .map(|_| {
                let (limiter, most) = (limiter.clone(), most.clone());
                tokio::spawn(async move {
                    let _pass = limiter.enter().await.expect("the queue is long enough");
                    most.fetch_max(limiter.inside(), SeqCst);
                    tokio::task::yield_now().await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(most.load(SeqCst) <= 3, "{most:?}");
        assert_eq!((limiter.inside(), limiter.queued.load(SeqCst)), (0, 0));
    }
}
