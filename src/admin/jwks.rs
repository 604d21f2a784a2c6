//! `/api/v1/jwks`: which key sets are fetched, what is in them, how old they are, and why one is not newer. No key is shown.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    answer::{Answer, json_reply},
    stats::calendar,
};
use crate::{clock::Now, filter::KeySet, runtime::Live};

/// The page.
pub(super) const PATH: &str = "/api/v1/jwks";

/// The routes of this page.
pub(super) fn router() -> Router<Arc<Live>> {
    Router::new().route(PATH, get(show))
}

async fn show(State(live): State<Arc<Live>>) -> Answer {
    let now = Now::monotonic();
    let sets: Vec<Value> = live.shared.key_sets.all().iter().map(|set| describe(set, now)).collect();
    Answer(json_reply(StatusCode::OK, &json!({ "sets": sets })))
}

fn describe(set: &KeySet, now: Duration) -> Value {
    let (known, fetches) = (set.known(), set.fetches());
    let keys: Vec<Value> = known
        .keys
        .describe()
        .into_iter()
        .map(|key| json!({ "kid": key.id, "kind": key.kind, "alg": key.only.map(|alg| format!("{alg:?}")) }))
        .collect();
    let age = known.at.map(|at| now.saturating_sub(at));
    let (failing_since, error) = fetches.failing.unzip();
    json!({
        "url": set.source.place.name(),
        "loaded": known.at.is_some(),
        "confirmed": age.map(calendar),
        "age_seconds": age.map(|age| age.as_secs()),
        "next_fetch_seconds": set.due().saturating_sub(now).as_secs(),
        "keys": keys,
        "fetches": fetches.all,
        "failed": fetches.failed,
        "failing_since": failing_since.map(|since| calendar(now.saturating_sub(since))),
        "last_error": error,
    })
}
