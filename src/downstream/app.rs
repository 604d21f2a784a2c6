//! A listener: what happens to its connections until a request begins.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    protocols::{
        GetSocketDigest as _, Peek as _, Stream, UniqueID as _, http::ServerSession, l4::stream::Stream as L4Stream,
    },
    server::ShutdownWatch,
};
use prometheus::IntGauge;
use tokio::{
    io::AsyncWriteExt as _,
    sync::watch,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use super::{
    ConnectionInfo, Listener,
    connection::TlsFacts,
    connection_limits::{AddressPermit, ConnectionLimits},
    exchange::ExchangeWatch,
    h1::{self, Http1Session},
    head_reader::{BufferedRequest, Protocols, ReadOutcome},
    linger::linger,
    metrics,
    stream::{DownstreamStream, LeftOver},
    transport::Transport,
};
use crate::{
    auth::Certificate,
    downstream::host::{Host, Rejection},
    message::{
        chunked::RemainingRequest,
        framing::Body,
        replies,
        reply::{Reply, ReplyBody},
        reply_wire,
        request_id::RequestId,
    },
    tls::server::TlsFront,
};

/// Time for connections accepted last to send their request.
const LINGER: Duration = Duration::from_millis(1500);

/// Time for requests that the end of the process cuts.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The application of one listener, before `app` sees a request.
pub(crate) struct App<A> {
    app: Arc<A>,
    listener: Listener,
    /// Which one it is in the file.
    number: usize,
    host: Arc<dyn Host>,
    /// The host decides on its requests; the admin listener has an application that does so itself.
    decides: bool,
    connection_limits: Arc<ConnectionLimits>,
    closing: watch::Sender<bool>,
}

/// A connection that was encrypted.
type Encrypted = TlsStream<Box<L4Stream>>;

impl<A: HttpServerApp + Send + Sync + 'static> App<A> {
    /// An application for each of these listeners, with the limits of `host`, which hold for all of them together.
    /// `gauge` shows how many connections there are; without one, they are not those of the host's clients, and the
    /// application alone answers them.
    pub(crate) fn all(app: A, listeners: &[Listener], gauge: Option<IntGauge>, host: &Arc<dyn Host>) -> Vec<Self> {
        let decides = gauge.is_some();
        let (app, connection_limits) = (Arc::new(app), ConnectionLimits::new(gauge));
        let app = |(number, listener): (usize, &Listener)| Self {
            app: app.clone(),
            listener: listener.clone(),
            number,
            host: host.clone(),
            decides,
            connection_limits: connection_limits.clone(),
            closing: watch::Sender::new(false),
        };
        listeners.iter().enumerate().map(app).collect()
    }

    /// Lets a connection in: whose it is, whether there is room, what it speaks.
    async fn accept(self: &Arc<Self>, plain: Box<L4Stream>) -> Result<(), &'static str> {
        let digest = plain.get_socket_digest();
        let peer = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet().copied()).ok_or("gone")?;
        let listener = &self.listener;
        let (limits, trusted) = (self.host.limits(), self.host.trusts(peer.ip()));
        let _connection = self.connection_limits.permit(limits.connections).ok_or("connections")?;
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
        let _of_address = self.address_permit(peer, limits.connections_per_address)?;
        if let Some(tls) = &listener.tls {
            // Boxed: a connection without TLS must not carry the handshake's memory around.
            return Box::pin(self.encrypted(plain, peer, tls, limits.head.0)).await;
        }
        let protocols = if listener.h2c { Protocols::Either } else { Protocols::Http1 };
        self.serve(Box::new(DownstreamStream::new(plain, self.info(peer, None))), protocols, trusted).await;
        Ok(())
    }

    /// What is known of a connection from `peer`.
    fn info(&self, peer: SocketAddr, tls: Option<TlsFacts>) -> Arc<ConnectionInfo> {
        ConnectionInfo::new(peer, (self.number, self.listener.name.clone()), tls, self.host.cut_flag())
    }

    fn address_permit(&self, peer: SocketAddr, most: u32) -> Result<Option<AddressPermit>, &'static str> {
        if most == 0 {
            return Ok(None);
        }
        self.connection_limits.address_permit(peer.ip().to_canonical(), most).map(Some).ok_or("connections_per_address")
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
                let mut stream = DownstreamStream::new(plain, self.info(peer, None));
                Box::pin(self.refuse(&mut stream, replies::malformed("this port speaks TLS: use https"))).await;
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
                log::debug!("TLS handshake with {peer} at {}: {e}", self.listener.name);
                return Err(metrics::handshake_failure(&e));
            }
            Err(_) => return Err("tls_handshake_timeout"),
        };
        let agreed = &stream.get_ref().1;
        let shown = agreed.peer_certificates().and_then(|chain| chain.first());
        let facts = TlsFacts {
            version: agreed.protocol_version().and_then(|version| version.as_str()).unwrap_or_default(),
            sni: agreed.server_name().map(Into::into),
            certificate: shown.and_then(|leaf| Certificate::read(leaf)).map(Arc::new),
        };
        let h2 = agreed.alpn_protocol() == Some(b"h2");
        let protocols = if h2 { Protocols::Http2 } else { Protocols::Http1 };
        let stream = DownstreamStream::new(stream, self.info(peer, Some(facts)));
        self.serve(Box::new(stream), protocols, false).await;
        Ok(())
    }

    /// Serves request after request.
    async fn serve<T: Transport>(
        self: &Arc<Self>,
        stream: Box<DownstreamStream<T>>,
        protocols: Protocols,
        trusted: bool,
    ) {
        let (shutdown, mut closing) = (self.closing.subscribe(), self.closing.subscribe());
        // Both are made once for all requests of a connection: to enter a timer and a waiter anew for each costs more.
        tokio::pin! {
            let idle = tokio::time::sleep(Duration::ZERO);
            let leaving = closing.wait_for(|closing| *closing);
        }
        let info = stream.info().clone();
        let mut watch = ExchangeWatch::new(info.clone());
        let (mut stream, mut settings, mut protocols, mut served) = (stream, None, protocols, 0);
        loop {
            let (head, mut arrived) =
                match self.read_request(&mut stream, protocols, idle.as_mut(), leaving.as_mut()).await {
                    ReadOutcome::Head(head, arrived) => (head, arrived),
                    ReadOutcome::H2(bytes) => {
                        let preface = BufferedRequest { bytes, rest: RemainingRequest::Everything, next: Vec::new() };
                        // Nothing of it can be wrong.
                        let _ = stream.rewind(preface);
                        // Boxed: a connection that speaks HTTP/1 must not carry the memory of HTTP/2 around.
                        let (terms, cut) = (self.terms(trusted), self.host.cut());
                        return Box::pin(super::h2::serve(&self.app, stream, terms, &shutdown, cut)).await;
                    }
                    ReadOutcome::Refused(reply) => return Box::pin(self.refuse(&mut stream, *reply)).await,
                    ReadOutcome::Nobody => return,
                };
            info.serve_over(stream.id());
            protocols = Protocols::Http1;
            // Pingora's session, which knows tunnels, reads the head itself.
            let body = if head.upgrade { None } else { Some(arrived.bytes.split_off(head.length)) };
            let bytes = body.map(|body| std::mem::replace(&mut arrived.bytes, body));
            if let Err(reason) = stream.rewind(arrived) {
                return Box::pin(self.refuse(&mut stream, replies::malformed(reason))).await;
            }
            let session = match bytes.map(|bytes| h1::head::parse(bytes, head.fields)) {
                None => self.session(stream, settings.take(), served),
                Some(Some(mut request)) => {
                    info.begin(self.is_last(served) || !h1::outgoing::is_persistent(&request));
                    let decides = self.decides && head.body == Body::Length(0);
                    if decides && self.host.answer(&mut request, &info, &mut *stream).await {
                        served += 1;
                        if info.closes() {
                            return Box::pin(end(stream)).await;
                        }
                        if !stream.turn() {
                            return;
                        }
                        continue;
                    }
                    ServerSession::new_custom(Box::new(Http1Session::new(stream, request, head.body)))
                }
                Some(None) => {
                    let reply = replies::malformed("the head could not be read");
                    return Box::pin(self.refuse(&mut stream, reply)).await;
                }
            };
            served += 1;
            if let Some(reused) = watch.run(self.app.process_new_http(session, &shutdown)).await {
                let (handed_back, kept) = reused.consume();
                // The HTTP layer hands back what it was given.
                let Ok(same) = handed_back.into_any().downcast::<DownstreamStream<T>>() else { return };
                (stream, settings) = (same, kept);
            } else {
                let Some(left) = info.take_left_over() else { return };
                stream = match left.downcast::<DownstreamStream<T>>() {
                    Ok(same) => same,
                    Err(other) => {
                        let Ok(mut left) = other.downcast::<LeftOver<T>>() else { return };
                        if !left.serves_on {
                            // Boxed: its buffer would make every connection larger.
                            return Box::pin(linger(&mut left.inner)).await;
                        }
                        Box::new(left.resume(info.clone()))
                    }
                };
            }
            if !stream.turn() {
                return;
            }
        }
    }

    /// True for the last request of a connection that has `served` others.
    fn is_last(&self, served: u32) -> bool {
        let limit = self.host.limits().requests_per_connection;
        limit > 0 && served + 1 >= limit
    }

    /// What an HTTP/2 connection is granted; `trusted`: it comes from a proxy whose word is taken.
    fn terms(&self, trusted: bool) -> super::h2::Terms {
        let limits = self.host.limits();
        super::h2::Terms {
            options: super::h2::options(&limits),
            head: limits.head.0,
            stall: limits.stall.0,
            idle: limits.keepalive.0,
            requests: limits.requests_per_connection,
            trusted,
        }
    }

    /// Waits for a request, first for its beginning, then for the whole of its head.
    async fn read_request<T: Transport>(
        &self,
        stream: &mut DownstreamStream<T>,
        protocols: Protocols,
        mut idle: Pin<&mut Sleep>,
        leaving: Pin<&mut impl Future>,
    ) -> ReadOutcome {
        let limits = self.host.limits();
        idle.as_mut().reset(Instant::now() + limits.keepalive.0);
        let first = tokio::select! {
            // What has been sent is answered, whatever else has happened meanwhile.
            biased;
            first = std::future::poll_fn(|context| stream.poll_arrival(context)) => first,
            () = idle => return ReadOutcome::Nobody,
            _ = leaving => return ReadOutcome::Nobody,
        };
        match first {
            Ok(bytes) if !bytes.is_empty() => {
                let secure = stream.info().secure;
                super::head_reader::read(stream, bytes, &limits, protocols, secure).await
            }
            _ => ReadOutcome::Nobody,
        }
    }

    /// A session for the next request on a connection that has `served` others; `settings` come from the request before.
    fn session(&self, stream: Stream, settings: Option<HttpPersistentSettings>, served: u32) -> ServerSession {
        let mut session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        } else {
            let limit = self.host.limits().requests_per_connection;
            session.set_keepalive(Some(1));
            session.set_keepalive_reuses_remaining((limit > 0).then(|| (limit - 1).saturating_sub(served)));
        }
        session
    }

    /// Answers a head that never became a request, and closes. To be boxed: its buffer would make every connection larger.
    async fn refuse<T: Transport>(&self, stream: &mut DownstreamStream<T>, reply: Reply) {
        let (id, status) = (RequestId::fresh(), reply.status.as_u16());
        let detail = if let ReplyBody::Problem { detail, .. } = &reply.body { detail } else { "" };
        self.host.rejected(&Rejection { id: &id, client: stream.peer(), status, detail, reason: reply.reason });
        let Ok(answer) = reply_wire::plain(reply, &id) else { return };
        let deliver = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), deliver).await {
            linger(stream).await;
        }
    }
}

/// Ends a connection after its last answer. To be boxed.
async fn end<T: Transport>(mut stream: Box<DownstreamStream<T>>) {
    linger(&mut *stream).await;
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for App<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        // Listeners hand out plain TCP streams only.
        let plain = stream.into_any().downcast::<L4Stream>().ok()?;
        let app = self.clone();
        // In a task of its own: Pingora's carries 10 KB around, for handshakes that it might have had to make.
        tokio::spawn(async move {
            let mut cut = app.host.cut();
            let mut accepted = pin!(app.accept(plain));
            let ended = tokio::select! {
                biased;
                result = &mut accepted => Some(result),
                () = async { drop(cut.wait_for(|cut| *cut).await) } => None,
            };
            let result = match ended {
                Some(result) => result,
                // From here on reading fails: what is under way is answered and logged, if that does not take long.
                None => tokio::time::timeout(LAST_WORDS, accepted).await.unwrap_or(Ok(())),
            };
            if let Err(reason) = result {
                app.host.turned_away(reason);
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
