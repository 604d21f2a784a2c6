//! The configuration that serves now. Taking up another one is one step: what it shows and counts by becomes visible,
//! requests that begin from then on are served by it, and what only the one before had ends.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Runtime, Shared, neighbours::Settings};

/// The runtime that serves, and what outlives it.
pub struct Live {
    current: ArcSwap<Runtime>,
    /// The state of the process, which outlives every runtime.
    pub shared: Arc<Shared>,
    /// Held while another one is taken up: two at once would end what the other has begun.
    committing: Mutex<()>,
    changed: watch::Sender<()>,
}

impl Live {
    /// Takes up the first runtime of the process.
    pub fn begin(runtime: Runtime, shared: Arc<Shared>) -> Arc<Self> {
        let runtime = Arc::new(runtime);
        show(&runtime, &shared);
        Arc::new(Self {
            current: ArcSwap::new(runtime),
            shared,
            committing: Mutex::new(()),
            changed: watch::Sender::new(()),
        })
    }

    /// The runtime that serves now.
    pub fn load(&self) -> Guard<Arc<Runtime>> {
        self.current.load()
    }

    /// The runtime that serves now, to be kept for as long as a request lasts.
    pub fn load_full(&self) -> Arc<Runtime> {
        self.current.load_full()
    }

    /// Makes `runtime` the one that serves.
    pub fn commit(&self, runtime: Runtime) {
        let _one_at_a_time = self.committing.lock();
        let runtime = Arc::new(runtime);
        show(&runtime, &self.shared);
        self.current.store(runtime);
        self.changed.send_replace(());
    }

    /// Tells whenever another runtime has been taken up.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

/// Makes everything visible that `runtime` has, and ends what it does not have.
fn show(runtime: &Runtime, shared: &Shared) {
    let key_sets = runtime.key_sets.all();
    if runtime.sends || !key_sets.is_empty() {
        shared.connect();
    }
    shared.tables.commit(&runtime.tables);
    shared.redis.store(runtime.redis.clone());
    shared.key_sets.commit(&runtime.key_sets);
    shared.cache.set_budget(runtime.cache_memory, runtime.cache_codes);
    shared.cache_tier.store(runtime.cache_tier.clone());
    shared.neighbours.set_settings(Settings {
        id: runtime.cache_tier.is_none().then_some(runtime.cache_settings),
        redis: runtime.cache_tier.as_ref().map(|tier| tier.redis_name()),
        queries: runtime.cache_queries.clone(),
    });
    shared.cache_disk.store(runtime.cache_disk.clone());
    shared.cache.set_disk(runtime.cache_disk.as_ref().map(|disk| (disk.known.clone(), disk.sink())));
    shared.services.store(Arc::new(runtime.services.clone()));
    let metrics = &shared.metrics;
    metrics.upstream.keep_services(&|name| runtime.services.contains_key(name));
    runtime.services.values().for_each(|service| service.show());
    let routes: BTreeSet<&str> = runtime.router.routes().map(|(_, route)| &*route.id).collect();
    let keep = |name: &str| routes.contains(name);
    metrics.requests.keep_routes(&keep);
    metrics.filters.keep_routes(&keep);
    let fetched: BTreeSet<String> = key_sets.iter().map(|set| set.source.place.name()).collect();
    metrics.filters.keep_key_sets(&|name| fetched.contains(name));
}
