//! What is known of a client's connection, for the hooks of its requests. Pingora hands hooks a session and nothing of
//! ours; the one place that comes along is the digest's user data.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pingora::{http::ResponseHeader, protocols::raw_connect::ProxyDigest, proxy::Session};

use crate::auth::Certificate;

/// Facts of one connection.
#[derive(Debug)]
pub struct Link {
    /// The other end; what the PROXY protocol says, when its sender is trusted.
    pub peer: SocketAddr,
    /// The connection is encrypted.
    pub secure: bool,
    /// The certificate that the client showed, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// Milliseconds of silence after which a connection that has been upgraded ends; 0: it has not been.
    silence: AtomicU64,
    /// Why a body on this connection cannot be read in one way only.
    misread: OnceLock<&'static str>,
}

impl Link {
    pub(super) fn new(peer: SocketAddr, secure: bool, certificate: Option<Arc<Certificate>>) -> Arc<Self> {
        Arc::new(Self { peer, secure, certificate, silence: AtomicU64::new(0), misread: OnceLock::new() })
    }

    /// The link of a session that came through the door.
    pub(in crate::proxy) fn of(session: &Session) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The address at the other end.
    pub(in crate::proxy) fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// From now on the connection is a tunnel, which ends when both directions have been silent for this long.
    pub(in crate::proxy) fn limit_silence(&self, silence: Duration) {
        let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        self.silence.store(millis.max(1), Ordering::Relaxed);
    }

    /// A body on this connection is malformed: nothing after it can be trusted.
    pub(super) fn misread(&self, reason: &'static str) {
        let _ = self.misread.set(reason);
    }

    /// What is wrong with the body that was read last.
    pub(in crate::proxy) fn fault(&self) -> Option<&'static str> {
        self.misread.get().copied()
    }

    /// The connection is an ordinary one.
    pub(in crate::proxy) fn allow_silence(&self) {
        self.silence.store(0, Ordering::Relaxed);
    }

    /// The longest silence, when there is one.
    pub(super) fn silence(&self) -> Option<Duration> {
        match self.silence.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// This as Pingora carries it around. The response is a form to fill in: nothing reads it.
    pub(super) fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let form = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(form), Some(Box::new(self.clone())))))
    }
}
