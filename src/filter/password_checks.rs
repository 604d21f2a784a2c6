//! Checks of passwords: each takes a processor for tens of milliseconds, and anybody can ask for one. So they are made on threads
//! of their own, few at once, and few may wait for that: requests that need none never wait for those that do.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::units::CountPermit;

/// So many may wait for a check, for each that is made at once.
const WAITING: usize = 32;

/// Nobody waits longer for one to begin.
const LONGEST: Duration = Duration::from_secs(2);

/// The checks of the process.
pub struct PasswordChecks {
    at_once: usize,
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// No check could be begun: there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Default for PasswordChecks {
    /// Half of the processors, so that guessing leaves the other half to requests.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new((processors / 2).max(1))
    }
}

impl PasswordChecks {
    fn new(at_once: usize) -> Self {
        Self { at_once, free: Arc::new(Semaphore::new(at_once)), waiting: Arc::default() }
    }

    /// Runs `check` on a thread that may block; nothing when it panics.
    ///
    /// # Errors
    /// Too many are under way or wait.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, TooMany> {
        let permit = if let Ok(permit) = self.free.clone().try_acquire_owned() {
            permit
        } else {
            let _place = CountPermit::within(self.waiting.clone(), self.at_once * WAITING).ok_or(TooMany)?;
            let permit = tokio::time::timeout(LONGEST, self.free.clone().acquire_owned()).await;
            permit.ok().and_then(Result::ok).ok_or(TooMany)?
        };
        // The permit goes along: a client that leaves does not end a check that has begun.
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            check()
        });
        Ok(done.await.ok())
    }
}

impl fmt::Debug for PasswordChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordChecks({} wait)", self.waiting.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn few_are_made_at_once_few_wait_and_the_others_are_told() {
        let checks = Arc::new(PasswordChecks::new(2));
        let (done, until) = mpsc::channel::<()>();
        let until = Arc::new(parking_lot::Mutex::new(until));
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..2 + 2 * WAITING + 5 {
            let (checks, until, under_way, most) = (checks.clone(), until.clone(), under_way.clone(), most.clone());
            tasks.push(tokio::spawn(async move {
                let check = move || {
                    most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = until.lock().recv();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                };
                checks.run(check).await
            }));
        }
        // Those beyond the room are told at once, while the first still go on.
        while tasks.iter().filter(|task| task.is_finished()).count() < 5 {
            tokio::task::yield_now().await;
        }
        drop(done);
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.unwrap());
        }
        assert_eq!(results.iter().filter(|result| **result == Err(TooMany)).count(), 5);
        assert_eq!(results.iter().filter(|result| **result == Ok(Some(()))).count(), 2 + 2 * WAITING);
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(checks.run(|| 7).await, Ok(Some(7)), "and there is room again");
    }
}
