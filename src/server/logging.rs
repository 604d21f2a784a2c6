//! Starting the access log before the first connection is accepted, and opening it anew on SIGUSR1.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::signal::unix::{SignalKind, signal};

use super::front::Started;
use crate::{
    runtime::Shared,
    telemetry::access_log::{config::AccessConfig, writer::AccessLog},
};

/// Looks after the access log for as long as the process lives.
pub(super) struct LogKeeper {
    pub(super) config: AccessConfig,
    pub(super) shared: Arc<Shared>,
    /// The listeners wait for it.
    pub(super) started: Started,
}

#[async_trait]
impl BackgroundService for LogKeeper {
    async fn start(&self, _: ShutdownWatch) {
        // Before anything is said to have begun: without it the signal would be the end.
        let again = signal(SignalKind::user_defined1());
        if self.config.enabled {
            // Here and not earlier: a thread started before a daemon forks would be lost.
            match AccessLog::start(
                self.config.output.value.clone(),
                usize::try_from(self.config.queue.0).unwrap_or(usize::MAX),
            ) {
                Ok(log) => self.shared.access_log.store(Some(Arc::new(log))),
                Err(e) => log::error!("access log: {e}; requests are not logged"),
            }
        }
        self.started.send_modify(|count| *count += 1);
        let Ok(mut again) = again else { return };
        // Not until shutdown: requests that finish during the grace period are logged too.
        while again.recv().await.is_some() {
            if let Some(log) = &*self.shared.access_log.load() {
                log.reopen();
            }
        }
    }
}
