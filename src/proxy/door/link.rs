//! What is known of a client's connection, for the hooks of its requests. Pingora hands hooks a session and nothing of
//! ours; the one place that comes along is the digest's user data.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use pingora::{http::ResponseHeader, protocols::raw_connect::ProxyDigest, proxy::Session};

use crate::{auth::Certificate, proxy::client};

/// Facts of one connection.
#[derive(Debug)]
pub struct Link {
    /// The other end; what the PROXY protocol says, when its sender is trusted.
    pub peer: SocketAddr,
    /// Which listener of the file accepted it.
    pub listener: usize,
    /// The connection is encrypted.
    pub secure: bool,
    /// The certificate that the client showed, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// Its address, as backends are told it.
    text: OnceLock<HeaderValue>,
    /// Milliseconds of silence after which a connection that has been upgraded ends; 0: it has not been.
    silence: AtomicU64,
    /// Milliseconds from `born` until the answer that is under way must have ended; 0: it may take its time.
    deadline: AtomicU64,
    born: Instant,
    /// It had not ended, or there was silence for too long.
    late: AtomicBool,
    /// Why a body on this connection cannot be read in one way only.
    misread: OnceLock<&'static str>,
}

impl Link {
    pub(super) fn new(
        peer: SocketAddr,
        listener: usize,
        secure: bool,
        certificate: Option<Arc<Certificate>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            listener,
            secure,
            certificate,
            text: OnceLock::new(),
            silence: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            born: Instant::now(),
            late: AtomicBool::new(false),
            misread: OnceLock::new(),
        })
    }

    /// The link of a session that came through the door.
    pub(in crate::proxy) fn of(session: &Session) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The address at the other end.
    pub(in crate::proxy) fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The same as a field's value.
    pub(in crate::proxy) fn address_text(&self) -> HeaderValue {
        self.text.get_or_init(|| client::text(self.address().to_canonical())).clone()
    }

    /// From now on the connection is a tunnel, which ends when both directions have been silent for this long.
    pub(in crate::proxy) fn limit_silence(&self, silence: Duration) {
        let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        self.silence.store(millis.max(1), Ordering::Relaxed);
    }

    /// The answer that is under way must have ended by then, even if its backend has fallen silent.
    pub(in crate::proxy) fn end_by(&self, deadline: Instant) {
        let millis = u64::try_from(deadline.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        self.deadline.store(millis.max(1), Ordering::Relaxed);
    }

    /// The answer has ended.
    pub(super) fn ended(&self) {
        self.deadline.store(0, Ordering::Relaxed);
    }

    /// When the answer must have ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Relaxed) {
            0 => None,
            millis => self.born.checked_add(Duration::from_millis(millis)),
        }
    }

    /// The deadline, or the longest silence, has passed.
    pub(super) fn expire(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    /// True when the connection ends because something took too long.
    pub(in crate::proxy) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
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
