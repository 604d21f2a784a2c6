//! Signals, and the order in which a process leaves.
//!
//! SIGTERM: readiness turns 503 and answers close their connections; after `shutdown.delay` listeners close; requests
//! under way get the grace period. SIGINT: at once. SIGQUIT and SIGHUP change nothing. A successor that serves
//! (`handover.rs`) makes the process leave like SIGTERM does, but at once, and without a word to load balancers; so does
//! a predecessor that stays.
//! Pingora always sleeps its whole grace period; the watcher here ends the process as soon as nothing is under way.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nix::sys::signal::{SigSet, Signal};
use parking_lot::Mutex;
use pingora::server::{ExecutionPhase, ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast,
};

use super::{exit, handover::Handover, notify, pid};
use crate::{
    config::Plan,
    runtime::{Shared, cache_disk::CacheDisk, heir::Heir},
    units::counted,
};

/// Signals that change nothing, or open a log anew, must not end a process that cannot receive them yet: from now on they
/// wait until somebody does.
pub(super) fn hold_back() {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1].into_iter().collect();
    if let Err(e) = signals.thread_block() {
        log::warn!("signals during the start cannot be held back: {e}");
    }
}

/// There is somebody to receive these: this thread takes them.
pub(super) fn receive(signals: &[Signal]) {
    let signals: SigSet = signals.iter().copied().collect();
    if let Err(e) = signals.thread_unblock() {
        log::error!("signals cannot be received: {e}");
    }
}

/// Decides what a signal means.
pub(super) struct Signals {
    pub(super) shared: Arc<Shared>,
    pub(super) delay: Duration,
    pub(super) handover: Handover,
}

/// Answered connections need a moment to be closed, and connections accepted last one to ask (`downstream/app.rs`).
const SETTLE: Duration = Duration::from_secs(2);

/// What is still under way then has so long to say its last word.
const CUT: Duration = Duration::from_millis(500);

/// Time for what a successor has not got yet of answers that are kept.
const HANDING_ON: Duration = Duration::from_secs(10);

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (mut relieved, mut failed) = (self.handover.listen(), self.handover.failed.subscribe());
        let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (quit, hup) = (signal(SignalKind::quit()), signal(SignalKind::hangup()));
        let (Ok(mut term), Ok(mut int), Ok(mut quit), Ok(mut hup)) = (term, int, quit, hup) else {
            log::error!("signals cannot be received");
            return std::future::pending().await;
        };
        receive(&[Signal::SIGHUP, Signal::SIGQUIT]);
        loop {
            tokio::select! {
                _ = int.recv() => {
                    self.shared.drain();
                    return ShutdownSignal::FastShutdown;
                }
                Some(()) = relieved.recv() => {
                    self.shared.drain();
                    log::info!("upgrade: a successor serves; leaving");
                    break;
                }
                Ok(()) = async { failed.wait_for(|failed| *failed).await.map(drop) } => {
                    self.shared.drain();
                    break;
                }
                _ = quit.recv() => {
                    log::warn!("SIGQUIT does nothing: 'tollgate -u' starts a successor, which takes over by itself");
                }
                _ = hup.recv() => {
                    log::warn!("SIGHUP does nothing: to take up a changed file, start a successor with 'tollgate -u'");
                }
                _ = term.recv() => {
                    notify::stopping();
                    self.shared.stop();
                    self.shared.drain();
                    log::info!("leaving: readiness is off, listeners close in {:?}", self.delay);
                    tokio::select! {
                        () = tokio::time::sleep(self.delay) => {}
                        _ = int.recv() => return ShutdownSignal::FastShutdown,
                    }
                    break;
                }
            }
        }
        // The engine closes its sockets; these are the same ones.
        self.handover.held.lock().clear();
        ShutdownSignal::GracefulTerminate
    }
}

