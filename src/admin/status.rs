//! How the process and its services are.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use serde_json::json;

use super::{
    answer::{Answer, json_reply},
    stats::stats_reply,
};
use crate::{message::reply::Reply, runtime::Live};

/// The routes of these pages.
pub(super) fn router() -> Router<Arc<Live>> {
    Router::new()
        .route("/health", get(ready))
        .route("/health/ready", get(ready))
        .route("/gateway/health", get(ready))
        .route("/health/live", get(live))
        .route("/gateway/stats", get(stats))
}

/// 200 as long as the process answers at all.
async fn live() -> Answer {
    Answer(json_reply(StatusCode::OK, &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })))
}

async fn ready(State(live): State<Arc<Live>>) -> Answer {
    Answer(ready_reply(&live))
}

async fn stats(State(live): State<Arc<Live>>) -> Answer {
    Answer(stats_reply(&live))
}

/// The process wants traffic: it is not about to leave, and every `required` service has a healthy backend.
pub(super) fn ready_reply(live: &Live) -> Reply {
    if live.shared.stopping() {
        return json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
    }
    let runtime = live.load();
    let down: Vec<&str> = runtime
        .services
        .values()
        .filter(|service| service.required() && !service.available())
        .map(|service| service.name.as_ref())
        .collect();
    if down.is_empty() {
        let mut answer = json!({ "status": "ready" });
        // Limits do without it: it is said, and traffic may come all the same.
        if let Some(store) = &runtime.redis {
            answer["redis"] = store.state().label().into();
        }
        json_reply(StatusCode::OK, &answer)
    } else {
        json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "unavailable", "services": down }))
    }
}
