//! How the backends of a service change while it serves: names are looked up again and again, and so is the file.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{
    balance::Balancer,
    lookup::{Lookup, Question},
    pool::Pool,
    url::BackendUrl,
    watch::{LOOK, Watched},
};
use crate::units::counted;

/// The shortest time between two changes of the backends: of many names, one or another changes all the time.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks at names and files again and again; returns at once when there are none.
pub(super) async fn watch(pool: &Pool, balancer: &dyn Balancer) {
    let mut file = pool.discovery.config.file.as_ref().map(Watched::new);
    let mut looks = FuturesUnordered::new();
    let mut next_takeover = Instant::now();
    pool.names.give_back();
    loop {
        let due = pool.names.take_due(Instant::now()).into_iter();
        looks.extend(due.map(|question| async {
            let result = pool.discovery.lookup(&question).await;
            (question, result)
        }));
        let now = Instant::now();
        let others = file.as_ref().map(|_| now + LOOK).into_iter();
        let others = others.chain(pool.stale.load(Relaxed).then_some(next_takeover));
        let next = pool.names.next(now).into_iter().chain(others).min();
        tokio::select! {
            Some(first) = looks.next() => {
                learn(pool, first);
                while let Some(Some(more)) = looks.next().now_or_never() {
                    learn(pool, more);
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {
                let text = file.as_mut().and_then(|file| file.changed(Instant::now()));
                let listed = text.is_some_and(|text| reread(pool, text));
                if listed {
                    pool.names.follow(&pool.targets.load(), None);
                }
                if pool.names.leave(Instant::now()) || listed {
                    pool.stale.store(true, Relaxed);
                }
            }
            else => return,
        }
        if pool.stale.load(Relaxed) && next_takeover <= Instant::now() {
            pool.take_over(balancer).await;
            pool.stale.store(false, Relaxed);
            next_takeover = Instant::now() + PAUSE;
        }
    }
}

/// Takes in what a look at a name has come to.
fn learn(pool: &Pool, (question, result): (Question, Result<Lookup, String>)) {
    let news = pool.names.learn(&question, result, Instant::now());
    for message in news.messages {
        log::warn!("service {}: {message}", pool.service);
    }
    if news.changed {
        pool.stale.store(true, Relaxed);
    }
}

/// Takes over the backends that the file lists; false when nothing changes.
fn reread(pool: &Pool, text: Result<String, String>) -> bool {
    let keeps = |message: &str| log::error!("service {}: {message}; the backends stay as they were", pool.service);
    match text.map_err(|message| vec![message]).and_then(|text| pool.discovery.parse(&text, &pool.fixed)) {
        Ok(urls) => {
            let all: Vec<BackendUrl> = pool.fixed.iter().cloned().chain(urls.iter().cloned()).collect();
            if all == **pool.targets.load() {
                return false;
            }
            // Rather one who is about to write it than one who wants to be answered 503.
            if urls.is_empty() {
                let file = pool.discovery.config.file.as_deref().unwrap_or_default();
                keeps(&format!("'{file}' lists no backend"));
                return false;
            }
            log::info!("service {}: {} in the file", pool.service, counted(urls.len(), "backend"));
            pool.targets.store(Arc::new(all));
            true
        }
        Err(messages) => {
            for message in &messages {
                keeps(message);
            }
            false
        }
    }
}
