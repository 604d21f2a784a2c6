//! Active health checks: all backends of a service at once, every `every`. Scheduling is ours (one task a service in
//! one background service, where Pingora would take a thread per service); checks, thresholds and their bookkeeping
//! are Pingora's.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora_load_balancing::{
    Backend as LbBackend,
    health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck},
};

use super::{Backend, HealthCheckConfig, Service};
use crate::{filter::Now, telemetry::ServiceMetrics};

/// One service's check.
pub(super) struct Probe {
    config: HealthCheckConfig,
    service: String,
    endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
    metrics: ServiceMetrics,
    /// Made at the first check: a connector reads the system's certificates, which `-t` and tests need not wait for.
    plain: OnceLock<Box<dyn HealthCheck + Send + Sync>>,
    tls: OnceLock<Box<dyn HealthCheck + Send + Sync>>,
}

impl Probe {
    pub(super) fn new(
        config: HealthCheckConfig,
        service: &str,
        endpoints: Arc<ArcSwap<Vec<Arc<Backend>>>>,
        metrics: ServiceMetrics,
    ) -> Self {
        let service = service.to_owned();
        Self { config, service, endpoints, metrics, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    fn backend(&self, target: &LbBackend) -> Option<Arc<Backend>> {
        self.endpoints.load().iter().find(|backend| target.addr.as_inet() == Some(&backend.address)).cloned()
    }

    fn checker(&self, backend: &Backend) -> &(dyn HealthCheck + Send + Sync) {
        let cell = if backend.peer.is_tls() { &self.tls } else { &self.plain };
        let make = || match &self.config.path {
            Some(path) => self.http(path, backend),
            None => self.tcp(backend),
        };
        cell.get_or_init(make).as_ref()
    }

    fn http(&self, path: &str, backend: &Backend) -> Box<dyn HealthCheck + Send + Sync> {
        let host =
            self.config.host.clone().unwrap_or_else(|| backend.name.split(' ').next().unwrap_or_default().to_owned());
        let mut check = HttpHealthCheck::new(&host, false);
        check.peer_template = backend.peer.clone();
        let options = &mut check.peer_template.options;
        options.total_connection_timeout = Some(self.config.timeout.0);
        options.read_timeout = Some(self.config.timeout.0);
        if let Ok(mut request) = RequestHeader::build("GET", path.as_bytes(), Some(2)) {
            let named = request
                .insert_header("Host", host)
                .and_then(|()| request.insert_header("User-Agent", "tollgate-health"));
            if named.is_ok() {
                check.req = request;
            }
        }
        let expect = self.config.expect.clone();
        check.validator = Some(Box::new(move |head| {
            if expect.contains(&head.status.as_u16()) {
                return Ok(());
            }
            pingora::Error::e_explain(
                pingora::ErrorType::CustomCode("unexpected status", head.status.as_u16()),
                "in health check",
            )
        }));
        Box::new(check)
    }

    fn tcp(&self, backend: &Backend) -> Box<dyn HealthCheck + Send + Sync> {
        let mut check = TcpHealthCheck::default();
        if backend.peer.is_tls() {
            check.peer_template.sni.clone_from(&backend.peer.sni);
        }
        check.peer_template.options.total_connection_timeout = Some(self.config.timeout.0);
        check.peer_template.options.ca.clone_from(&backend.peer.options.ca);
        check.peer_template.options.verify_cert = backend.peer.options.verify_cert;
        check.peer_template.options.verify_hostname = backend.peer.options.verify_hostname;
        Box::new(check)
    }
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &LbBackend) -> pingora::Result<()> {
        let Some(backend) = self.backend(target) else { return Ok(()) };
        let check = self.checker(&backend).check(target);
        match tokio::time::timeout(self.config.timeout.0, check).await {
            Ok(result) => result,
            Err(_) => pingora::Error::e_explain(pingora::ErrorType::ReadTimedout, "health check took too long"),
        }
    }

    async fn health_status_change(&self, target: &LbBackend, healthy: bool) {
        let Some(backend) = self.backend(target) else { return };
        backend.set_healthy(healthy, Now::monotonic());
        self.metrics.backend_up(&backend.name, healthy);
        let state = if healthy { "healthy" } else { "unhealthy" };
        log::warn!("service {}: backend {} is {state}", self.service, backend.name);
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { self.config.healthy_after } else { self.config.unhealthy_after }
    }

    fn backend_summary(&self, target: &LbBackend) -> String {
        target.addr.to_string()
    }
}

impl Service {
    /// Runs checks and name look-ups until it is dropped.
    pub async fn tend(&self) {
        tokio::join!(self.watch_names(), self.watch_health());
    }

    async fn watch_health(&self) {
        let Some(check) = &self.check else { return };
        let mut tick = tokio::time::interval(check.every.0);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.balancer.view().run_health_check(true).await;
        }
    }
}
