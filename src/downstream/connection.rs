//! What is known of a client's connection, for the hooks of its requests. Pingora hands hooks a session and nothing of
//! ours; the one place that comes along is the digest's user data.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::HeaderValue;
use pingora::{http::ResponseHeader, protocols::raw_connect::ProxyDigest, proxy::Session};

use super::deadlines::StreamDeadlines;
use crate::{auth::Certificate, message::forwarded};

/// Facts of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
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
    /// What bounds the waiting of the request that is under way.
    pub(crate) patience: StreamDeadlines,
    /// Why a message on this connection cannot be read in one way only.
    misread: OnceLock<&'static str>,
    /// The end of an answer's body, when trailers follow it.
    before_trailers: OnceLock<Bytes>,
    /// It has been turned over to another protocol.
    switched: AtomicBool,
}

impl ConnectionInfo {
    pub(crate) fn new(
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
            patience: StreamDeadlines::default(),
            misread: OnceLock::new(),
            before_trailers: OnceLock::new(),
            switched: AtomicBool::new(false),
        })
    }

    /// The link of a session that came through the door.
    pub(crate) fn of(session: &Session) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The address at the other end.
    pub(crate) fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The same as a field's value.
    pub(crate) fn address_text(&self) -> HeaderValue {
        self.text.get_or_init(|| forwarded::text(self.address().to_canonical())).clone()
    }

    /// A message on this connection is malformed: nothing after it can be trusted.
    pub(crate) fn misread(&self, reason: &'static str) {
        let _ = self.misread.set(reason);
    }

    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.misread.get().copied()
    }

    /// The end of an answer's body that is to be written before its trailers: Pingora hands on either.
    pub(crate) fn leave_for_trailers(&self, end: Bytes) {
        let _ = self.before_trailers.set(end);
    }

    /// What is to be written before the trailers.
    pub(crate) fn left_for_trailers(&self) -> Option<Bytes> {
        self.before_trailers.get().cloned()
    }

    /// The backend agrees to another protocol: what the client sends from now on is not a request.
    pub(crate) fn switch_protocols(&self) {
        self.switched.store(true, Relaxed);
    }

    /// True when another protocol is spoken on it.
    pub(crate) fn has_switched(&self) -> bool {
        self.switched.load(Relaxed)
    }

    /// A link for one of several streams on the connection, with limits of its own.
    pub(crate) fn of_stream(&self) -> Arc<Self> {
        Arc::new(Self {
            peer: self.peer,
            listener: self.listener,
            secure: self.secure,
            certificate: self.certificate.clone(),
            // Written out once for all streams.
            text: OnceLock::from(self.address_text()),
            patience: StreamDeadlines::default(),
            misread: OnceLock::new(),
            before_trailers: OnceLock::new(),
            switched: AtomicBool::new(false),
        })
    }

    /// This as Pingora carries it around. The response is a form to fill in: nothing reads it.
    pub(crate) fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let form = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(form), Some(Box::new(self.clone())))))
    }
}
