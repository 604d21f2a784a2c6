//! Active health checks: all backends of a service at once, every `every`. Scheduling is ours (one task a service in
//! one background service, where Pingora would take a thread per service), and so are the checks: Pingora's ask every
//! backend by one name, and a service may have several. What they come to is counted in `checks.rs`.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora::{
    Error, ErrorType,
    connectors::{ConnectorOptions, TransportConnector, http::Connector},
    http::RequestHeader,
    prelude::HttpPeer,
};
use pingora_load_balancing::{Backend as LbBackend, health_check::HealthCheck};

use super::{backend::Backend, exchange, settings::service::HealthCheckConfig};
use crate::{clock::Now, upstream::ServiceMetrics};

/// The health check of one service: how it asks a backend, and whom it tells of changes.
pub(crate) struct Probe {
    config: HealthCheckConfig,
    service: String,
    endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
    metrics: ServiceMetrics,
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
        endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
        metrics: ServiceMetrics,
        ca_file: Option<String>,
    ) -> Self {
        let service = service.to_owned();
        Self { config, service, endpoints, metrics, ca_file, http: OnceLock::new(), tcp: OnceLock::new() }
    }

    fn options(&self) -> ConnectorOptions {
        let mut options = ConnectorOptions::new(16);
        options.ca_file.clone_from(&self.ca_file);
        options
    }

    fn backend(&self, target: &LbBackend) -> Option<Arc<Backend>> {
        self.endpoints.load().iter().find(|backend| target.addr.as_inet() == Some(&backend.address)).cloned()
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
        if self.config.expect.contains(&status) {
            return Ok(());
        }
        Error::e_explain(ErrorType::CustomCode("unexpected status", status), "in health check")
    }

    /// Takes in a check, and says when it has changed what is known of the backend.
    fn record(&self, backend: &Backend, good: bool) {
        let (healthy_after, unhealthy_after) = (self.config.healthy_after, self.config.unhealthy_after);
        let Some(healthy) = backend.checks.record(good, healthy_after, unhealthy_after) else { return };
        backend.set_healthy(healthy, Now::monotonic());
        self.metrics.backend_up(&backend.name, healthy);
        let state = if healthy { "healthy" } else { "unhealthy" };
        log::warn!("service {}: backend {} is {state}", self.service, backend.name);
    }

    async fn over_tcp(&self, backend: &Backend) -> pingora::Result<()> {
        let connector = self.tcp.get_or_init(|| TransportConnector::new(Some(self.options())));
        connector.new_stream(&*self.peer(backend)).await.map(drop)
    }
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &LbBackend) -> pingora::Result<()> {
        let Some(backend) = self.backend(target) else { return Ok(()) };
        let check = async {
            match &self.config.path {
                Some(path) => self.over_http(path, &backend).await,
                None => self.over_tcp(&backend).await,
            }
        };
        let result = match tokio::time::timeout(self.config.timeout.0, check).await {
            Ok(result) => result,
            Err(_) => Error::e_explain(ErrorType::ReadTimedout, "health check took too long"),
        };
        self.record(&backend, result.is_ok());
        result
    }

    fn health_threshold(&self, _: bool) -> usize {
        // `checks.rs` counts.
        usize::MAX
    }

    fn backend_summary(&self, target: &LbBackend) -> String {
        target.addr.to_string()
    }
}
