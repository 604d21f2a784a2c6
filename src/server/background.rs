//! The background work of a process: the moment in which it begins to serve, health checks, names, and everything that
//! must happen after a daemon has forked.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::{
    server::{ExecutionPhase, ShutdownWatch},
    services::background::BackgroundService,
};
use tokio::{sync::broadcast, task::JoinSet};

use super::{
    answers::{self, Tickets},
    daemon::Launcher,
    front::Started,
    handover::Handover,
    notify,
    opening::{self, Opening},
    pid, signals,
    upgrade::Predecessor,
};
use crate::{
    config::Plan,
    downstream::Listener,
    filter::KeySet,
    runtime::{Live, Shared, Tasks, heir::Heir},
};

/// Time between two looks at certificate files.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// Accepting begins within milliseconds, if at all.
const BEGIN: Duration = Duration::from_secs(10);

/// Clients wait for so long, in the queue of a listening socket, for backends to become known.
const SETTLE: Duration = Duration::from_secs(2);

/// The process before serves meanwhile.
const SETTLE_BESIDE: Duration = Duration::from_secs(10);

/// Time between two looks whether they are.
const LOOK: Duration = Duration::from_millis(10);

/// What is used once, when the process begins to serve.
pub(super) type Once = (broadcast::Receiver<ExecutionPhase>, Option<Predecessor>, Option<Launcher>);

/// What a process does beside serving, from the moment in which it has forked, if it does.
pub(super) struct BackgroundTasks {
    pub(super) live: Arc<Live>,
    pub(super) plan: Plan,
    pub(super) started: Started,
    /// How many services of the engine must have begun before this process serves.
    pub(super) services: u32,
    pub(super) handover: Handover,
    /// Of a process in the background: what it says when it has come there.
    pub(super) opening: Option<Opening>,
    pub(super) once: Mutex<Option<Once>>,
}

#[async_trait]
impl BackgroundService for BackgroundTasks {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        // Dropping either ends what runs in it.
        let (mut certificates, mut tasks) = (JoinSet::new(), Tasks::default());
        certificates.spawn(watch_certificates(self.plan.listeners.clone(), self.live.shared.clone()));
        let mut changes = self.live.changes();
        tasks.follow(&self.live.load_full(), &self.live.shared);
        let once = self.once.lock().take();
        if let Some((phases, predecessor, launcher)) = once {
            if let Some(opening) = &self.opening {
                opening::restore_mask();
                opening.say();
            }
            signals::follow(phases, self.live.shared.clone(), self.plan.clone(), self.handover.clone());
            tokio::select! {
                () = self.settle(predecessor.is_some()) => {}
                // It is told to leave before it has begun.
                _ = shutdown.changed() => return,
            }
            // Before anybody is accepted: whoever is, is answered.
            let predecessor = match self.agree(predecessor).await {
                Ok(predecessor) => predecessor,
                Err(reason) => return self.give_up(&reason),
            };
            if let Err(reason) = self.begin(predecessor).await {
                return self.give_up(&reason);
            }
            if let Some(launcher) = launcher {
                launcher.tell();
            }
        }
        loop {
            tokio::select! {
                _ = shutdown.changed() => {
                    tasks.leave();
                    return std::future::pending().await;
                }
                changed = changes.changed() => match changed {
                    Ok(()) => tasks.follow(&self.live.load_full(), &self.live.shared),
                    Err(_) => return,
                },
            }
        }
    }
}

