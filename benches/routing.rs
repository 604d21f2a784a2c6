//! The router and the chain: what they cost per request, and how that grows.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use pingora::http::RequestHeader;
use tollgate::{
    Registry,
    config::load,
    filter::{Now, State},
    message::path::normalise,
    routing::{Matcher, RouteInput, Router, decide},
    runtime::Shared,
};

fn router(routes: usize) -> Router<usize> {
    let matcher = |path: String| Matcher { paths: path.parse().into_iter().collect(), ..Matcher::default() };
    Router::new((0..routes).map(|i| (matcher(format!("/service-{i}/users/{{id}}/*")), i)).collect())
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("router");
    let headers = HeaderMap::new();
    for routes in [1, 100, 10_000] {
        let router = router(routes);
        let path = format!("/service-{}/users/42/orders", routes / 2);
        let subject =
            RouteInput { host: "api.example", path: &path, method: &Method::GET, headers: &headers, listener: 0 };
        group.bench_function(format!("{routes} routes"), |b| b.iter(|| black_box(router.pick(black_box(&subject)))));
    }
    group.bench_function("normalise, nothing to do", |b| b.iter(|| normalise(black_box("/users/42/orders"))));
    group.bench_function("normalise, dots and escapes", |b| {
        b.iter(|| normalise(black_box("/users/./%34%32/../42//orders")));
    });
    group.finish();
}

/// A whole decision (head checks, route, chain) beside the same without filters, in one run.
fn deciding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    let key = "key";
    let yaml = |filters: &str| {
        format!(
            "listeners: [{{ address: \"127.0.0.1:1\" }}]\nadmin: {{ enabled: false }}\napi_keys: [{{ id: a, sha256: {} }}]\nservices: {{ s: {{ urls: [\"http://127.0.0.1:2\"] }} }}\nroutes:\n  - match: {{ path: /* }}\n    service: s\n    filters: [{filters}]\n",
            tollgate::auth::Digest::of(key.as_bytes())
        )
    };
    let limit = "{ rate_limit: { rate: 1000000/s, burst: 1000000, by: api_key } }";
    let all = format!(
        "request_id, {{ ip: {{ deny: [10.0.0.0/8] }} }}, api_key, {limit}, {{ headers: {{ response: {{ set: {{ X-A: b }} }} }} }}, {{ body_limit: {{ max: 1MiB }} }}"
    );
    let executor = tokio::runtime::Builder::new_current_thread().build();
    let executor = executor.unwrap_or_else(|e| panic!("no executor: {e}"));
    for (name, filters) in [("no filters", ""), ("key and limit", &format!("api_key, {limit}")), ("six filters", &all)]
    {
        let shared: Arc<Shared> = Shared::new();
        let loaded = load("bench", &yaml(filters), &Registry::builtin(), &shared).unwrap_or_else(|e| panic!("{e}"));
        let mut head = RequestHeader::build("GET", b"/users/42", None).unwrap_or_else(|e| panic!("{e}"));
        for (name, value) in [("Host", "api.example"), ("X-API-KEY", key), ("User-Agent", "bench"), ("Accept", "*/*")] {
            head.insert_header(name, value).unwrap_or_else(|e| panic!("{e}"));
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut state = State::default();
                executor.block_on(decide(
                    &loaded.runtime.router,
                    &loaded.runtime.limits,
                    black_box(&mut head),
                    &mut state,
                    Now::read(),
                ))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, routing, deciding);
criterion_main!(benches);
