//! `/gateway/stats`: what has been counted, and how each backend is, why, and since when.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::answer::json_reply;
use crate::{
    clock::Now,
    message::{reason::Reason, reply::Reply},
    resilience::{Breaker, BreakerState},
    routing::route::Route,
    runtime::Live,
    store::RedisStore,
    upstream::{Backend, Service},
};

/// Counts: of requests by the status' first digit, of failures by reason.
type Classes = BTreeMap<String, u64>;

/// Numbers for people and scripts.
pub(super) fn stats_reply(live: &Live) -> Reply {
    let metrics = &live.shared.metrics;
    let totals = metrics.requests.totals();
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let rate = if totals.all == 0 { 1.0 } else { totals.success as f64 / totals.all as f64 };
    let (runtime, counts) = (live.load(), metrics.requests.by_route());
    let (mut by_route, mut by_service) = (BTreeMap::new(), BTreeMap::new());
    for ((route, service), classes) in &counts {
        add(by_route.entry(route.as_str()).or_default(), classes);
        add(by_service.entry(service.as_str()).or_default(), classes);
    }
    let requests = |of: &BTreeMap<&str, Classes>, name: &str| with_total(of.get(name));
    let failures = metrics.upstream.failures();
    let services: Map<String, Value> = runtime
        .services
        .values()
        .map(|service| {
            let failed = failures.get(&*service.name).cloned().unwrap_or_default();
            (service.name.to_string(), describe(service, &requests(&by_service, &service.name), &failed))
        })
        .collect();
    let routes: Vec<Value> =
        runtime.router.routes().map(|(_, route)| of_route(route, &requests(&by_route, &route.id))).collect();
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
            "redis": runtime.redis.as_deref().map(of_redis),
            "services": services,
            "routes": routes,
            "jwks": key_sets(live),
        }),
    )
}

/// The key sets that are fetched; `/api/v1/jwks` says more of them.
fn key_sets(live: &Live) -> Value {
    let sets = live.shared.key_sets.all();
    sets.iter()
        .map(|set| {
            let loaded = set.is_loaded();
            json!({ "url": set.source.place.name(), "loaded": loaded, "last_error": set.fetches().failing.map(|(_, reason)| reason) })
        })
        .collect()
}

fn add(sum: &mut Classes, classes: &Classes) {
    for (class, count) in classes {
        *sum.entry(class.clone()).or_default() += count;
    }
}

/// All of them, and those of each class.
fn with_total(classes: Option<&Classes>) -> Value {
    let mut all = json!({ "total": classes.map_or(0, |classes| classes.values().sum::<u64>()) });
    for (class, count) in classes.into_iter().flatten() {
        all[class] = (*count).into();
    }
    all
}

fn of_route(route: &Route, requests: &Value) -> Value {
    let services: Vec<&str> = route.forward().map(|forward| forward.services().collect()).unwrap_or_default();
    let service = match services.as_slice() {
        [] => Value::Null,
        [only] => json!(only),
        several => json!(several),
    };
    json!({ "id": route.id, "service": service, "requests": requests })
}

fn describe(service: &Service, requests: &Value, failures: &Classes) -> Value {
    let (now, counts) = (Now::monotonic(), service.metrics.counts());
    let backends: Vec<Value> = service.backends().iter().map(|backend| of_backend(backend, now)).collect();
    let unresolved: Vec<Value> = service
        .failing_names()
        .into_iter()
        .map(|(name, reason, ago)| json!({ "name": name, "reason": reason, "since": calendar(ago) }))
        .collect();
    let breaker = service.resilience.breaker.as_deref();
    let (breaker_since, breaker_reason) = since(breaker.and_then(Breaker::changed), now);
    json!({
        "available": service.available(),
        "in_flight": service.in_flight(),
        "requests": requests,
        "attempts": counts.attempts,
        "failures": failures,
        "retries": counts.retries,
        "hedges": counts.hedges,
        "breaker": service.resilience.breaker().map(BreakerState::label),
        "breaker_since": breaker_since,
        "breaker_reason": breaker_reason,
        "limit": service.resilience.concurrency().map(|concurrency| concurrency.limit()),
        "backends": backends,
        "unresolved": unresolved,
    })
}

fn of_backend(backend: &Backend, now: Duration) -> Value {
    let standing = backend.standing(now);
    let (since_when, reason) = since(standing.changed, now);
    let (breaker_since, breaker_reason) = since(backend.breaker().and_then(Breaker::changed), now);
    json!({
        "address": backend.name,
        "state": standing.state,
        "since": since_when,
        "reason": reason,
        "healthy": backend.healthy(),
        "ejected": backend.ejected(now),
        "connect_failure": backend.connect_failure().map(Reason::label),
        "in_flight": backend.in_flight(),
        "breaker": backend.breaker().map(|breaker| breaker.state().label()),
        "breaker_since": breaker_since,
        "breaker_reason": breaker_reason,
    })
}

/// The store that gateways share.
fn of_redis(store: &RedisStore) -> Value {
    let (since, reason) = since(store.changed(), Now::monotonic());
    json!({ "state": store.state().label(), "since": since, "reason": reason, "gateways": store.gateways() })
}

/// When something changed, by the calendar, and why; nothing of what is as it was at the beginning.
fn since(changed: Option<(Duration, String)>, now: Duration) -> (Option<String>, Option<String>) {
    changed.map(|(at, reason)| (calendar(now.saturating_sub(at)), reason)).unzip()
}

/// What the time was so long ago.
pub(super) fn calendar(ago: Duration) -> String {
    let ago = SignedDuration::try_from(ago).unwrap_or_default();
    in_seconds(Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)).to_string()
}

/// The second that `then` is in: the next one would lie in the future.
fn in_seconds(then: Timestamp) -> Timestamp {
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn no_time_lies_in_the_future() {
        for time in ["2026-01-31T10:00:00.999999Z", "2026-01-31T10:00:00.5Z", "2026-01-31T10:00:00Z"] {
            assert_eq!(in_seconds(time.parse().unwrap()).to_string(), "2026-01-31T10:00:00Z");
        }
    }
}
