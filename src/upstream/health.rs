//! Active health checks: each backend by itself, every `every`, whatever the others do. Scheduling is ours (Pingora waits
//! for the slowest backend before it asks any of them again), and so are the checks: Pingora's ask every backend by one
//! name, and a service may have several. What they come to is counted in `checks.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use pingora::{
    Error, ErrorType,
    connectors::{ConnectorOptions, TransportConnector, http::Connector},
    http::RequestHeader,
    prelude::HttpPeer,
};
use tokio::{sync::Notify, time::MissedTickBehavior};

use super::{
    backend::Backend,
    backend_list::Endpoints,
    checks::Checks,
    exchange,
    failure_kind::{local_cause, summary},
    settings::service::HealthCheckConfig,
};
use crate::{clock::Now, units::OwnedTask, upstream::ServiceMetrics};

/// The checks of one service's backends.
#[derive(Clone)]
pub(crate) struct HealthChecks(Arc<Probe>);

/// The checks of one backend.
struct Round {
    _task: OwnedTask,
    /// Held, so that nobody else comes to have its place in memory.
    _checks: Checks,
}

impl HealthChecks {
    pub(crate) fn new(probe: Probe) -> Self {
        Self(Arc::new(probe))
    }

    /// Checks the backends that are known now, and others from the moment when they have `changed`, until it is dropped.
    pub(crate) async fn run(&self, changed: &Notify) {
        let mut rounds: HashMap<usize, Round> = HashMap::new();
        loop {
            {
                let backends = self.0.endpoints.load();
                let known: HashMap<usize, &Checks> =
                    backends.iter().map(|backend| (backend.checks.id(), &backend.checks)).collect();
                rounds.retain(|id, _| {
                    let stays = known.contains_key(id);
                    if !stays {
                        self.0.may_say_again(*id);
                    }
                    stays
                });
                for (id, checks) in known {
                    rounds.entry(id).or_insert_with(|| Round {
                        _task: OwnedTask::spawn(self.0.clone().check_again(checks.clone())),
                        _checks: checks.clone(),
                    });
                }
            }
            changed.notified().await;
        }
    }
}

/// The health check of one service: how it asks a backend, and whom it tells of changes.
pub(crate) struct Probe {
    config: HealthCheckConfig,
    service: String,
    endpoints: Endpoints,
    metrics: ServiceMetrics,
    /// That checks fail on our side has been said, of the backend with these checks; 0: of none.
    said: AtomicUsize,
    /// Whom to trust when the service does not say: the same as requests do.
    ca_file: Option<String>,
    /// Made at the first check: a connector reads the system's certificates, which `-t` and tests need not wait for.
    http: OnceLock<Connector>,
    tcp: OnceLock<TransportConnector>,
}

impl Probe {
    pub(crate) fn new(
        config: HealthCheckConfig,
        service: &str,
        endpoints: Endpoints,
        metrics: ServiceMetrics,
        ca_file: Option<String>,
    ) -> Self {
        let service = service.to_owned();
        let said = AtomicUsize::new(0);
        Self { config, service, endpoints, metrics, said, ca_file, http: OnceLock::new(), tcp: OnceLock::new() }
    }

    fn options(&self) -> ConnectorOptions {
        let mut options = ConnectorOptions::new(16);
        options.ca_file.clone_from(&self.ca_file);
        options
    }

    /// The backend whose checks these are, if it is still one: with another weight it is another value.
    fn backend(&self, checks: &Checks) -> Option<Arc<Backend>> {
        self.endpoints.load().iter().find(|backend| backend.checks.id() == checks.id()).cloned()
    }

    /// The backend of which it was said that checks fail on our side can be checked, or is gone.
    fn may_say_again(&self, id: usize) {
        let _ = self.said.compare_exchange(id, 0, Relaxed, Relaxed);
    }

    /// Checks a backend every `every`, at once for the first time, until it is gone.
    async fn check_again(self: Arc<Self>, checks: Checks) {
        let mut tick = tokio::time::interval(self.config.every.0);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(backend) = self.backend(&checks) else { return };
            let result = self.check(&backend).await;
            // It may have gone meanwhile, or come to have another weight.
            let Some(backend) = self.backend(&checks) else { return };
            // Want of something on our side says nothing about the backend.
            if let Some(cause) = result.as_ref().err().and_then(|error| local_cause(error)) {
                if self.said.compare_exchange(0, checks.id(), Relaxed, Relaxed).is_ok() {
                    let (service, name) = (&self.service, &backend.name);
                    log::error!("service {service}: backend {name} cannot be checked: {cause}; it stays as it was");
                }
                continue;
            }
            self.may_say_again(checks.id());
            self.record(&backend, &result);
        }
    }

    /// The way requests go there, with the check's patience: the backend's own name and certificate.
    fn peer(&self, backend: &Backend) -> Box<HttpPeer> {
        let mut peer = Box::new(backend.peer.clone());
        let limit = Some(self.config.timeout.0);
        peer.options.connection_timeout = limit;
        peer.options.total_connection_timeout = limit;
        peer.options.read_timeout = limit;
        peer.options.write_timeout = limit;
        peer
    }

    async fn over_http(&self, path: &str, backend: &Backend) -> pingora::Result<()> {
        let host = self.config.host.clone().unwrap_or_else(|| backend.url.authority());
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(2))?;
        request.insert_header("Host", host)?;
        request.insert_header("User-Agent", "tollgate-health")?;
        let connector = self.http.get_or_init(|| Connector::new(Some(self.options())));
        let answer = exchange::send(connector, self.peer(backend), request, Bytes::new()).await?;
        let mut answer = answer;
        // A backend that breaks off in the middle of its answer is not well.
        while answer.session.read_response_body().await?.is_some() {}
        // Not kept: a connection that stands would hide that no new one can be made.
        let status = answer.head.status.as_u16();
        if self.config.expect.iter().any(|expected| expected.contains(status)) {
            return Ok(());
        }
        Error::e_explain(ErrorType::CustomCode("unexpected status", status), "in health check")
    }

    /// Takes in a check, and says when it has changed what is known of the backend.
    fn record(&self, backend: &Backend, result: &pingora::Result<()>) {
        let (healthy_after, unhealthy_after) = (self.config.healthy_after, self.config.unhealthy_after);
        let changed = backend.checks.record(result.is_ok(), healthy_after, unhealthy_after);
        let Some(healthy) = changed else { return };
        let now = Now::monotonic();
        backend.set_healthy(healthy, now);
        let reason = result.as_ref().map_or_else(|e| summary(e), |()| "health checks succeed".to_owned());
        backend.checks.changed().set(now, reason);
        self.metrics.backend_up(&backend.name, healthy);
        let (service, name) = (&self.service, &backend.name);
        match result {
            Ok(()) => log::info!("service {service}: backend {name} is healthy"),
            Err(e) => log::warn!("service {service}: backend {name} is unhealthy: {}", summary(e)),
        }
    }

    async fn over_tcp(&self, backend: &Backend) -> pingora::Result<()> {
        let connector = self.tcp.get_or_init(|| TransportConnector::new(Some(self.options())));
        connector.new_stream(&*self.peer(backend)).await.map(drop)
    }

    async fn check(&self, backend: &Backend) -> pingora::Result<()> {
        let check = async {
            match &self.config.path {
                Some(path) => self.over_http(path, backend).await,
                None => self.over_tcp(backend).await,
            }
        };
        match tokio::time::timeout(self.config.timeout.0, check).await {
            Ok(result) => result,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, "health check took too long"),
        }
    }
}
