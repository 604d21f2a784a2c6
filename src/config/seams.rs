//! Building a configuration touches nothing that is alive; taking it up is one step. What stays as it was keeps what it
//! has learned, what is gone leaves nothing behind. (Tests: this room sees all that takes part.)
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{Loaded, load};
use crate::{
    Configure, Filter, Registry,
    clock::Now,
    filter::{Background, Env, Invalid},
    runtime::{Live, Shared, Tasks},
    upstream::choice::Choice,
};
use async_trait::async_trait;
use serde::Deserialize;

const LISTENER: &str = "listeners: [{ address: '127.0.0.1:0' }]\n";

fn build(yaml: &str, shared: &Arc<Shared>) -> Result<Loaded, String> {
    load("test", &format!("{LISTENER}{yaml}"), &registry(), shared).map_err(|e| e.to_string())
}

fn page(shared: &Shared) -> String {
    // Time and memory pass, whatever is built.
    let text = String::from_utf8(shared.metrics.render()).unwrap();
    let passes = |line: &&str| line.contains("uptime") || line.contains("memory") || line.contains("process_");
    text.lines().filter(|line| !passes(line)).collect::<Vec<_>>().join("\n")
}

const FIRST: &str = "
services:
  kept: { urls: ['http://127.0.0.1:1'], circuit_breaker: { failure_threshold: 1 } }
  gone: { urls: ['http://127.0.0.1:2', 'http://127.0.0.1:3'], circuit_breaker: { per_backend: true } }
routes:
  - { id: kept, match: { path: /kept }, service: kept, filters: [{ rate_limit: { rate: 5/s } }] }
  - { id: gone, match: { path: /gone }, service: gone, filters: [{ rate_limit: { rate: 5/s } }] }
";

const SECOND: &str = "
services:
  kept: { urls: ['http://127.0.0.1:1'], circuit_breaker: { failure_threshold: 1 } }
  new: { urls: ['http://127.0.0.1:4'] }
routes:
  - { id: kept, match: { path: /kept }, service: kept, filters: [{ rate_limit: { rate: 5/s } }] }
  - { id: new, match: { path: /new }, service: new }
";

#[test]
fn a_configuration_that_is_not_taken_up_leaves_no_trace() {
    let shared = Shared::new();
    let live = Live::begin(build(FIRST, &shared).unwrap().runtime, shared.clone());
    let before = page(&shared);
    assert!(before.contains("gateway_backend_up{backend=\"127.0.0.1:2\",service=\"gone\"} 1"), "{before}");
    assert!(before.contains("gateway_circuit_breaker_state{backend=\"\",service=\"kept\"} 0"), "{before}");
    let rejected = SECOND.replace("rate: 5/s", "rate: 0/s");
    assert!(build(&rejected, &shared).is_err());
    drop(build(SECOND, &shared).unwrap());
    assert_eq!(before, page(&shared));
    assert_eq!(shared.tables.count(), 2);
    assert!(shared.service("new").is_none());
    assert!(live.load().services.contains_key("gone"));
}

#[test]
fn a_store_that_is_meant_still_is_kept() {
    let shared = Shared::new();
    let with = |url: &str| build(&format!("redis: {{ url: '{url}' }}\n{FIRST}"), &shared).unwrap().runtime;
    let live = Live::begin(with("redis://127.0.0.1:1"), shared.clone());
    let first = live.load().redis.clone().unwrap();
    assert!(Arc::ptr_eq(&first, &with("redis://127.0.0.1:1").redis.unwrap()));
    assert!(!Arc::ptr_eq(&first, &with("redis://127.0.0.1:2").redis.unwrap()));
    live.commit(build(FIRST, &shared).unwrap().runtime);
    assert!(shared.redis.load().is_none());
}

#[test]
fn what_stays_is_kept_and_what_is_gone_ends() {
    let shared = Shared::new();
    let live = Live::begin(build(FIRST, &shared).unwrap().runtime, shared.clone());
    let kept = shared.service("kept").unwrap();
    live.commit(build(SECOND, &shared).unwrap().runtime);
    assert!(Arc::ptr_eq(&kept, &shared.service("kept").unwrap()), "the same service, with all that it has learned");
    assert!(shared.service("gone").is_none());
    assert_eq!(shared.tables.count(), 1);
    let after = page(&shared);
    assert!(!after.contains("gone"), "{after}");
    assert!(after.contains("gateway_backend_up{backend=\"127.0.0.1:4\",service=\"new\"} 1"), "{after}");
    assert!(after.contains("gateway_retries_total{service=\"new\"} 0"), "{after}");
}

