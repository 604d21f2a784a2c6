//! State of the process.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use pingora::connectors::{ConnectorOptions, http::Connector};
use tokio::sync::watch;

use super::{
    Metrics, cache_disk::CacheDisk, cache_tier::CacheTier, disk_left::Mark, flights::Flights, neighbours::Neighbours,
    untold::Untold,
};
use crate::{
    auth::NonceStores,
    cache::shared::Cache,
    filter::{KeySets, PasswordChecks},
    limit::Tables,
    message::reply::Reply,
    store::RedisStore,
    telemetry::AccessLog,
    upstream::{Service, outbound::OutboundSender, tunnel::Tunnels},
};

/// A page that the admin room publishes on ordinary listeners.
pub(crate) type Page = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// State of the process: it outlives every [`Runtime`](super::Runtime). What belongs to a part of the configuration is kept
/// by that part's name, so that a part that stays as it was keeps it.
pub struct Shared {
    /// Every metric of the process.
    pub metrics: Arc<Metrics>,
    /// Limit cells, by route and filter.
    pub tables: Arc<Tables>,
    /// Key sets that are fetched, of the configuration that serves.
    pub key_sets: Arc<KeySets>,
    /// Nonces of signed requests, by secret.
    pub nonces: Arc<NonceStores>,
    /// Checks of passwords that are under way, and who waits for one.
    pub password_checks: Arc<PasswordChecks>,
    /// The services of the configuration that serves: their breakers, their health, their backends.
    pub(super) services: ArcSwap<BTreeMap<Arc<str>, Arc<Service>>>,
    /// The store that gateways share, of the configuration that serves.
    pub redis: ArcSwapOption<RedisStore>,
    /// Answers that are kept.
    pub cache: Cache,
    /// Those that gateways keep together, of the configuration that serves.
    pub cache_tier: ArcSwapOption<CacheTier>,
    /// Files for those that memory has no room for, of the configuration that serves.
    pub cache_disk: ArcSwapOption<CacheDisk>,
    /// Tells this gateway from others of this machine: its pid file, if it has one.
    pub gateway: OnceLock<PathBuf>,
    /// The number of what the process before has left to this one (`heir.rs`).
    pub left: OnceLock<u64>,
    /// Whether gateways have yet to be told of purges.
    pub untold: Untold,
    /// The processes before and after this one.
    pub neighbours: Neighbours,
    /// Fetches of such that are under way.
    pub flights: Arc<Flights>,
    /// The access log, once it has been started.
    pub access_log: ArcSwapOption<AccessLog>,
    /// Pages of the admin room, for `publish`.
    pub page: OnceLock<Box<Page>>,
    /// How connections are made for requests that the gateway sends by itself.
    pub connections: OnceLock<ConnectorOptions>,
    connector: Arc<OnceLock<Arc<Connector>>>,
    /// Connections for requests that may become tunnels.
    pub tunnels: OnceLock<Tunnels>,
    draining: AtomicBool,
    stopping: AtomicBool,
    cut: watch::Sender<bool>,
    /// The same, for those who look and do not wait.
    pub(crate) cut_flag: Arc<AtomicBool>,
}

impl Shared {
    /// State of a fresh process.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new(),
            tables: Arc::default(),
            key_sets: Arc::default(),
            nonces: Arc::default(),
            password_checks: Arc::default(),
            services: ArcSwap::default(),
            redis: ArcSwapOption::empty(),
            cache: Cache::default(),
            cache_tier: ArcSwapOption::empty(),
            cache_disk: ArcSwapOption::empty(),
            gateway: OnceLock::new(),
            left: OnceLock::new(),
            untold: Untold::default(),
            neighbours: Neighbours::default(),
            flights: Arc::default(),
            access_log: ArcSwapOption::empty(),
            page: OnceLock::new(),
            connections: OnceLock::new(),
            connector: Arc::default(),
            tunnels: OnceLock::new(),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            cut: watch::Sender::new(false),
            cut_flag: Arc::default(),
        })
    }

    /// Whose files in `cache.disk` this process takes over, and leaves; `None`: nobody's.
    pub fn mark(&self) -> Option<Mark> {
        let (settings, gateway) = (self.neighbours.settings().id?, self.gateway.get()?.clone());
        Some(Mark { settings, gateway, number: self.left.get().copied() })
    }

    /// The service of this name in the configuration that serves.
    pub fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.services.load().get(name).cloned()
    }

    /// Connections for requests that the gateway sends by itself; `None` until some configuration has wanted them.
    pub(crate) fn connector(&self) -> Option<Arc<Connector>> {
        self.connector.get().cloned()
    }

    /// What sends the requests of filters over them.
    pub(crate) fn outbound(&self) -> OutboundSender {
        OutboundSender::new(self.connector.clone())
    }

    /// Makes these connections possible. It reads the system's certificates, so it is not for the request path.
    pub(super) fn connect(&self) {
        if let Some(options) = self.connections.get() {
            self.connector.get_or_init(|| Arc::new(Connector::new(Some(options.clone()))));
        }
    }

    /// Ends what is under way.
    pub fn cut(&self) {
        self.cut_flag.store(true, Ordering::Relaxed);
        self.cut.send_replace(true);
    }

    /// True when that has been done.
    pub fn is_cut(&self) -> bool {
        self.cut_flag.load(Ordering::Relaxed)
    }

    /// Tells when it is.
    pub(crate) fn cut_signal(&self) -> watch::Receiver<bool> {
        self.cut.subscribe()
    }

    /// True while answers close their connections, because this process will leave.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on every answer closes its connection.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// True when readiness must say no: this process leaves and has no successor.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Turns readiness off.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("draining", &self.draining()).finish_non_exhaustive()
    }
}
