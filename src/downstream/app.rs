//! A listener: what happens to its connections until a request begins.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, ServerApp},
    protocols::{GetSocketDigest as _, Peek as _, Stream, l4::stream::Stream as L4Stream},
    server::ShutdownWatch,
};
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

use super::{
    ConnectionInfo, Listener,
    connection::TlsFacts,
    connection_limits::{AddressPermit, ConnectionLimits},
    head_reader::Protocols,
    metrics,
    requests::Requests,
    stream::DownstreamStream,
};
use crate::{
    auth::Certificate,
    clock::Now,
    downstream::{
        deadlines::Lateness,
        host::{DirectAnswers, Host},
    },
    message::replies,
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
    direct: Option<Arc<dyn DirectAnswers>>,
    connection_limits: Arc<ConnectionLimits>,
    closing: watch::Sender<bool>,
}

/// A connection that was encrypted.
type Encrypted = TlsStream<Box<L4Stream>>;

impl<A: HttpServerApp + Send + Sync + 'static> App<A> {
    /// An application for each of these listeners, with the limits of `host`, which hold for all of them together.
    /// `gauge` shows how many connections there are; `direct` may answer before `app` is asked.
    pub(crate) fn all(
        app: A,
        listeners: &[Listener],
        gauge: Option<IntGauge>,
        host: &Arc<dyn Host>,
        direct: Option<&Arc<dyn DirectAnswers>>,
    ) -> Vec<Self> {
        let (app, connection_limits) = (Arc::new(app), ConnectionLimits::new(gauge));
        let app = |(number, listener): (usize, &Listener)| Self {
            app: app.clone(),
            listener: listener.clone(),
            number,
            host: host.clone(),
            direct: direct.cloned(),
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
        let stream = Box::new(DownstreamStream::new(plain, self.info(peer, None)));
        self.requests().serve(stream, protocols, trusted).await;
        Ok(())
    }

    fn requests(&self) -> Requests<'_, A> {
        Requests { app: &self.app, host: &*self.host, direct: self.direct.as_deref(), closing: &self.closing }
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
                let reply = replies::malformed("this port speaks TLS: use https");
                Box::pin(self.requests().refuse(&mut stream, reply)).await;
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
        let end = facts.certificate.as_ref().map(|certificate| certificate.not_after);
        let stream = Box::new(DownstreamStream::new(stream, self.info(peer, Some(facts))));
        match end {
            None => self.requests().serve(stream, protocols, false).await,
            Some(end) => self.serve_until(end, stream, protocols).await,
        }
        Ok(())
    }

    /// Serves a connection that is closed, as all are when the process ends, once its client's certificate is over: after the request
    /// that is under way, a tunnel at once. `end` in seconds since 1970.
    async fn serve_until(&self, end: u64, stream: Box<DownstreamStream<Box<Encrypted>>>, protocols: Protocols) {
        let (closing, mut all_close) = (watch::Sender::new(false), self.closing.subscribe());
        let info = stream.info().clone();
        let valid = Duration::from_secs(end.saturating_add(1)).saturating_sub(Now::calendar());
        let requests = Requests { closing: &closing, ..self.requests() };
        let (mut served, mut over) = (pin!(requests.serve(stream, protocols, false)), pin!(tokio::time::sleep(valid)));
        let leaving = tokio::select! {
            () = &mut served => return,
            () = &mut over => false,
            _ = all_close.wait_for(|closing| *closing) => true,
        };
        closing.send_replace(true);
        if leaving {
            tokio::select! {
                () = &mut served => return,
                () = over => {}
            }
        }
        info.end_tunnel();
        tokio::select! {
            () = &mut served => return,
            () = tokio::time::sleep(LAST_WORDS) => {}
        }
        // Nobody looks at a tunnel whose other end takes nothing.
        if info.is_cut() {
            info.deadlines.expire(Lateness::Silence);
            return;
        }
        served.await;
    }
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
