//! What is known of a client's connection, for the hooks of its requests. Pingora hands hooks a session and nothing of
//! ours; the one place that comes along is the digest's user data.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora::{
    http::ResponseHeader,
    protocols::{http::ServerSession, raw_connect::ProxyDigest},
};

use super::{SharedBody, deadlines::StreamDeadlines, hangup};
use crate::{auth::Certificate, message::forwarded};

/// Facts of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    /// The other end; what the PROXY protocol says, when its sender is trusted.
    pub peer: SocketAddr,
    /// Which listener of the file accepted it.
    pub listener: usize,
    /// What that one is called: its name, or its address.
    pub listener_name: Arc<str>,
    /// The connection is encrypted.
    pub secure: bool,
    /// What was agreed on when it was.
    pub tls: Option<Arc<TlsFacts>>,
    /// Its address, as backends are told it.
    text: OnceLock<HeaderValue>,
    /// What bounds the waiting of the request that is under way.
    pub(crate) deadlines: StreamDeadlines,
    /// Why a message on this connection cannot be read in one way only.
    misread: OnceLock<&'static str>,
    /// The end of an answer's body, when trailers follow it.
    before_trailers: OnceLock<Bytes>,
    /// It has been turned over to another protocol.
    switched: AtomicBool,
    /// The process ends what is under way.
    cut: Arc<AtomicBool>,
    /// Nobody vouches for its client any more: what has no end of its own is ended.
    over: AtomicBool,
    /// Its socket, when one request after the other is served over it.
    socket: OnceLock<RawFd>,
    /// Over HTTP/2, what the stream is answered with.
    pub(super) respond: Option<Mutex<SendResponse<Bytes>>>,
    /// The answer to a request that was dropped unanswered: said when its session is dropped.
    last_word: Mutex<Option<LastWord>>,
    /// The last answer has gone out in full and nothing is left of its request: whatever becomes of the session, the
    /// connection serves the next one.
    kept: AtomicBool,
    /// What a session that was dropped has left of the connection, or has handed back.
    left_over: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    /// A body that takes the place of the one that the backend sends.
    body: Mutex<Option<LeftBody>>,
    /// What is known of a request before it has a session.
    found: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    /// The connection ends after the answer.
    closes: AtomicBool,
    /// It also does when the answer begins before the request has been read.
    closes_unread: AtomicBool,
}

/// What a handshake with a client has come to.
#[derive(Debug, Default)]
pub(crate) struct TlsFacts {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for.
    pub sni: Option<Box<str>>,
    /// The certificate that the client showed, verified.
    pub certificate: Option<Arc<Certificate>>,
}

/// A body that takes the place of the one that comes along.
#[derive(Debug)]
enum LeftBody {
    /// All of it, in pieces.
    Parts(Vec<Bytes>),
    /// The same one, which others are given, too.
    Shared(Arc<dyn SharedBody>),
}

/// The head and the body of an answer.
type LastWord = Box<(ResponseHeader, Bytes)>;

