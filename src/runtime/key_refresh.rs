//! Fetches a key set again and again: by its age, and when a token has named a key that is not there.

use std::{sync::Arc, time::Duration};

use super::Shared;
use crate::{
    auth::Keyset,
    clock::Now,
    filter::KeySet,
    upstream::fetch::{Document, fetch},
};

/// The connector is made when a configuration that needs it is taken up, a moment before this begins.
const NO_CONNECTOR: Duration = Duration::from_millis(50);

/// Keeps `set` up to date, for as long as it is polled.
pub(super) async fn keep(set: Arc<KeySet>, shared: Arc<Shared>) {
    loop {
        let Some(connector) = shared.connector() else {
            tokio::time::sleep(NO_CONNECTOR).await;
            continue;
        };
        let pause = set.due().saturating_sub(Now::monotonic());
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // What is due may have changed.
                () = set.woken() => continue,
            }
        }
        let failed_before = set.fetches().failing.is_some();
        let fetching = set.begin(Now::monotonic());
        let result = fetch(&connector, &set.source.place, Keyset::MOST_BYTES).await;
        let outcome = match &result {
            Ok(Document { body, max_age }) => fetching.end(Ok((body, *max_age))),
            Err(reason) => fetching.end(Err(reason.clone())),
        };
        say(&set, &outcome, failed_before);
        shared.metrics.filters.key_set_fetched(
            &set.source.place.name(),
            outcome.is_ok(),
            set.known().keys.len(),
            Now::read().unix,
        );
    }
}

/// A line for each change, not for each fetch.
fn say(set: &KeySet, outcome: &Result<bool, String>, failed_before: bool) {
    let name = set.source.place.name();
    match outcome {
        Ok(true) => log::info!("key set {name}: {} keys", set.known().keys.len()),
        Ok(false) if failed_before => log::info!("key set {name}: it can be fetched again; its keys are the same"),
        Ok(false) => {}
        Err(_) if failed_before => {}
        Err(reason) if set.is_loaded() => log::warn!("key set {name}: {reason}; the keys that are known stay"),
        Err(reason) => log::warn!("key set {name}: {reason}; tokens that need it are answered 503 until it is there"),
    }
}
