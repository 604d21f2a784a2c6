//! What the admin pages say.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    clock::Now,
    downstream::limits::ClientLimits,
    message::reply::{Reply, ReplyBody},
    resilience::BreakerState,
    runtime::{Live, Shared},
    upstream::Service,
};

/// The pages, over the runtime that serves.
#[derive(Debug, Clone)]
pub struct Pages {
    live: Arc<Live>,
    shared: Arc<Shared>,
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Pages {
    /// Pages over what `live` holds.
    pub fn new(live: Arc<Live>) -> Self {
        Self { shared: live.shared.clone(), live }
    }

    /// What a client may send.
    pub(super) fn limits(&self) -> ClientLimits {
        self.live.load().limits
    }

    /// The page for `/gateway/*` on an ordinary listener; `None` for every other path.
    pub fn published(&self, path: &str) -> Option<Reply> {
        match path {
            "/gateway/health" => Some(self.ready()),
            "/gateway/stats" => Some(self.stats()),
            "/gateway/metrics" => Some(self.metrics()),
            _ => None,
        }
    }

    /// The process is there.
    pub fn live(&self) -> Reply {
        json_reply(StatusCode::OK, &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
    }

    /// The process wants traffic: it is not about to leave, and every `required` service has a healthy backend.
    pub fn ready(&self) -> Reply {
        if self.shared.stopping() {
            return json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
        }
        let runtime = self.live.load();
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
    pub fn stats(&self) -> Reply {
        let metrics = &self.shared.metrics;
        let totals = metrics.requests.totals();
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let rate = if totals.all == 0 { 1.0 } else { totals.success as f64 / totals.all as f64 };
        let runtime = self.live.load();
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
                "draining": self.shared.draining(),
                "services": services,
            }),
        )
    }

    /// Prometheus' text format.
    pub fn metrics(&self) -> Reply {
        let metrics = &self.shared.metrics;
        // Counted where it happens, shown here: the request path then pays nothing for the copies.
        let evictions = &metrics.filters.evictions;
        evictions.inc_by(self.shared.tables.evictions().saturating_sub(evictions.get()));
        let body = ReplyBody::Bytes(HeaderValue::from_static(METRICS), metrics.render().into());
        Reply { body, ..Reply::empty(StatusCode::OK) }
    }
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
        "limit": service.resilience.gate().map(|gate| gate.limit()),
        "backends": backends,
    })
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut text = value.to_string();
    text.push('\n');
    let body = ReplyBody::Bytes(HeaderValue::from_static("application/json"), Bytes::from(text));
    Reply { body, ..Reply::empty(status) }
}
