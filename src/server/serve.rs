//! From a configuration to a process that serves.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{
    apps::{HttpServerOptions, http_app::HttpServer},
    connectors::{ConnectorOptions, http::Connector},
    listeners::{L4BufferSettings, ListenerConfig, Listeners},
    protocols::http::v2::server::default_h2_options,
    proxy::{HttpProxy, http_proxy},
    server::{RunArgs as PingoraArgs, Server, ShutdownWatch, configuration::Opt},
    services::{
        background::{BackgroundService, background_service},
        listening,
    },
};
use tokio::task::JoinSet;

use super::{
    bind,
    cli::{RunArgs, fail},
    exit,
    logging::LogKeeper,
    notify, pid,
    signals::{self, Signals},
    upgrade,
};
use crate::{
    admin::{AdminApp, Pages},
    config::{self, Loaded, Plan, Rejected},
    filter::Registry,
    proxy::{Door, Gateway, HeadLimits, Listener, Runtime, Shared},
};

/// Time between two looks at certificate files.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// What serves when no file is given.
const DEFAULT: &str = include_str!("../../conf/default.yaml");

/// Loads the file, or the built-in configuration without one. Answers its name, too.
pub(super) fn load(
    path: Option<&Path>,
    registry: &Registry,
    shared: &Arc<Shared>,
) -> Result<(String, Loaded), Rejected> {
    match path {
        Some(path) => Ok((path.display().to_string(), config::check(path, registry, shared)?)),
        None => Ok(("built-in".to_owned(), config::load("built-in", DEFAULT, registry, shared)?)),
    }
}

/// `tollgate`, `tollgate run`.
pub(super) fn run(args: &RunArgs, registry: &Registry) -> ExitCode {
    let shared = Shared::new();
    match load(args.conf.as_deref(), registry, &shared) {
        Ok((name, loaded)) => {
            loaded.plan.log.install();
            log::info!("{name}: loaded, {} tests passed", loaded.tests);
            serve(loaded, shared, args.upgrade, args.daemon, |_| {})
        }
        Err(rejected) => fail(exit::CONFIG, &rejected.to_string()),
    }
}

/// Serves until told to leave. `more` adds services of one's own.
pub(super) fn serve(
    loaded: Loaded,
    shared: Arc<Shared>,
    upgrade: bool,
    daemon: bool,
    more: impl FnOnce(&mut Server),
) -> ExitCode {
    let Loaded { runtime, mut plan, .. } = loaded;
    plan.pingora.daemon |= daemon;
    count_panics(&shared);
    let conf = match plan.pingora.server_conf() {
        Ok(conf) => conf,
        Err(e) => return fail(exit::CONFIG, &format!("pingora: {e}")),
    };
    let predecessor = if upgrade {
        match pid::running(&plan.pingora.pid_file) {
            Ok(pid) => Some(pid),
            Err(message) => return fail(exit::FAILURE, &message),
        }
    } else {
        if let Err(message) = bind::try_all(&plan) {
            return fail(exit::FAILURE, &message);
        }
        None
    };
    resolve(&runtime);
    let mut server = Server::new_with_opt_and_conf(Opt { upgrade, ..Opt::default() }, conf);
    let summoner = predecessor.map(|pid| upgrade::summon(pid, &plan.pingora.upgrade_sock));
    server.bootstrap();
    if let Some(summoner) = summoner {
        let _ = summoner.join();
    }
    assemble(&mut server, runtime, &shared, &plan);
    more(&mut server);
    let signals = Signals {
        shared: shared.clone(),
        delay: plan.shutdown.delay.0,
        upgrade_sock: plan.pingora.upgrade_sock.clone(),
    };
    server.run(PingoraArgs { shutdown_signal: Box::new(signals) });
    signals::leave(&shared, &plan)
}