impl ConnectionInfo {
    pub(crate) fn new(
        peer: SocketAddr,
        (listener, listener_name): (usize, Arc<str>),
        tls: Option<TlsFacts>,
        cut: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self::fresh(peer, (listener, listener_name), tls.map(Arc::new), cut))
    }

    fn fresh(
        peer: SocketAddr,
        (listener, listener_name): (usize, Arc<str>),
        tls: Option<Arc<TlsFacts>>,
        cut: Arc<AtomicBool>,
    ) -> Self {
        Self {
            peer,
            listener,
            listener_name,
            secure: tls.is_some(),
            tls,
            text: OnceLock::new(),
            deadlines: StreamDeadlines::default(),
            misread: OnceLock::new(),
            before_trailers: OnceLock::new(),
            switched: AtomicBool::new(false),
            cut,
            over: AtomicBool::new(false),
            socket: OnceLock::new(),
            respond: None,
            last_word: Mutex::new(None),
            kept: AtomicBool::new(false),
            left_over: Mutex::new(None),
            body: Mutex::new(None),
            found: Mutex::new(None),
            closes: AtomicBool::new(false),
            closes_unread: AtomicBool::new(true),
        }
    }

    /// The facts of the connection that a session runs over, when a listener of ours has accepted it.
    pub(crate) fn of(session: &ServerSession) -> Option<&Arc<Self>> {
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

    /// True unless one request after the other is served over it.
    pub(crate) fn is_multiplexed(&self) -> bool {
        self.socket.get().is_none()
    }

    /// True when what is under way on it is ended: because the process ends, or a tunnel is over.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed) || self.is_over()
    }

    /// True when it is a tunnel that is over, because nobody vouches for its client any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed) && self.has_switched()
    }

    /// From now on it carries no tunnel: one that is there ends, as soon as somebody looks at the connection.
    pub(super) fn end_tunnel(&self) {
        self.over.store(true, Relaxed);
    }

    /// True when another protocol is spoken on it.
    pub(crate) fn has_switched(&self) -> bool {
        self.switched.load(Relaxed)
    }

    /// What its client is told when the session is dropped.
    pub(crate) fn leave_last_word(&self, head: ResponseHeader, body: Bytes) {
        *self.last_word.lock() = Some(Box::new((head, body)));
    }

    /// Takes that.
    pub(super) fn take_last_word(&self) -> Option<LastWord> {
        self.last_word.lock().take()
    }

    /// The request has been read, and the answer to it written, in full, although it failed: Pingora gives up the session of
    /// a request that fails, and the connection need not go with it.
    pub(crate) fn keep_open(&self) {
        self.kept.store(true, Relaxed);
    }

    /// True once after that.
    pub(super) fn take_kept(&self) -> bool {
        self.kept.swap(false, Relaxed)
    }

    /// Leaves the connection to whoever served the session.
    pub(super) fn leave_over(&self, connection: impl Any + Send + Sync) {
        *self.left_over.lock() = Some(Box::new(connection));
    }

    /// Hands the connection back, for the next request.
    pub(super) fn hand_back<C: Any + Send + Sync>(&self, connection: Box<C>) {
        *self.left_over.lock() = Some(connection);
    }

    /// Takes what was left or handed back.
    pub(super) fn take_left_over(&self) -> Option<Box<dyn Any + Send + Sync>> {
        self.left_over.lock().take()
    }

    /// A body, in pieces, that follows the next head, whatever its backend has sent.
    pub(crate) fn leave_body(&self, parts: Vec<Bytes>) {
        *self.body.lock() = Some(LeftBody::Parts(parts));
    }

    /// Takes that.
    pub(super) fn take_body(&self) -> Option<Vec<Bytes>> {
        match self.body.lock().take_if(|left| matches!(left, LeftBody::Parts(_))) {
            Some(LeftBody::Parts(parts)) => Some(parts),
            _ => None,
        }
    }

    /// The body that comes is this one, which others are given, too.
    pub(crate) fn share_body(&self, body: Arc<dyn SharedBody>) {
        *self.body.lock() = Some(LeftBody::Shared(body));
    }

    /// Takes that.
    pub(super) fn take_shared(&self) -> Option<Arc<dyn SharedBody>> {
        match self.body.lock().take_if(|left| matches!(left, LeftBody::Shared(_))) {
            Some(LeftBody::Shared(shared)) => Some(shared),
            _ => None,
        }
    }

    /// Whatever was left for the answer that has ended is for no other.
    pub(super) fn forget_body(&self) {
        *self.body.lock() = None;
    }

    /// What the floor above has found out about a request, for its hooks.
    pub(crate) fn leave_found(&self, found: impl Any + Send + Sync) {
        *self.found.lock() = Some(Box::new(found));
    }

    /// Takes that.
    pub(crate) fn take_found<F: Any>(&self) -> Option<Box<F>> {
        self.found.lock().take()?.downcast().ok()
    }

    /// A request over HTTP/1 begins; `closes`: the connection ends after its answer, as far as is known.
    pub(super) fn begin(&self, closes: bool) {
        self.closes.store(closes, Relaxed);
        self.closes_unread.store(true, Relaxed);
    }

    /// The connection ends after the answer that is under way.
    pub(crate) fn close_after_this(&self) {
        self.closes.store(true, Relaxed);
    }

    /// True when it does.
    pub(crate) fn closes(&self) -> bool {
        self.closes.load(Relaxed)
    }

    /// Whether it also does when the next head comes before the request has been read.
    pub(crate) fn close_if_unread(&self, closes: bool) {
        self.closes_unread.store(closes, Relaxed);
    }

    /// True when it does.
    pub(super) fn closes_unread(&self) -> bool {
        self.closes_unread.load(Relaxed)
    }

    /// One request after the other will be served over it; `socket` stays open for as long as one is under way.
    pub(super) fn serve_over(&self, socket: RawFd) {
        let _ = self.socket.set(socket);
    }

    /// True when the other side of an HTTP/1 connection has hung up, whatever it has sent before that has not been read.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.socket.get().is_some_and(|socket| hangup::has_hung_up(*socket, false))
    }

    /// True when it has been reset: what was sent through a tunnel before its client closed is delivered, as long as the
    /// backend reads it.
    pub(super) fn is_broken(&self) -> bool {
        self.socket.get().is_some_and(|socket| hangup::has_hung_up(*socket, true))
    }

    /// True when the client has reset the stream, or its connection has ended; before the answer's head.
    pub(super) fn is_reset(&self, context: &mut Context<'_>) -> bool {
        let Some(respond) = &self.respond else { return false };
        match respond.lock().poll_reset(context) {
            Poll::Ready(Ok(_)) => true,
            // Anything else is the codec's word for an answer that has begun.
            Poll::Ready(Err(e)) => e.is_reset() || e.is_go_away() || e.is_io(),
            Poll::Pending => false,
        }
    }

    /// The facts for one of several streams on the connection, with limits of its own.
    pub(crate) fn of_stream(&self, respond: SendResponse<Bytes>) -> Arc<Self> {
        let fresh =
            Self::fresh(self.peer, (self.listener, self.listener_name.clone()), self.tls.clone(), self.cut.clone());
        // The address is written out once for all streams.
        Arc::new(Self { text: OnceLock::from(self.address_text()), respond: Some(Mutex::new(respond)), ..fresh })
    }

    /// This as Pingora carries it around. The response is a form to fill in: nothing reads it.
    pub(crate) fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let form = ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(form), Some(Box::new(self.clone())))))
    }
}
