//! Pingora's listening services over sockets that are bound already, one service per socket, so that every connection
//! comes with the settings of the listener that accepted it; and one set of threads for all of them.

use std::{future::Future, net::TcpListener, os::fd::IntoRawFd as _, pin::Pin, sync::Arc, task::Poll};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::{
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig, Listeners},
    server::{Fds, ListenFds, ShutdownWatch},
    services::{Service, listening},
};
use tokio::sync::watch;

/// How many of what serves have begun: the access log, then the fronts.
pub(super) type Started = watch::Sender<u32>;

/// Several listeners with an application each.
pub(super) struct Front<A> {
    name: &'static str,
    threads: Option<usize>,
    listeners: Vec<listening::Service<A>>,
    sockets: Vec<(String, TcpListener)>,
    /// How many come before this one.
    after: u32,
    started: Started,
}

impl<A: ServerApp + Send + Sync + 'static> Front<A> {
    /// A front that begins when `after` others have, with so many threads, or as many as the engine has.
    pub(super) fn new(name: &'static str, threads: Option<usize>, after: u32, started: &Started) -> Self {
        Self { name, threads, listeners: Vec::new(), sockets: Vec::new(), after, started: started.clone() }
    }

    /// Connections to `socket`, which is bound to `address`, go to `app`.
    pub(super) fn add(&mut self, address: &str, socket: TcpListener, buffers: L4BufferSettings, app: A) {
        let mut listeners = Listeners::new();
        listeners.add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
        self.listeners.push(listening::Service::with_listeners(self.name.to_owned(), listeners, app));
        self.sockets.push((address.to_owned(), socket));
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Front<A> {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, tasks: usize) {
        let after = self.after;
        let _ = self.started.subscribe().wait_for(|count| *count >= after).await;
        // The table that Pingora takes sockets from after an upgrade: it binds what it does not find there.
        let mut table = Fds::new();
        for (address, socket) in self.sockets.drain(..) {
            table.add(address, socket.into_raw_fd());
        }
        let table = Arc::new(Mutex::new(table));
        let mut running: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        for listener in &mut self.listeners {
            running.push(listener.start_service(Some(table.clone()), shutdown.clone(), tasks));
        }
        let (started, mut first) = (&self.started, true);
        std::future::poll_fn(|context| {
            running.retain_mut(|listener| listener.as_mut().poll(context).is_pending());
            // The first step of a listener goes as far as accepting.
            if std::mem::take(&mut first) && !running.is_empty() {
                started.send_modify(|count| *count += 1);
            }
            if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }
}