impl BackgroundTasks {
    /// Waits until names have been looked up, backends been checked and key sets been fetched for the first time: a request
    /// that came before would be answered 503, or go to a backend that is ill. While a `predecessor` serves there is time to look again.
    async fn settle(&self, predecessor: bool) {
        let limit = if predecessor { SETTLE_BESIDE } else { SETTLE };
        let unsettled = || -> Vec<String> {
            let runtime = self.live.load();
            let left = runtime.services.values().filter(|service| !service.is_settled(predecessor));
            let redis = runtime.redis.iter().filter(|store| !store.is_settled()).map(|_| "redis".to_owned());
            let missing = self.live.shared.key_sets.all().into_iter().filter(|set| !is_settled(set, predecessor));
            let missing = missing.map(|set| set.source.place.name());
            left.map(|service| service.name.to_string()).chain(redis).chain(missing).collect()
        };
        // One that is told to leave goes on accepting for a while, and so it has to begin: nobody else serves its clients.
        let leaves = || !predecessor && self.live.shared.draining();
        let settled = async {
            while !unsettled().is_empty() && !leaves() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(limit, settled).await.is_err() {
            let names = unsettled().join(", ");
            log::warn!(
                "not all backends are known, or have been checked, or key sets fetched, after {limit:?}, of: {names}; going on all the same"
            );
        }
    }

    /// Asks the process before whether it may be replaced by this one, where this one knows no backend of a service, or no keys of a
    /// set.
    async fn agree(&self, predecessor: Option<Predecessor>) -> Result<Option<Predecessor>, String> {
        let Some(mut predecessor) = predecessor else { return Ok(None) };
        let runtime = self.live.load_full();
        let without = runtime.services.values().filter(|service| !service.has_backends());
        let key_sets = self.live.shared.key_sets.all();
        let unknown = key_sets.iter().filter(|set| !set.is_loaded()).map(|set| set.source.place.name());
        let without: Vec<String> = without.map(|service| service.name.to_string()).chain(unknown).collect();
        let asked = move || predecessor.ask_to_be_without(&without).map(|()| predecessor);
        tokio::task::spawn_blocking(asked).await.map_err(|e| e.to_string())?.map(Some)
    }

    /// Has connections accepted, lets the process before go, and only then says that this one serves.
    async fn begin(&self, predecessor: Option<Predecessor>) -> Result<(), String> {
        // What is purged from here on is not taken over, and told to the process before.
        let tickets = Tickets::take(&self.live.shared);
        let words = predecessor.as_ref().map(|_| self.live.shared.neighbours.follow());
        self.started.send_modify(|count| *count += 1);
        let relieved = self.relieve(predecessor).await;
        match (relieved, words) {
            (Ok(stream), Some(words)) => answers::take(stream, words, self.live.shared.clone(), tickets),
            (Err(reason), words) => {
                let words = words.into_iter();
                words.for_each(|words| answers::confess(self.plan.pingora.upgrade_sock.clone(), words));
                return Err(reason);
            }
            (Ok(_), None) => {}
        }
        if let Err(e) = self.write_pid() {
            log::error!("pid file {}: {e}", self.plan.pingora.pid_file);
        }
        if self.plan.pingora.daemon {
            pid::forget_old(&self.plan.pingora.pid_file);
        }
        notify::ready();
        self.handover.begin();
        for listener in &self.plan.listeners {
            log::info!("listening on {}", listener.address);
        }
        Ok(())
    }

    fn write_pid(&self) -> io::Result<()> {
        let (write, shared) = (|| pid::write(&self.plan.pingora.pid_file), &self.live.shared);
        let Some(gateway) = shared.gateway.get() else { return write() };
        Heir::beside(gateway).begin(shared.cache_disk.load().is_some(), write)
    }

    /// Waits until connections are accepted, and lets the process before go; the connection to it, if it has not ended by itself.
    async fn relieve(&self, predecessor: Option<Predecessor>) -> Result<Option<UnixStream>, String> {
        let mut started = self.started.subscribe();
        let all = tokio::time::timeout(BEGIN, started.wait_for(|count| *count >= self.services)).await;
        all.map_err(|_| "the listeners do not begin to accept")?.map_err(|e| e.to_string())?;
        let Some(predecessor) = predecessor else { return Ok(None) };
        let (socket, shared) = (self.handover.socket.clone(), self.live.shared.clone());
        let relieve = move || predecessor.relieve(&socket, || shared.draining());
        tokio::task::spawn_blocking(relieve).await.map_err(|e| e.to_string())?
    }

    /// Ends the process that has not come to serve, when it has finished what it has accepted. A predecessor sees its
    /// connection closed, and goes on.
    fn give_up(&self, reason: &str) {
        self.handover.socket.remove();
        if self.plan.pingora.daemon {
            pid::give_back(&self.plan.pingora.pid_file);
        }
        self.handover.failed.send_replace(true);
        // Whatever the level of the log is.
        let _ = writeln!(io::stderr().lock(), "{reason}");
    }
}

/// A key set has been looked for; while a `predecessor` serves, it has been found.
fn is_settled(set: &KeySet, predecessor: bool) -> bool {
    set.is_loaded() || !predecessor && set.fetches().all > 0
}

/// Takes up changed certificate files, and tells the metrics when each ends.
async fn watch_certificates(listeners: Vec<Listener>, shared: Arc<Shared>) {
    let fronts: Vec<_> = listeners.iter().filter_map(|listener| listener.tls.as_ref()).collect();
    while !fronts.is_empty() {
        let mut ends = BTreeMap::<String, i64>::new();
        for front in &fronts {
            front.refresh();
            for (name, end) in front.certificates().ends() {
                ends.entry(name).and_modify(|known| *known = end.min(*known)).or_insert(end);
            }
        }
        shared.metrics.connections.certificate_ends(&ends);
        tokio::time::sleep(CERTIFICATES).await;
    }
}