/// Follows the phases of leaving, and ends the process when nothing is under way.
pub(super) fn follow(
    mut phases: broadcast::Receiver<ExecutionPhase>,
    shared: Arc<Shared>,
    plan: Plan,
    handover: Handover,
) {
    std::thread::spawn(move || {
        loop {
            match phases.blocking_recv() {
                Ok(ExecutionPhase::ShutdownGracePeriod) => break,
                Ok(ExecutionPhase::ShutdownRuntimes) | Err(broadcast::error::RecvError::Closed) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            }
        }
        // Another SIGINT during the grace period ends it: whoever presses Ctrl-C twice means it.
        let impatient = impatience();
        let begun = Instant::now();
        let under_way = || shared.metrics.requests.in_flight.get();
        // A little before the engine ends its tasks without a word.
        let grace = Duration::from_secs(plan.pingora.grace_period_seconds).saturating_sub(CUT);
        // Of what the process before still does, the successor hears by this one.
        let gives = || begun.elapsed() < HANDING_ON && shared.neighbours.gives_more();
        let busy = || begun.elapsed() < SETTLE || under_way() > 0 || shared.neighbours.has_more_to_tell() || gives();
        while begun.elapsed() < grace && busy() {
            if impatient.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let left = counted(usize::try_from(under_way()).unwrap_or(0), "request");
        shared.cut();
        let cut = Instant::now();
        while under_way() > 0 && cut.elapsed() < CUT {
            std::thread::sleep(Duration::from_millis(10));
        }
        log::info!("left with {left} under way");
        shared.neighbours.leave(HANDING_ON, || impatient.is_finished());
        leave(&shared, &plan, &handover);
    });
}

fn impatience() -> std::thread::JoinHandle<()> {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(async {
                if let Ok(mut int) = signal(SignalKind::interrupt()) {
                    int.recv().await;
                }
            });
        }
    })
}

/// Leaves files with answers to the next process: before the pid file goes, for then that may begin. A successor has them already; one that
/// has not come to serve must not leave what another one still changes, nor one that was still owed a word of the process before.
fn end_disk(disk: &CacheDisk, shared: &Shared, plan: &Plan, handover: &Handover) {
    let served = !handover.is_unfinished() && !*handover.failed.borrow();
    let ends = served && !handover.has_successor() && !shared.neighbours.is_owed();
    match (shared.mark().filter(|_| ends), shared.gateway.get()) {
        (Some(mark), Some(gateway)) => disk.leave(&mark, &shared.cache.memory(), |number| {
            Heir::beside(gateway).leave(number, || pid::is_ours(&plan.pingora.pid_file))
        }),
        _ => disk.end(),
    }
}

/// Ends the process in order: the log is written out, its own files go.
pub(super) fn leave(shared: &Shared, plan: &Plan, handover: &Handover) -> ! {
    // Whoever comes second waits for the end: it would come before files have been written.
    static LEAVING: Mutex<()> = Mutex::new(());
    let _leaving = LEAVING.lock();
    // Dropping the last handle writes what is left; requests that are cut off may still hold one for a moment.
    drop(shared.access_log.swap(None));
    std::thread::sleep(Duration::from_millis(50));
    shared.neighbours.leave(HANDING_ON, || false);
    if let Some(disk) = shared.cache_disk.swap(None) {
        end_disk(&disk, shared, plan, handover);
    }
    if plan.pingora.daemon {
        // Nothing to do for one that has come to serve.
        pid::give_back(&plan.pingora.pid_file);
    }
    pid::remove(&plan.pingora.pid_file);
    handover.socket.remove();
    let mut failed = *handover.failed.borrow();
    // Who has asked for an upgrade must not believe that there was one.
    if !failed && handover.is_unfinished() {
        failed = true;
        let _ = writeln!(io::stderr().lock(), "upgrade: this process was told to leave before it had taken over");
    }
    std::process::exit(if failed { exit::FAILURE.into() } else { 0 })
}
