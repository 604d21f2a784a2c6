//! `tollgate demo`: three small backends and the gateway in front of them, in one process, with nothing installed. And
//! `--tour`, which tries it out by itself.

mod backends;
mod client;
mod page;
mod ports;
mod tour;

use std::{
    io::{self, Write as _},
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
};

use async_trait::async_trait;
use clap::Args;
use parking_lot::Mutex;
use pingora::{
    server::ShutdownWatch,
    services::background::{BackgroundService, background_service},
};

use self::{
    backends::Backends,
    ports::{GATEWAY, Ports},
};
use super::{exit, opening::Opening, output::print, serve};
use crate::{config, filter::Registry, runtime::Shared, server::failure::fail};

/// The options of `tollgate demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The gateway's port; 0 is any free one. Default: 8080, and a free one for the tour. The admin pages are at 9090, or at
    /// the port after the one that is named.
    #[arg(long)]
    port: Option<u16>,
    /// Write the access log to standard output.
    #[arg(long)]
    access_log: bool,
    /// Print the configuration, and run nothing.
    #[arg(long, conflicts_with = "tour")]
    print: bool,
    /// Make load, kill a backend, bring it back, upgrade the gateway, and print the counts; 0 if no request failed.
    #[arg(long)]
    tour: bool,
}

/// The backends as a part of the gateway's process.
struct Running {
    parts: Mutex<Option<(Arc<Backends>, [TcpListener; 3])>>,
    /// What is said when it serves.
    page: String,
}

#[async_trait]
impl BackgroundService for Running {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some((backends, sockets)) = self.parts.lock().take() else { return };
        let _ = io::stderr().lock().write_all(self.page.as_bytes());
        tokio::select! {
            ended = backends.serve_all(sockets) => {
                if let Err(e) = ended {
                    log::error!("the demo's backends: {e}");
                }
            }
            _ = shutdown.changed() => {}
        }
    }
}

/// Runs the demo, or the tour, or prints the file.
pub(super) fn run(args: &DemoArgs, registry: &Registry) -> ExitCode {
    let port = args.port.unwrap_or(if args.tour { 0 } else { GATEWAY });
    if args.print {
        return match Ports::of(port) {
            Ok(ports) => print(&ports.yaml(args.access_log)),
            Err(e) => fail(exit::FAILURE, &format!("the demo finds no free port: {e}")),
        };
    }
    let (ports, sockets) = match Ports::with_backends(port) {
        Ok(found) => found,
        Err(message) => return fail(exit::FAILURE, &message),
    };
    if args.tour {
        return tour::run(ports, sockets, args.access_log);
    }
    let shared = Shared::new();
    let loaded = match config::load("demo", &ports.yaml(args.access_log), registry, &shared) {
        Ok(loaded) => loaded,
        Err(rejected) => return fail(exit::CONFIG, &rejected.to_string()),
    };
    loaded.plan.log.install();
    let running =
        Running { parts: Mutex::new(Some((Arc::new(Backends::new(ports)), sockets))), page: page::text(ports) };
    serve::serve(loaded, shared, false, false, Opening::new(None), |server| {
        let mut service = background_service("demo backends", running);
        service.threads = Some(1);
        server.add_service(service);
    })
}