#[test]
fn a_second_build_of_the_same_file_is_the_same() {
    let shared = Shared::new();
    let live = Live::begin(build(FIRST, &shared).unwrap().runtime, shared.clone());
    let before = (page(&shared), shared.service("kept").unwrap(), shared.service("gone").unwrap());
    // Lines that have moved change nothing.
    live.commit(build(&format!("# a comment\n\n{FIRST}"), &shared).unwrap().runtime);
    assert_eq!(before.0, page(&shared));
    assert!(Arc::ptr_eq(&before.1, &shared.service("kept").unwrap()));
    assert!(Arc::ptr_eq(&before.2, &shared.service("gone").unwrap()));
}

#[test]
fn a_changed_service_keeps_what_is_known_of_its_backends() {
    let shared = Shared::new();
    let with = |more: &str| FIRST.replace("failure_threshold: 1 }", &format!("failure_threshold: 1 }}{more}"));
    let live = Live::begin(build(FIRST, &shared).unwrap().runtime, shared.clone());
    let old = shared.service("kept").unwrap();
    live.commit(build(&with(", timeouts: { read: 7s }"), &shared).unwrap().runtime);
    let new = shared.service("kept").unwrap();
    assert!(!Arc::ptr_eq(&old, &new), "its time limits are others");
    assert_eq!(new.timeouts().read.0, Duration::from_secs(7));
    let headers = http::HeaderMap::new();
    let client = [192, 0, 2, 1].into();
    let choice = Choice { client, headers: &headers, path: "/", tried: &[], leaves: None, now: Now::monotonic() };
    let _under_way = old.choose(&choice).unwrap();
    assert_eq!(new.in_flight(), 1, "what the old one has under way counts for the new one");
}

#[test]
fn a_backend_that_was_found_unhealthy_is_not_believed_to_be_well_again() {
    let shared = Shared::new();
    let checked = |more: &str| {
        let check = format!("'http://127.0.0.1:1'], health_check: {{ healthy_after: 3 }}{more}");
        build(&FIRST.replace("'http://127.0.0.1:1']", &check), &shared).unwrap().runtime
    };
    let live = Live::begin(checked(""), shared.clone());
    shared.service("kept").unwrap().backends()[0].set_healthy(false, Now::monotonic());
    live.commit(checked(", timeouts: { read: 7s }"));
    let backend = shared.service("kept").unwrap().backends()[0].clone();
    assert!(!backend.healthy());
    assert!(page(&shared).contains("gateway_backend_up{backend=\"127.0.0.1:1\",service=\"kept\"} 0"));
    live.commit(build(FIRST, &shared).unwrap().runtime);
    assert!(shared.service("kept").unwrap().available(), "without checks nothing would find it well again");
}

/// How often the background work has begun, and how many are alive.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Refreshing;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Filter for Refreshing {
    fn background(&self) -> Option<Background> {
        Some(Box::pin(async {
            BEGUN.fetch_add(1, SeqCst);
            ALIVE.fetch_add(1, SeqCst);
            let _alive = Alive;
            std::future::pending::<()>().await;
        }))
    }
}

impl Configure for Refreshing {
    const NAME: &'static str = "refreshing";
    type Config = Settings;

    fn configure(_: Settings, _: &Env) -> Result<Self, Invalid> {
        Ok(Self)
    }
}

#[tokio::test]
async fn background_work_begins_once_and_ends_with_its_route() {
    let shared = Shared::new();
    let refreshing = FIRST.replace("filters: [", "filters: [refreshing, ");
    let settled = || async { tokio::time::sleep(Duration::from_millis(20)).await };
    let mut tasks = Tasks::default();
    let live = Live::begin(build(&refreshing, &shared).unwrap().runtime, shared.clone());
    drop(build(&refreshing, &shared).unwrap());
    settled().await;
    assert_eq!(BEGUN.load(SeqCst), 0, "nothing begins while it is built");
    tasks.follow(&live.load(), &shared);
    tasks.follow(&live.load(), &shared);
    settled().await;
    assert_eq!((BEGUN.load(SeqCst), ALIVE.load(SeqCst)), (2, 2), "one for each route");
    live.commit(build(SECOND, &shared).unwrap().runtime);
    tasks.follow(&live.load(), &shared);
    settled().await;
    assert_eq!((BEGUN.load(SeqCst), ALIVE.load(SeqCst)), (2, 0), "the routes are gone");
}

fn registry() -> Registry {
    Registry::builtin().with::<Refreshing>()
}
