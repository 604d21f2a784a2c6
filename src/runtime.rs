//! What serves: a [`Runtime`] is built whole, never edited, only replaced; [`Shared`] is what outlives it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pingora::connectors::http::Connector;

use crate::{
    downstream::limits::ClientLimits,
    filter::Tables,
    message::{forwarded::TrustedProxies, reply::Reply},
    routing::{route::Route, router::Router},
    telemetry::{
        Metrics,
        access_log::{config::AccessConfig, writer::AccessLog},
    },
    upstream::{Service, tunnel::Tunnels},
};

/// A page that the admin room publishes on ordinary listeners.
pub(crate) type Page = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// One configuration, ready for traffic.
#[derive(Debug)]
pub struct Runtime {
    /// Routes.
    pub router: Router<Arc<Route>>,
    /// Services by name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// Proxies whose word is taken about the client.
    pub trusted: TrustedProxies,
    /// What a client may ask for.
    pub limits: ClientLimits,
    /// What the access log says.
    pub access: AccessConfig,
    /// Serve `/gateway/*` on ordinary listeners too.
    pub publish: bool,
    /// Some route compresses.
    pub compresses: bool,
    /// Some route mirrors, or some service hedges: the gateway sends requests by itself.
    pub sends: bool,
}

/// State of the process: it outlives every [`Runtime`].
pub struct Shared {
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Limit cells.
    pub tables: Arc<Tables>,
    /// The access log, once it has been started.
    pub access_log: arc_swap::ArcSwapOption<AccessLog>,
    /// Pages of the admin room, for `publish`.
    pub page: std::sync::OnceLock<Box<Page>>,
    /// Connections for requests that the gateway sends by itself; there when some route or service wants such.
    pub connector: std::sync::OnceLock<Arc<Connector>>,
    /// Connections for requests that may become tunnels.
    pub tunnels: std::sync::OnceLock<Tunnels>,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl Shared {
    /// State of a fresh process.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new(),
            tables: Arc::default(),
            access_log: arc_swap::ArcSwapOption::empty(),
            page: std::sync::OnceLock::new(),
            connector: std::sync::OnceLock::new(),
            tunnels: std::sync::OnceLock::new(),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
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
