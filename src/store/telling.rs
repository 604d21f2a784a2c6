//! What a store that has come back is told, empty or not: what has passed here, of every client that it may have forgotten.
//!
//! The others may be asked for a client before this gateway is, and the store would know nothing of what has passed here. So each
//! gateway tells by itself, beside the requests, which never wait for it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{failure::Concern, redis::RedisStore};
use crate::{clock::Now, limit::Moment};

/// So many clients are told of at a time: few, for what requests ask goes the same way.
const AT_ONCE: usize = 20;

/// The next ones follow after this at the earliest: a gateway tells of ten thousand clients a second, at most.
const PAUSE: Duration = Duration::from_millis(2);

/// A client is told of so often, if calls are not answered.
const ATTEMPTS: usize = 3;

/// A limit that keeps what has passed here, for a store that may lose it.
pub(super) trait Tells: Send + Sync + 'static {
    /// Who is told.
    fn store(&self) -> &RedisStore;

    /// Of whom something may have passed here.
    fn clients(&self) -> Vec<u128>;

    /// What has passed here of this client still counts.
    fn counts(&self, client: u128, now: Moment) -> bool;

    /// Tells of it, unless the store has been told in this generation.
    fn tell(&self, client: u128, generation: u64, now: Moment) -> impl Future<Output = Result<(), Concern>> + Send;
}

/// Tells the store each time that it comes back.
pub(super) async fn keep_told(limit: Arc<impl Tells>) {
    let store = limit.store();
    let mut told = store.generation();
    loop {
        let returned = store.returned();
        tokio::pin!(returned);
        returned.as_mut().enable();
        let generation = store.generation();
        if generation != told && store.is_up() {
            tell_all(&*limit, generation).await;
            told = generation;
        }
        returned.await;
    }
}

fn now() -> Moment {
    let now = Now::read();
    Moment { since_start: now.since_start, unix: Duration::from_secs(now.unix) }
}

/// Tells of every client, as long as the store is the one that has come back.
async fn tell_all(limit: &impl Tells, generation: u64) {
    let store = limit.store();
    let mut left = limit.clients();
    for _ in 0..ATTEMPTS {
        let mut failed = Vec::new();
        for some in left.chunks(AT_ONCE) {
            // Those of other limits take turns with these: there is one connection for all.
            let Ok(_turn) = store.telling.acquire().await else { return };
            if store.generation() != generation || !store.is_up() {
                return;
            }
            let (now, next) = (now(), Instant::now() + PAUSE);
            let due = some.iter().filter(|client| limit.counts(**client, now));
            let calls = due.map(|client| async { (*client, limit.tell(*client, generation, now).await) });
            let answers = futures_util::future::join_all(calls).await;
            if answers.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            let unanswered = answers.iter().filter(|(_, answer)| matches!(answer, Err(Concern::Late | Concern::Store)));
            failed.extend(unanswered.map(|(client, _)| *client));
            sleep_until(next).await;
        }
        left = failed;
    }
}
