//! Starting the access log, and opening it anew on SIGUSR1.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    proxy::{AccessConfig, Shared},
    telemetry::AccessLog,
};

/// Looks after the access log for as long as the process lives.
pub(super) struct LogKeeper {
    pub(super) config: AccessConfig,
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl BackgroundService for LogKeeper {
    async fn start(&self, _: ShutdownWatch) {
        // Before the log is opened, which may wait (for the reader of a named pipe): until then the signal would be the end.
        let Ok(mut again) = signal(SignalKind::user_defined1()) else { return };
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
        // Not until shutdown: requests that finish during the grace period are logged too.
        while again.recv().await.is_some() {
            if let Some(log) = &*self.shared.access_log.load() {
                log.reopen();
            }
        }
    }
}
