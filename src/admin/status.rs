//! How the process and its services are.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, json_reply};
use crate::{clock::Now, message::reply::Reply, resilience::BreakerState, runtime::Live, upstream::Service};

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
        json_reply(StatusCode::OK, &json!({ "status": "ready" }))
    } else {
        json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "unavailable", "services": down }))
    }
}

/// Numbers for people and scripts.
pub(super) fn stats_reply(live: &Live) -> Reply {
    let metrics = &live.shared.metrics;
    let totals = metrics.requests.totals();
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let rate = if totals.all == 0 { 1.0 } else { totals.success as f64 / totals.all as f64 };
    let runtime = live.load();
    let services: Map<String, Value> =
        runtime.services.values().map(|service| (service.name.to_string(), describe(service))).collect();
    json_reply(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": metrics.process.uptime(),
            "requests": totals.all,
            "errors": totals.errors,
            "success_rate": rate,
            "in_flight": metrics.requests.in_flight.get(),
            "draining": live.shared.draining(),
            "services": services,
        }),
    )
}

fn describe(service: &Service) -> Value {
    let now = Now::monotonic();
    let backends: Vec<Value> = service
        .backends()
        .iter()
        .map(|backend| {
            json!({
                "address": backend.name,
                "healthy": backend.healthy(),
                "ejected": backend.ejected(now),
                "in_flight": backend.in_flight(),
                "breaker": backend.breaker().map(|breaker| breaker.state().label()),
            })
        })
        .collect();
    json!({
        "available": service.available(),
        "in_flight": service.in_flight(),
        "breaker": service.resilience.breaker().map(BreakerState::label),
        "limit": service.resilience.concurrency().map(|concurrency| concurrency.limit()),
        "backends": backends,
    })
}
