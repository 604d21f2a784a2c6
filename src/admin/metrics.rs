//! Metrics in Prometheus' text format.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::{HeaderValue, StatusCode};

use super::answer::Answer;
use crate::{
    message::reply::{Reply, ReplyBody},
    runtime::Live,
};

const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes of this page.
pub(super) fn router() -> Router<Arc<Live>> {
    Router::new().route("/metrics", get(page)).route("/gateway/metrics", get(page))
}

async fn page(State(live): State<Arc<Live>>) -> Answer {
    Answer(reply(&live))
}

/// All metrics of the process.
pub(super) fn reply(live: &Live) -> Reply {
    let metrics = &live.shared.metrics;
    // Counted where it happens, shown here: the request path then pays nothing for the copies.
    let evictions = &metrics.filters.evictions;
    evictions.inc_by(live.shared.tables.evictions().saturating_sub(evictions.get()));
    let cache = &live.shared.cache;
    metrics.cache.take(cache.memory().stats(), cache.coded().stats().0, cache.held_beyond());
    let body = ReplyBody::Bytes(HeaderValue::from_static(MEDIA), metrics.render().into());
    Reply { body, ..Reply::empty(StatusCode::OK) }
}
