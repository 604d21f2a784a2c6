//! The door between a listener and Pingora's HTTP layer: it sees connections before any request does.
//!
//! Why there is one. First, Pingora drops connections that wait for their first request as soon as the service shuts
//! down; one that was accepted a moment earlier has such a request on the wire, and its client sees a reset. That is
//! the request which stock upgrades lose. The door tells the HTTP layer a little later, when whoever had
//! connected has asked. Second, Pingora keeps the whole machinery of a request while a connection idles: some 45 KB.
//! The door waits for the first byte by itself, and starts that machinery only then.
//! What it does not do yet: TLS and HTTP/2 to clients.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp as _, ServerApp},
    protocols::{Stream, http::ServerSession},
    proxy::HttpProxy,
    server::ShutdownWatch,
};
use tokio::sync::watch;

use super::{gateway::Gateway, runtime::Runtime};

/// Time for connections accepted last to send their request.
const LINGER: Duration = Duration::from_millis(1500);

/// A listener's application.
pub struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
    runtime: Arc<ArcSwap<Runtime>>,
    closing: watch::Sender<bool>,
}

impl Door {
    /// A door to `proxy`, with the limits of `runtime`.
    pub fn new(proxy: HttpProxy<Gateway>, runtime: Arc<ArcSwap<Runtime>>) -> Self {
        Self { proxy: Arc::new(proxy), runtime, closing: watch::Sender::new(false) }
    }

    /// Waits for the first byte of a request. False when the connection ended, was silent for too long, or this process
    /// leaves.
    async fn knocks(&self, stream: &mut Stream) -> bool {
        let patience = self.runtime.load().limits.keepalive.0;
        let mut closing = self.closing.subscribe();
        let mut byte = [0];
        tokio::select! {
            // What has been sent is answered, whatever else has happened meanwhile.
            biased;
            // One byte: it comes with the rest into the stream's buffer and is put back there, without a system call
            // more. A stream that cannot do that says `false`, and waits inside the HTTP layer as it always did.
            peeked = stream.try_peek(&mut byte) => peeked.is_ok(),
            () = tokio::time::sleep(patience) => false,
            _ = closing.wait_for(|closing| *closing) => false,
        }
    }

    /// A session for the next request on a connection; `settings` come from the request before.
    fn session(&self, stream: Stream, settings: Option<HttpPersistentSettings>) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                let limit = self.runtime.load().limits.requests_per_connection;
                session.set_keepalive(Some(1));
                session.set_keepalive_reuses_remaining((limit > 0).then(|| limit - 1));
            }
        }
        session
    }
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let mut settings = None;
        while self.knocks(&mut stream).await {
            let session = self.session(stream, settings);
            (stream, settings) = self.proxy.process_new_http(session, shutdown).await?.consume();
        }
        None
    }

    async fn cleanup(&self) {
        tokio::time::sleep(LINGER).await;
        self.closing.send_replace(true);
        self.proxy.cleanup().await;
    }
}
