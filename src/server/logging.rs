//! Starting the access log before the first connection is accepted, and opening it anew on SIGUSR1.

use std::sync::Arc;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::signal::unix::{SignalKind, signal};

use super::{front::Started, opening, signals};
use crate::{
    runtime::Live,
    telemetry::{AccessLog, Output},
};

/// Looks after the access log for as long as the process lives.
pub(super) struct LogKeeper {
    pub(super) live: Arc<Live>,
    /// The listeners wait for it.
    pub(super) started: Started,
}

#[async_trait]
impl BackgroundService for LogKeeper {
    async fn start(&self, _: ShutdownWatch) {
        // Before anything is said to have begun: without it the signal would be the end.
        let again = signal(SignalKind::user_defined1());
        let mut changes = self.live.changes();
        // Here and not earlier: a thread started before a daemon forks would be lost.
        let mut current = None;
        opening::restore_mask();
        self.follow(&mut current);
        self.started.send_modify(|count| *count += 1);
        let Ok(mut again) = again else { return };
        signals::receive(&[Signal::SIGUSR1]);
        // Not until shutdown: requests that finish during the grace period are logged too.
        loop {
            tokio::select! {
                asked = again.recv() => match (asked, &*self.live.shared.access_log.load()) {
                    (Some(()), Some(log)) => log.reopen(),
                    (Some(()), None) => {}
                    (None, _) => return,
                },
                changed = changes.changed() => match changed {
                    Ok(()) => self.follow(&mut current),
                    Err(_) => return,
                },
            }
        }
    }
}

impl LogKeeper {
    /// Writes where the configuration that serves says. `current` is where lines go now, with the length of the queue.
    fn follow(&self, current: &mut Option<(Output, u64)>) {
        let runtime = self.live.load_full();
        let wanted = runtime.access.enabled.then(|| (runtime.access.output.value.clone(), runtime.access.queue.0));
        if *current == wanted {
            return;
        }
        let begun = wanted.as_ref().map(|(output, queue)| {
            let dropped = self.live.shared.metrics.log.dropped.clone();
            AccessLog::start(output.clone(), usize::try_from(*queue).unwrap_or(usize::MAX), dropped)
        });
        let log = match begun.transpose() {
            Ok(log) => log,
            Err(e) => {
                log::error!("access log: {e}; requests are not logged");
                None
            }
        };
        let before = self.live.shared.access_log.swap(log.map(Arc::new));
        *current = wanted;
        // It writes what is left, which may take as long as its reader takes.
        std::thread::spawn(move || drop(before));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::{fs, path::Path, time::Instant};

    use super::*;
    use crate::{Registry, config::load, runtime::Shared};

    #[test]
    fn lines_go_where_the_configuration_that_serves_says() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        let shared = Shared::new();
        let to = |path: &Path| {
            let yaml = format!(
                "listeners: [{{ address: '127.0.0.1:0' }}]\naccess_log: {{ output: {{ file: '{}' }} }}\nroutes: []\n",
                path.display()
            );
            load("test", &yaml, &Registry::builtin(), &shared).unwrap().runtime
        };
        let live = Live::begin(to(&one), shared.clone());
        let keeper = LogKeeper { live: live.clone(), started: Started::new(0) };
        let mut current = None;
        let say =
            |text: &str| shared.access_log.load().as_ref().unwrap().line(|out| out.extend_from_slice(text.as_bytes()));
        keeper.follow(&mut current);
        say("first");
        live.commit(to(&other));
        keeper.follow(&mut current);
        say("second");
        let begun = Instant::now();
        while fs::read_to_string(&one).unwrap_or_default() != "first\n"
            || fs::read_to_string(&other).unwrap_or_default() != "second\n"
        {
            assert!(begun.elapsed().as_secs() < 5, "{:?}", fs::read_to_string(&one));
            std::thread::yield_now();
        }
    }
}
