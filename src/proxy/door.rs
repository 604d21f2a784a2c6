//! The door between a listener and Pingora's HTTP layer: it sees connections before any request does.
//!
//! Why there is one. First, Pingora drops connections that wait for their first request as soon as the service shuts
//! down; one that was accepted a moment earlier has such a request on the wire, and its client sees a reset. That is
//! the request which stock upgrades lose. The door tells the HTTP layer a little later, when whoever had
//! connected has asked. Second, Pingora keeps the whole machinery of a request while a connection idles: some 45 KB.
//! The door waits for the head by itself, and starts that machinery only then. Third, the head is read strictly and
//! within one time limit for all of it (`strict.rs`), where Pingora has neither.
//! What it does not do yet: TLS and HTTP/2 to clients.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp as _, ServerApp},
    protocols::{Stream, http::ServerSession, l4::stream::Stream as L4Stream},
    proxy::HttpProxy,
    server::ShutdownWatch,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

use super::{
    gateway::Gateway,
    head::HeadLimits,
    respond,
    runtime::{Runtime, Shared},
    strict,
};
use crate::{filter::Reply, telemetry::MethodClass};

/// Time for connections accepted last to send their request.
const LINGER: Duration = Duration::from_millis(1500);

/// A listener's application.
pub struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
    runtime: Arc<ArcSwap<Runtime>>,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
}

/// What came of waiting for a request.
enum Knock {
    /// A head, with whatever came along with it.
    Head(Vec<u8>),
    /// A head that is refused.
    Refused(Reply),
    /// The connection ended, was silent for too long, or this process leaves.
    Nobody,
}

impl Door {
    /// A door to `proxy`, with the limits of `runtime`.
    pub fn new(proxy: HttpProxy<Gateway>, runtime: Arc<ArcSwap<Runtime>>, shared: Arc<Shared>) -> Self {
        Self { proxy: Arc::new(proxy), runtime, shared, closing: watch::Sender::new(false) }
    }

    /// Waits for a request, first for its beginning, then for the whole of its head.
    async fn knock(&self, stream: &mut L4Stream) -> Knock {
        let limits = self.runtime.load().limits;
        let mut closing = self.closing.subscribe();
        // One byte on the stack: nothing is allocated for a connection that idles.
        let mut first = [0];
        tokio::select! {
            // What has been sent is answered, whatever else has happened meanwhile.
            biased;
            read = stream.read(&mut first) => if !matches!(read, Ok(1)) { return Knock::Nobody },
            () = tokio::time::sleep(limits.keepalive.0) => return Knock::Nobody,
            _ = closing.wait_for(|closing| *closing) => return Knock::Nobody,
        }
        let head = read_head(stream, first[0], &limits);
        match tokio::time::timeout(limits.head.0, head).await {
            Ok(knock) => knock,
            Err(_) => Knock::Refused(respond::too_slow()),
        }
    }

    /// A session for the next request on a connection; `settings` come from the request before.
    fn session(&self, stream: Stream, settings: Option<HttpPersistentSettings>) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        } else {
            let limit = self.runtime.load().limits.requests_per_connection;
            session.set_keepalive(Some(1));
            session.set_keepalive_reuses_remaining((limit > 0).then(|| limit - 1));
        }
        session
    }

    /// Answers a head that never became a request, and closes.
    async fn refuse(&self, stream: &mut L4Stream, reply: Reply) {
        self.shared.metrics.unrouted(MethodClass::of(""), reply.status.as_u16(), Duration::ZERO);
        let Ok(answer) = respond::plain(reply) else { return };
        let deliver = async {
            if stream.write_all(&answer).await.is_ok() && stream.flush().await.is_ok() {
                let _ = stream.shutdown().await;
                // Closing over unread bytes resets the connection, and the answer may be lost with it.
                let mut rest = [0; 4096];
                for _ in 0..64 {
                    if !matches!(stream.read(&mut rest).await, Ok(1..)) {
                        break;
                    }
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), deliver).await;
    }
}

/// Reads on from the `first` byte until the head is complete.
async fn read_head(stream: &mut L4Stream, first: u8, limits: &HeadLimits) -> Knock {
    let most = usize::try_from(limits.uri.0 + limits.header_size.0).unwrap_or(usize::MAX).saturating_add(1024);
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(first);
    let mut searched = 0;
    loop {
        if let Some(length) = strict::head_length(&bytes, searched) {
            // More fields than Pingora would parse: it would answer them with an empty 400.
            let lines = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            return match strict::verify(&bytes[..length]) {
                Ok(()) if lines > limits.headers + 4 => Knock::Refused(respond::too_large(false)),
                // Pingora would answer it with an empty 405.
                Ok(()) if bytes.trim_ascii_start().starts_with(b"CONNECT ") => Knock::Refused(respond::no_tunnels()),
                Ok(()) => Knock::Head(bytes),
                Err(reason) => Knock::Refused(respond::malformed(reason)),
            };
        }
        if bytes.len() > most {
            return Knock::Refused(respond::too_large(!bytes.contains(&b'\n')));
        }
        searched = bytes.len();
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return Knock::Nobody;
        }
    }
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let shutdown = self.closing.subscribe();
        let (mut stream, mut settings) = (stream, None);
        loop {
            // Listeners hand out plain TCP streams only, and the HTTP layer hands back what it was given.
            let mut plain = stream.into_any().downcast::<L4Stream>().ok()?;
            match self.knock(&mut plain).await {
                Knock::Head(bytes) => plain.rewind(&bytes),
                Knock::Refused(reply) => {
                    self.refuse(&mut plain, reply).await;
                    return None;
                }
                Knock::Nobody => return None,
            }
            let session = self.session(plain, settings);
            (stream, settings) = self.proxy.process_new_http(session, &shutdown).await?.consume();
        }
    }

    async fn cleanup(&self) {
        tokio::time::sleep(LINGER).await;
        self.closing.send_replace(true);
        self.proxy.cleanup().await;
    }
}
