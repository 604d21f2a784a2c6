//! From a configuration to a process that serves.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use parking_lot::Mutex;
use pingora::{
    apps::{HttpServerOptions, http_app::HttpServer},
    connectors::ConnectorOptions,
    listeners::L4BufferSettings,
    proxy::http_proxy,
    server::{RunArgs as PingoraArgs, Server, configuration::ServerConf},
    services::background::background_service,
};
use rustix::fs::Uid;

use super::{
    account,
    background::BackgroundTasks,
    daemon::{Launcher, launch},
    exit,
    front::{Front, Started},
    handover::Handover,
    logging::LogKeeper,
    opening::Opening,
    place::{UpgradeSocket, answers},
    signals::{self, Signals},
    sockets::{self, Bound},
    upgrade::{self, Predecessor},
};
use crate::{
    admin::{self, AdminApp},
    config::{self, Loaded, PingoraConfig, Plan, Rejected, Style},
    downstream::{
        App, Listener,
        host::{DirectAnswers, Host},
    },
    filter::Registry,
    proxy::Gateway,
    runtime::{Live, Shared, heir::Heir},
    server::{failure::fail, run_args::RunArgs},
    upstream::tunnel::Tunnels,
};

/// What begins before connections are accepted: the access log, and the first look at backends (`background.rs`).
const FIRST: u32 = 2;

/// What serves when no file is given.
const DEFAULT: &str = include_str!("../../conf/default.yaml");

/// Loads the file, or standard input; without a name `./tollgate.yaml` if it is there, else the built-in configuration. Answers its name, too.
pub(super) fn load(
    path: Option<&Path>,
    registry: &Registry,
    shared: &Arc<Shared>,
) -> Result<(String, Loaded), Rejected> {
    let own = Path::new(OWN);
    let Some(path) = path.or_else(|| own.is_file().then_some(own)) else {
        return Ok(("built-in".to_owned(), config::load("built-in", DEFAULT, registry, shared)?));
    };
    if path == Path::new("-") {
        let (name, mut text) = ("standard input", String::new());
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .map_err(|e| Rejected::whole(name, format!("cannot read it: {e}")))?;
        return Ok((name.to_owned(), config::load(name, &text, registry, shared)?));
    }
    let (file, text) = (path.display().to_string(), config::read_text(path)?);
    enter(path).map_err(|e| Rejected::whole(&file, e))?;
    Ok((file.clone(), config::load(&file, &text, registry, shared)?))
}

/// The file that is taken when none is named.
const OWN: &str = "tollgate.yaml";

/// Paths in a file are relative to the file, wherever the process was started.
fn enter(file: &Path) -> Result<(), String> {
    let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    std::env::set_current_dir(directory).map_err(|e| format!("cannot enter its directory: {e}"))
}

/// `tollgate`, `tollgate run`.
pub(super) fn run(args: &RunArgs, style: Style, registry: &Registry) -> ExitCode {
    // Before the first thread is there: all of them begin with what this one holds back.
    signals::hold_back();
    let (shared, file) = (Shared::new(), args.file());
    let mut opening = Opening::new(file.as_deref());
    // What has been read is gone: a process in the background would find nothing there.
    let is_gone = |file: &Path| file == Path::new("-") || std::fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    let is_gone = file.as_deref().is_some_and(is_gone);
    match load(file.as_deref(), registry, &shared) {
        Ok((name, loaded)) => {
            loaded.plan.log.install();
            if is_gone && (args.daemon || loaded.plan.pingora.daemon) {
                return fail(
                    exit::FAILURE,
                    "a process in the background cannot read standard input, or a pipe: write the file to a disk",
                );
            }
            opening.tell_of(&name, &loaded);
            serve(loaded, shared, args.upgrade, args.daemon, opening, |_| {})
        }
        Err(rejected) => fail(exit::CONFIG, &rejected.0.styled(style)),
    }
}

