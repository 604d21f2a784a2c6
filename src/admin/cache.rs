//! `/api/v1/cache`: what is kept, and how it is thrown away.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, json_reply};
use crate::{
    cache::purge::{Manner, Purge},
    clock::Now,
    message::reply::Reply,
    runtime::{Live, Shared, purging},
};

/// So many of the largest are shown.
const LARGEST: usize = 10;

/// The page that purges.
pub(super) const PURGE: &str = "/api/v1/cache/purge";

/// The routes of these pages.
pub(super) fn router() -> Router<Arc<Live>> {
    Router::new().route("/api/v1/cache", get(show)).route(PURGE, post(purge))
}

/// What is purged, as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeRequest {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    all: bool,
    soft: bool,
}

impl PurgeRequest {
    /// What is meant.
    ///
    /// # Errors
    /// What is wrong with it.
    fn read(&self) -> Result<(Purge, Manner), String> {
        let of = |key: &str, read: Result<Purge, String>| read.map_err(|wrong| format!("'{key}': {wrong}"));
        let purge = match (&self.url, &self.prefix, &self.tag, self.all) {
            (Some(url), None, None, false) => of("url", Purge::of_url(url))?,
            (None, Some(prefix), None, false) => of("prefix", Purge::of_prefix(prefix))?,
            (None, None, Some(tag), false) if tag.is_empty() => return Err("'tag' is empty".to_owned()),
            (None, None, Some(tag), false) => Purge::Tag(tag.as_bytes().to_vec()),
            (None, None, None, true) => Purge::All,
            _ => return Err("give one of 'url', 'prefix', 'tag' and 'all: true'".to_owned()),
        };
        Ok((purge, if self.soft { Manner::Soft } else { Manner::Hard }))
    }
}

async fn show(State(live): State<Arc<Live>>) -> Answer {
    let memory = live.shared.cache.memory();
    let stats = memory.stats();
    let requests = live.shared.metrics.cache.results();
    let largest = memory.largest(LARGEST).into_iter().map(|(url, bytes)| json!({ "url": url, "bytes": bytes }));
    Answer(json_reply(
        StatusCode::OK,
        &json!({
            "bytes": stats.bytes,
            "held": live.shared.cache.held_beyond(),
            "budget": stats.budget + live.shared.cache.coded().budget(),
            "coded": coded(&live.shared),
            "entries": stats.entries,
            "evictions": stats.evictions,
            "hit_ratio": hit_ratio(&requests),
            "requests": requests,
            "largest": largest.collect::<Value>(),
            "disk": disk(&live.shared),
            "redis": live.shared.cache_tier.load().as_ref().map(|tier| if tier.is_up() { "up" } else { "down" }),
        }),
    ))
}

fn coded(shared: &Shared) -> Value {
    let (bytes, entries) = shared.cache.coded().stats();
    json!({ "bytes": bytes, "entries": entries })
}

fn disk(shared: &Shared) -> Option<Value> {
    let disk = shared.cache_disk.load();
    let disk = disk.as_ref()?;
    let (bytes, entries) = disk.known.stats();
    Some(json!({ "state": if disk.is_up() { "up" } else { "down" }, "bytes": bytes, "entries": entries }))
}

/// The share of requests that were answered without a backend, of those that could have been.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn hit_ratio(requests: &std::collections::BTreeMap<String, u64>) -> Option<f64> {
    let sum = |words: &[&str]| words.iter().filter_map(|word| requests.get(*word)).sum::<u64>();
    let all = sum(&["hit", "stale", "revalidated", "miss"]);
    (all > 0).then(|| sum(&["hit", "stale"]) as f64 / all as f64)
}

async fn purge(State(live): State<Arc<Live>>, headers: HeaderMap, body: Bytes) -> Answer {
    // A page of another site can make a browser send text or a form here, but not this type: it would have to ask first.
    let is_json = |value: &http::HeaderValue| {
        let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        media.trim().eq_ignore_ascii_case("application/json")
    };
    if !headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        let detail = "what is purged is said as JSON, with Content-Type: application/json";
        return Answer(Reply::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let request = serde_json::from_slice::<PurgeRequest>(&body).map_err(|e| e.to_string());
    match request.and_then(|request| request.read()) {
        Ok((purge, manner)) => {
            let now = Now::read();
            let all = purge.by_rules(&live.load().cache_queries);
            let purged: usize = all.iter().map(|purge| purging::purge(&live.shared, purge, manner, now)).sum();
            purging::note(&live.shared).await;
            // Not which: queries are where secrets end up.
            log::info!("cache: {purged} answers purged ({manner:?})");
            Answer(json_reply(StatusCode::OK, &json!({ "purged": purged })))
        }
        Err(wrong) => Answer(Reply::problem(StatusCode::BAD_REQUEST, wrong)),
    }
}
