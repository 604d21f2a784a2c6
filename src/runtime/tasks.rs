//! Background work of the configuration that serves: health checks and names of services, key sets, and whatever filters
//! keep up to date. A task belongs to the part that asked for it: it begins when that part first serves, goes on over a reload
//! that leaves the part as it was, and ends when the part is gone.

use std::{collections::HashMap, sync::Arc};

use super::{Runtime, Shared, cache_disk::CacheDisk, cache_tier::CacheTier, key_refresh};
use crate::{
    filter::{Background, Filter, KeySet},
    store::RedisStore,
    units::OwnedTask,
    upstream::Service,
};

/// The background tasks that run now, by the part that they belong to.
#[derive(Default)]
pub(crate) struct Tasks(HashMap<Id, Running>);

/// A part, by its place in memory: nobody else has it as long as the part is held.
type Id = usize;

struct Running {
    _task: OwnedTask,
    owner: Owner,
}

/// A part that may have background work.
enum Owner {
    Service(Arc<Service>),
    Filter(Arc<dyn Filter>),
    Redis(Arc<RedisStore>),
    KeySet(Arc<KeySet>),
    CacheTier(Arc<CacheTier>),
    CacheDisk(Arc<CacheDisk>),
}

impl Owner {
    fn id(&self) -> Id {
        match self {
            Self::Service(service) => Arc::as_ptr(service).addr(),
            Self::Filter(filter) => Arc::as_ptr(filter).cast::<()>().addr(),
            Self::Redis(store) => Arc::as_ptr(store).addr(),
            Self::KeySet(set) => Arc::as_ptr(set).addr(),
            Self::CacheTier(tier) => Arc::as_ptr(tier).addr(),
            Self::CacheDisk(disk) => Arc::as_ptr(disk).addr(),
        }
    }

    fn work(&self, shared: &Arc<Shared>) -> Option<Background> {
        match self {
            Self::Service(service) => {
                let service = service.clone();
                Some(Box::pin(async move { service.run_background().await }))
            }
            Self::Filter(filter) => filter.background(),
            Self::Redis(store) => {
                let store = store.clone();
                Some(Box::pin(async move { store.run_background().await }))
            }
            Self::CacheTier(tier) => {
                let (tier, shared) = (tier.clone(), shared.clone());
                Some(Box::pin(async move { tier.run_background(&shared.cache, &shared.untold).await }))
            }
            Self::CacheDisk(disk) => {
                let (disk, shared) = (disk.clone(), shared.clone());
                Some(Box::pin(async move { disk.run_background(&shared.cache.keys, &|| shared.mark()).await }))
            }
            Self::KeySet(set) => Some(Box::pin(key_refresh::keep(set.clone(), shared.clone()))),
        }
    }
}

impl Tasks {
    /// Ends what a process does not need any more that takes no new connections. The requests that it still has may change
    /// something, which other gateways are told of.
    pub(crate) fn leave(&mut self) {
        self.0.retain(|_, running| matches!(running.owner, Owner::CacheTier(_)));
    }

    /// Begins what `runtime` needs and does not run yet, and ends what it does not have.
    pub(crate) fn follow(&mut self, runtime: &Runtime, shared: &Arc<Shared>) {
        let services = runtime.services.values().map(|service| Owner::Service(service.clone()));
        let filters = runtime.router.routes().flat_map(|(_, route)| route.chain.filters());
        let redis = runtime.redis.iter().map(|store| Owner::Redis(store.clone()));
        let key_sets = runtime.key_sets.all().into_iter().map(Owner::KeySet);
        let tier = runtime.cache_tier.iter().map(|tier| Owner::CacheTier(tier.clone()));
        let disk = runtime.cache_disk.iter().map(|disk| Owner::CacheDisk(disk.clone()));
        let filters = filters.map(|filter| Owner::Filter(filter.clone()));
        let owners = services.chain(filters).chain(redis).chain(key_sets).chain(tier).chain(disk);
        let mut before = std::mem::take(&mut self.0);
        for owner in owners {
            let id = owner.id();
            if let Some(running) = before.remove(&id) {
                self.0.insert(id, running);
            } else if let Some(work) = owner.work(shared) {
                self.0.insert(id, Running { _task: OwnedTask::spawn(work), owner });
            }
        }
    }
}