/// Serves until told to leave. `more` adds services of one's own.
pub(super) fn serve(
    loaded: Loaded,
    shared: Arc<Shared>,
    upgrade: bool,
    daemon: bool,
    opening: Opening,
    more: impl FnOnce(&mut Server),
) -> ExitCode {
    let Loaded { runtime, mut plan, .. } = loaded;
    plan.pingora.daemon |= daemon;
    let (conf, launcher) = match prepare(&mut plan, upgrade, &opening) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    count_panics(&shared);
    let (predecessor, bound, upgrade_socket) = match claim(&plan, upgrade) {
        Ok(claimed) => claimed,
        Err(message) => return fail(exit::FAILURE, &message),
    };
    let held = match sockets::copies(&bound) {
        Ok(copies) => Arc::new(Mutex::new(copies)),
        Err(e) => return fail(exit::FAILURE, &format!("cannot keep the listening sockets: {e}")),
    };
    let handover = Handover::new(upgrade_socket, held, &plan.pingora, shared.clone(), predecessor.is_some());
    // A daemon does it when it has forked.
    if let Err(message) = if plan.pingora.daemon { Ok(()) } else { account::assume(&plan.pingora) } {
        return fail(exit::CONFIG, &message);
    }
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let _ = shared.connections.set(ConnectorOptions::from_server_conf(&server.configuration));
    shared.untold.keep_beside(&plan.pingora.pid_file);
    if let Ok(pid_file) = std::path::absolute(&plan.pingora.pid_file) {
        // Whether this one takes it over or not, nobody else does. With a process before, it is older than what that one may have purged.
        let left = Heir::beside(&pid_file).take().filter(|_| predecessor.is_none());
        let _ = left.map(|number| shared.left.set(number));
        let _ = shared.gateway.set(pid_file);
    }
    let live = Live::begin(runtime, shared.clone());
    let started = Started::new(0);
    let services = assemble(&mut server, &live, &plan, bound, &started);
    let background = BackgroundTasks {
        live,
        plan: plan.clone(),
        started,
        services,
        handover: handover.clone(),
        opening: Some(opening).filter(|_| plan.pingora.daemon),
        once: Mutex::new(Some((server.watch_execution_phase(), predecessor, launcher))),
    };
    let mut background = background_service("background", background);
    background.threads = Some(1);
    server.add_service(background);
    more(&mut server);
    let signals = Signals { shared: shared.clone(), delay: plan.shutdown.delay.0, handover: handover.clone() };
    server.run(PingoraArgs { shutdown_signal: Box::new(signals) });
    signals::leave(&shared, &plan, &handover)
}

/// The settings as Pingora takes them and, in a daemon, who waits to hear that it serves.
///
/// # Errors
/// The code with which this process ends: something is in the way, or the daemon is another process.
fn prepare(plan: &mut Plan, upgrade: bool, opening: &Opening) -> Result<(ServerConf, Option<Launcher>), ExitCode> {
    if upgrade {
        // Before Pingora is told of the paths.
        plan.pingora.follow_predecessor(|path| answers(path));
    }
    if !plan.pingora.daemon {
        opening.say();
    }
    warn_of_error_log(&plan.pingora);
    let conf = may_start(&plan.pingora).map_err(|message| fail(exit::CONFIG, &message))?;
    if !plan.pingora.daemon {
        return Ok((conf, None));
    }
    match Launcher::of_this_process() {
        None => Err(launch(opening.directory.as_deref())),
        Some(Ok(launcher)) => Ok((conf, Some(launcher))),
        Some(Err(e)) => Err(fail(exit::FAILURE, &format!("cannot say when this process serves: {e}"))),
    }
}

/// The settings as Pingora takes them, when the process may become who it should be.
///
/// # Errors
/// What is in the way.
pub(super) fn may_start(config: &PingoraConfig) -> Result<ServerConf, String> {
    account::may_assume(config)?;
    config.server_conf().map_err(|e| format!("pingora: {e}"))
}

/// A setting that says nothing without a daemon, which the command line may make of it: so it is no mistake at `-t`.
fn warn_of_error_log(config: &PingoraConfig) {
    if !config.daemon && config.error_log.is_some() {
        log::warn!(
            "pingora.error_log: only a daemon (-d) writes there; this process says everything on standard error"
        );
    }
}

/// Everything that can be in the way of serving, had before anything is changed: the sockets, with `upgrade` those of
/// the running process among them, and the place where the next successor asks.
fn claim(plan: &Plan, upgrade: bool) -> Result<(Option<Predecessor>, Vec<Bound>, UpgradeSocket), String> {
    let path = &plan.pingora.upgrade_sock;
    let (predecessor, handed) = if upgrade {
        let (predecessor, handed) = upgrade::ask(path, plan.pingora.user.as_deref())?;
        (Some(predecessor), handed)
    } else {
        (None, Vec::new())
    };
    let bound = sockets::all(plan, handed)?;
    plan.pingora.make_directory()?;
    let socket = UpgradeSocket::bind(path)?;
    // Without the right to do it (a container may lack it) everything else still works.
    if let Some(Err(message)) = account::later_user(&plan.pingora).map(|user| socket.give_to(Uid::from_raw(user))) {
        log::warn!("upgrade_sock: {message}; if this process dies while it hands over, its successor will not know");
    }
    if predecessor.is_none() {
        socket.install()?;
    }
    Ok((predecessor, bound, socket))
}