/// Names are resolved once before the first request, for at most two seconds; a runtime of its own, gone before any
/// fork.
fn resolve(runtime: &Runtime) {
    let Ok(executor) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    executor.block_on(async {
        let mut names = JoinSet::new();
        for service in runtime.services.values() {
            let service = service.clone();
            names.spawn(async move { service.resolve().await });
        }
        let all = async { while names.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    });
    executor.shutdown_background();
}

/// Adds the gateway, the admin listener and the background work to `server`.
fn assemble(server: &mut Server, runtime: Runtime, shared: &Arc<Shared>, plan: &Plan) {
    let access = runtime.access.clone();
    let runtime = Arc::new(ArcSwap::from_pointee(runtime));
    let pages = Pages::new(runtime.clone(), shared.clone());
    let published = pages.clone();
    let _ = shared.page.set(Box::new(move |path| published.published(path)));

    let mut proxy = http_proxy(&server.configuration, Gateway::new(runtime.clone(), shared.clone()));
    http2(&mut proxy, &runtime.load().limits);
    if runtime.load().sends {
        let options = ConnectorOptions::from_server_conf(&server.configuration);
        let _ = shared.connector.set(Arc::new(Connector::new(Some(options))));
    }
    let mut listeners = Listeners::new();
    for listener in &plan.listeners {
        // The door and the HTTP layer have buffers of their own, when they need them; with Pingora's 64 KiB an idle
        // connection costs 100 KB. The PROXY protocol is read byte by byte.
        let read = if listener.proxy_protocol { 256 } else { 0 };
        listeners.add_listener(ListenerConfig::tcp(&listener.address).l4_buffer(L4BufferSettings::new(read, 1460)));
    }
    server.add_service(listening::Service::with_listeners(
        "gateway".into(),
        listeners,
        Door::new(proxy, plan.listeners.clone(), runtime.clone(), shared.clone()),
    ));
    if let Some(address) = &plan.admin {
        let mut admin = listening::Service::new("admin".into(), HttpServer::new_app(AdminApp::new(pages)));
        admin.add_tcp(address);
        admin.threads = Some(1);
        server.add_service(admin);
    }
    let mut keeper = background_service("access log", LogKeeper { config: access, shared: shared.clone() });
    keeper.threads = Some(1);
    server.add_service(keeper);
    let tender =
        Tender { runtime, shared: shared.clone(), plan: plan.clone(), phases: server.watch_execution_phase().into() };
    let mut tender = background_service("tender", tender);
    tender.threads = Some(1);
    server.add_service(tender);
}

/// Bounds HTTP/2 connections of clients.
fn http2(proxy: &mut HttpProxy<Gateway>, limits: &HeadLimits) {
    let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let resets = usize::try_from(limits.h2_resets).unwrap_or(usize::MAX);
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.h2_streams)
        // One field is its name, its value and 32 bytes by RFC 9113 §6.5.2.
        .max_header_list_size(size(limits.header_size.0 + limits.uri.0 + 32 * limits.headers as u64))
        .max_concurrent_reset_streams(resets)
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(Some(resets));
    proxy.h2_options = Some(options);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive.0);
    proxy.server_options = Some(options);
}

/// The background work of a process: health checks, names, and everything that must happen after a daemon has forked.
struct Tender {
    runtime: Arc<ArcSwap<Runtime>>,
    shared: Arc<Shared>,
    plan: Plan,
    phases: Phases,
}

/// A receiver that is taken out once.
struct Phases(parking_lot::Mutex<Option<tokio::sync::broadcast::Receiver<pingora::server::ExecutionPhase>>>);

impl From<tokio::sync::broadcast::Receiver<pingora::server::ExecutionPhase>> for Phases {
    fn from(receiver: tokio::sync::broadcast::Receiver<pingora::server::ExecutionPhase>) -> Self {
        Self(parking_lot::Mutex::new(Some(receiver)))
    }
}

#[async_trait]
impl BackgroundService for Tender {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if let Some(phases) = self.phases.0.lock().take() {
            signals::follow(phases, self.shared.clone(), self.plan.clone());
        }
        if let Err(e) = pid::write(&self.plan.pingora.pid_file) {
            log::error!("pid file {}: {e}; 'tollgate -u' will not find this process", self.plan.pingora.pid_file);
        }
        notify::ready();
        for listener in &self.plan.listeners {
            log::info!("listening on {}", listener.address);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_certificates(self.plan.listeners.clone(), self.shared.clone()));
        for service in self.runtime.load().services.values() {
            let service = service.clone();
            tasks.spawn(async move { service.tend().await });
        }
        // Dropping the set ends the tasks.
        let _ = shutdown.changed().await;
    }
}

/// Takes up changed certificate files, and tells the metrics when each ends.
async fn watch_certificates(listeners: Vec<Listener>, shared: Arc<Shared>) {
    let fronts: Vec<_> = listeners.iter().filter_map(|listener| listener.tls.as_ref()).collect();
    while !fronts.is_empty() {
        for front in &fronts {
            front.certificates().refresh();
            for (name, end) in front.certificates().ends() {
                shared.metrics.connections.certificate_ends(&name, end);
            }
        }
        tokio::time::sleep(CERTIFICATES).await;
    }
}

/// One request's panic must not end the process; it must be seen, though.
fn count_panics(shared: &Arc<Shared>) {
    let metrics = shared.metrics.clone();
    std::panic::set_hook(Box::new(move |info| {
        metrics.panics.inc();
        log::error!("{info}");
    }));
}
