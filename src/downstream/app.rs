//! x

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    protocols::{
        GetSocketDigest as _, Peek as _, Stream,
        http::{ServerSession, v2::server::default_h2_options},
        l4::stream::Stream as L4Stream,
    },
    server::ShutdownWatch,
};
use prometheus::IntGauge;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use super::{
    Link, Listener,
    connection_limits::{Crowd, Ticket},
    head_reader::{Arrived, Knock, Speech},
    stream::{Transport, Wire},
};
use crate::{
    auth::Certificate,
    downstream::host::{Host, Rejection},
    message::{
        chunked::Rest,
        replies,
        reply::{Reply, ReplyBody},
        reply_wire,
        request_id::RequestId,
    },
    tls::server::TlsFront,
};

/// Time for connections accepted last to send their request.
const LINGER: Duration = Duration::from_millis(1500);

/// The application of one listener, before `app` sees a request.
pub(crate) struct Door<A> {
    app: Arc<A>,
    listener: Listener,
    /// Which one it is in the file.
    number: usize,
    host: Arc<dyn Host>,
    crowd: Arc<Crowd>,
    closing: watch::Sender<bool>,
}

/// A connection that was encrypted.
type Encrypted = TlsStream<Box<L4Stream>>;

impl<A: HttpServerApp + Send + Sync + 'static> Door<A> {
    /// A door to `app` for each of these listeners, with the limits of `host`, which hold for all of them together.
    /// `gauge` shows how many connections there are.
    pub(crate) fn all(app: A, listeners: &[Listener], gauge: Option<IntGauge>, host: &Arc<dyn Host>) -> Vec<Self> {
        let (app, crowd) = (Arc::new(app), Crowd::new(gauge));
        let door = |(number, listener): (usize, &Listener)| Self {
            app: app.clone(),
            listener: listener.clone(),
            number,
            host: host.clone(),
            crowd: crowd.clone(),
            closing: watch::Sender::new(false),
        };
        listeners.iter().enumerate().map(door).collect()
    }

    /// Lets a connection in: whose it is, whether there is room, what it speaks.
    async fn admit(self: &Arc<Self>, plain: Box<L4Stream>) -> Result<(), &'static str> {
        let digest = plain.get_socket_digest();
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet().copied()).ok_or("gone")?;
        let listener = &self.listener;
        let (limits, trusted) = (self.host.limits(), self.host.trusts(peer.ip()));
        let _seat = self.crowd.seat(limits.connections).ok_or("connections")?;
        let mut plain = plain;
        let peer = if listener.proxy_protocol && trusted {
            let told = tokio::time::timeout(limits.head.0, super::proxy_protocol::read(&mut plain)).await;
            let told = told.map_err(|_| "proxy_protocol")?.map_err(|reason| {
                log::debug!("PROXY protocol from {peer}: {reason}");
                "proxy_protocol"
            })?;
            told.unwrap_or(peer)
        } else {
            peer
        };
        let _ticket = self.ticket(peer, limits.connections_per_address)?;
        if let Some(tls) = &listener.tls {
            // Boxed: a connection without TLS must not carry the handshake's memory around.
            return Box::pin(self.encrypted(plain, peer, tls, limits.head.0)).await;
        }
        let speech = if listener.h2c { Speech::Either } else { Speech::Http1 };
        self.attend(Box::new(Wire::new(plain, Link::new(peer, self.number, false, None))), speech, trusted).await;
        Ok(())
    }

    fn ticket(&self, peer: SocketAddr, most: u32) -> Result<Option<Ticket>, &'static str> {
        if most == 0 {
            return Ok(None);
        }
        self.crowd.ticket(peer.ip().to_canonical(), most).map(Some).ok_or("connections_per_address")
    }

    /// Makes a handshake, and goes on with what was agreed.
    async fn encrypted(
        self: &Arc<Self>,
        plain: Box<L4Stream>,
        peer: SocketAddr,
        tls: &TlsFront,
        limit: Duration,
    ) -> Result<(), &'static str> {
        let (mut plain, mut first) = (plain, [0]);
        match tokio::time::timeout(limit, plain.try_peek(&mut first)).await {
            // Somebody has typed http:// for https://.
            Ok(Ok(_)) if first[0].is_ascii_alphabetic() => {
                let mut wire = Wire::new(plain, Link::new(peer, self.number, false, None));
                Box::pin(self.refuse(&mut wire, replies::malformed("this port speaks TLS: use https"))).await;
                return Err("tls_handshake");
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("tls_handshake"),
            Err(_) => return Err("tls_handshake_timeout"),
        }
        let handshake = tls.acceptor().accept(plain);
        let stream: Box<Encrypted> = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(e)) => {
                log::debug!("TLS handshake with {peer}: {e}");
                return Err("tls_handshake");
            }
            Err(_) => return Err("tls_handshake_timeout"),
        };
        let agreed = &stream.get_ref().1;
        let shown = agreed.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.and_then(|leaf| Certificate::read(leaf)).map(Arc::new);
        let h2 = agreed.alpn_protocol() == Some(b"h2");
        let speech = if h2 { Speech::Http2 } else { Speech::Http1 };
        let wire = Wire::new(stream, Link::new(peer, self.number, true, certificate));
        self.attend(Box::new(wire), speech, false).await;
        Ok(())
    }

    /// Serves request after request.
    async fn attend<T: Transport>(self: &Arc<Self>, wire: Box<Wire<T>>, speech: Speech, trusted: bool) {
        let (shutdown, mut closing) = (self.closing.subscribe(), self.closing.subscribe());
        // Both are made once for all requests of a connection: to enter a timer and a waiter anew for each costs more.
        tokio::pin! {
            let idle = tokio::time::sleep(Duration::ZERO);
            let leaving = closing.wait_for(|closing| *closing);
        }
        let (mut wire, mut settings, mut speech) = (wire, None, speech);
        loop {
            match self.knock(&mut wire, speech, idle.as_mut(), leaving.as_mut()).await {
                Knock::Head(arrived) => wire.rewind(arrived),
                Knock::H2(bytes) => {
                    wire.rewind(Arrived { bytes, rest: Rest::Everything, next: Vec::new() });
                    // Boxed: a connection that speaks HTTP/1 must not carry the memory of HTTP/2 around.
                    return Box::pin(super::h2::serve(&self.app, wire, self.terms(trusted), &shutdown)).await;
                }
                Knock::Refused(reply) => return Box::pin(self.refuse(&mut wire, *reply)).await,
                Knock::Nobody => return,
            }
            let session = self.session(wire, settings);
            let Some(reused) = self.app.process_new_http(session, &shutdown).await else { return };
            let (stream, kept) = reused.consume();
            // The HTTP layer hands back what it was given.
            let Ok(same) = stream.into_any().downcast::<Wire<T>>() else { return };
            (wire, settings, speech) = (same, kept, Speech::Http1);
            wire.turn();
        }
    }

    /// What an HTTP/2 connection is granted; `trusted`: it comes from a proxy whose word is taken.
    fn terms(&self, trusted: bool) -> super::h2::Terms {
        let limits = self.host.limits();
        let options = self.app.h2_options().unwrap_or_else(default_h2_options);
        super::h2::Terms { options, head: limits.head.0, stall: limits.stall.0, idle: limits.keepalive.0, trusted }
    }

    /// Waits for a request, first for its beginning, then for the whole of its head.
    async fn knock<T: Transport>(
        &self,
        wire: &mut Wire<T>,
        speech: Speech,
        mut idle: Pin<&mut Sleep>,
        leaving: Pin<&mut impl Future>,
    ) -> Knock {
        let limits = self.host.limits();
        idle.as_mut().reset(Instant::now() + limits.keepalive.0);
        let first = tokio::select! {
            // What has been sent is answered, whatever else has happened meanwhile.
            biased;
            first = std::future::poll_fn(|context| wire.poll_arrival(context)) => first,
            () = idle => return Knock::Nobody,
            _ = leaving => return Knock::Nobody,
        };
        match first {
            Ok(bytes) if !bytes.is_empty() => {
                let secure = wire.link().secure;
                super::head_reader::read(wire, bytes, &limits, speech, secure).await
            }
            _ => Knock::Nobody,
        }
    }

    /// A session for the next request on a connection; `settings` come from the request before.
    fn session(&self, stream: Stream, settings: Option<HttpPersistentSettings>) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        } else {
            let limit = self.host.limits().requests_per_connection;
            session.set_keepalive(Some(1));
            session.set_keepalive_reuses_remaining((limit > 0).then(|| limit - 1));
        }
        session
    }

    /// Answers a head that never became a request, and closes. To be boxed: its buffer would make every connection larger.
    async fn refuse<T: Transport>(&self, wire: &mut Wire<T>, reply: Reply) {
        let (id, status) = (RequestId::fresh(), reply.status.as_u16());
        let reason = if let ReplyBody::Problem { detail, .. } = &reply.body { detail } else { "" };
        self.host.rejected(&Rejection { id: &id, client: wire.peer(), status, reason });
        let Ok(answer) = reply_wire::plain(reply, &id) else { return };
        let deliver = async {
            if wire.write_all(&answer).await.is_ok() && wire.flush().await.is_ok() {
                let _ = wire.shutdown().await;
                // Closing over unread bytes resets the connection, and the answer may be lost with it.
                let mut rest = [0; 4096];
                for _ in 0..64 {
                    if !matches!(wire.read(&mut rest).await, Ok(1..)) {
                        break;
                    }
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), deliver).await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        // Listeners hand out plain TCP streams only.
        let plain = stream.into_any().downcast::<L4Stream>().ok()?;
        let door = self.clone();
        // In a task of its own: Pingora's carries 10 KB around, for handshakes that it might have had to make.
        tokio::spawn(async move {
            if let Err(reason) = door.admit(plain).await {
                door.host.turned_away(reason);
            }
        });
        None
    }

    async fn cleanup(&self) {
        tokio::time::sleep(LINGER).await;
        self.closing.send_replace(true);
        self.app.http_cleanup().await;
    }
}