/// Adds the gateway, the admin listener and the access log to `server`; answers how many of them must begin.
fn assemble(server: &mut Server, live: &Arc<Live>, plan: &Plan, bound: Vec<Bound>, started: &Started) -> u32 {
    let shared = &live.shared;
    let published = Arc::downgrade(live);
    let _ = shared.page.set(Box::new(move |path| admin::published(&*published.upgrade()?, path)));

    let gateway = Gateway::new(live.clone());
    let host: Arc<dyn Host> = Arc::new(gateway.clone());
    let direct: Arc<dyn DirectAnswers> = Arc::new(gateway.clone());
    let mut proxy = http_proxy(&server.configuration, gateway);
    proxy.server_options = Some(server_options());
    let _ = shared.tunnels.set(Tunnels::new(&server.configuration));
    let mut sockets = bound.into_iter().map(|(_, socket)| socket);
    let gauge = Some(shared.metrics.connections.open.clone());
    let apps = App::all(proxy, &plan.listeners, gauge, &host, Some(&direct));
    // After the access log, so that the first request has its line, and after the first look at backends.
    let mut gateway = Front::new("gateway", None, FIRST, started);
    let mut begin = FIRST + 1;
    for ((listener, app), socket) in plan.listeners.iter().zip(apps).zip(&mut sockets) {
        gateway.add(&listener.address, socket, buffers(listener), app);
    }
    server.add_service(gateway);
    if let (Some(listener), Some(socket)) = (&plan.admin, sockets.next()) {
        // After the gateway: whoever asks whether it is ready is answered when it is.
        let mut admin = Front::new("admin", Some(1), begin, started);
        let app = HttpServer::new_app(AdminApp::new(live, &listener.address));
        // Connections of its own: clients that use up theirs do not shut its users out.
        for (app, socket) in App::all(app, std::slice::from_ref(listener), None, &host, None).into_iter().zip([socket])
        {
            admin.add(&listener.address, socket, buffers(listener), app);
        }
        server.add_service(admin);
        begin += 1;
    }
    let keeper = LogKeeper { live: live.clone(), started: started.clone() };
    let mut keeper = background_service("access log", keeper);
    keeper.threads = Some(1);
    server.add_service(keeper);
    begin
}

/// `downstream` and the HTTP layer have buffers of their own, when they need them; with Pingora's 64 KiB an idle connection
/// costs 100 KB. The PROXY protocol is read byte by byte; answers of several streams of HTTP/2 are written together.
fn buffers(listener: &Listener) -> L4BufferSettings {
    let (read, write) = (listener.proxy_protocol, listener.tls.is_some() || listener.h2c);
    L4BufferSettings::new(if read { 256 } else { 0 }, if write { 1460 } else { 0 })
}

/// What Pingora's HTTP layer lets through.
fn server_options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // It is refused (`downstream/validate.rs`): by us, so that it is answered, logged and counted like everything else.
    options.allow_connect_method_proxying = true;
    options
}

/// One request's panic must not end the process; it must be seen, though.
fn count_panics(shared: &Arc<Shared>) {
    let metrics = shared.metrics.clone();
    std::panic::set_hook(Box::new(move |info| {
        metrics.process.panics.inc();
        log::error!("{}", with_trace(info, &Backtrace::capture()));
    }));
}

/// What a panic says, and with `RUST_BACKTRACE=1` by which way the program came there.
fn with_trace(info: &dyn Display, trace: &Backtrace) -> String {
    let captured = trace.status() == BacktraceStatus::Captured;
    if captured { format!("{info}\n{trace}") } else { info.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_its_way_when_that_is_wanted() {
        assert_eq!(with_trace(&"broken", &Backtrace::disabled()), "broken");
        let text = with_trace(&"broken", &Backtrace::force_capture());
        assert!(text.starts_with("broken\n") && text.contains("a_panic_tells_its_way"), "{text}");
    }
}
