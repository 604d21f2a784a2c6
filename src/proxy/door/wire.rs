//! A client's connection as Pingora's HTTP layer gets it: what the door has read already comes first, the link comes
//! along, and an upgraded connection ends when nothing has moved in either direction for too long.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use async_trait::async_trait;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, l4::stream::Stream as L4Stream, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use super::{framing::Chunked, link::Link};

/// What a wire runs over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug + 'static {
    /// The TCP connection beneath.
    fn tcp(&self) -> &L4Stream;
    /// Cipher and version, when it is encrypted.
    fn tls(&self) -> Option<Arc<SslDigest>>;
}

impl Transport for Box<L4Stream> {
    fn tcp(&self) -> &L4Stream {
        self
    }

    fn tls(&self) -> Option<Arc<SslDigest>> {
        None
    }
}

impl Transport for Box<TlsStream<Box<L4Stream>>> {
    fn tcp(&self) -> &L4Stream {
        self.get_ref().0
    }

    fn tls(&self) -> Option<Arc<SslDigest>> {
        let connection = self.get_ref().1;
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("");
        let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("");
        Some(Arc::new(SslDigest::new(cipher, version, None, None, Vec::new())))
    }
}

/// A connection with its link.
#[derive(Debug)]
pub(super) struct Wire<T> {
    inner: T,
    /// Bytes to hand out before any others, from `given` on.
    ahead: Vec<u8>,
    given: usize,
    /// A chunked body that is on its way.
    body: Option<Chunked>,
    link: Arc<Link>,
    /// The link as Pingora takes it, made for the first request and kept for the others.
    digest: OnceLock<Option<Arc<ProxyDigest>>>,
    /// HTTP/2 was agreed on, or begun without asking.
    h2: bool,
    /// Silence counts.
    watched: bool,
    moved: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(inner: T, link: Arc<Link>, h2: bool) -> Self {
        let digest = OnceLock::new();
        Self {
            inner,
            ahead: Vec::new(),
            given: 0,
            body: None,
            link,
            digest,
            h2,
            watched: false,
            moved: Instant::now(),
            alarm: None,
        }
    }

    /// Puts back what was read too early; the rest of a chunked `body` is watched from here on.
    pub(super) fn rewind(&mut self, bytes: Vec<u8>, body: Option<Chunked>) {
        (self.ahead, self.given, self.body) = (bytes, 0, body);
    }

    /// Looks at bytes of a chunked body that have just been read.
    fn watch(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(body) = &mut self.body else { return Ok(()) };
        if let Err(reason) = body.push(bytes) {
            self.link.misread(reason);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if body.is_done() {
            self.body = None;
        }
        Ok(())
    }

    /// Goes on as HTTP/2.
    pub(super) fn set_h2(&mut self) {
        self.h2 = true;
    }

    /// Ready when an upgraded connection has been silent for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(silence) = self.link.silence() else {
            self.watched = false;
            return Poll::Pending;
        };
        if !self.watched {
            // What happened before it was upgraded, or how long ago, does not count.
            (self.watched, self.moved) = (true, Instant::now());
        }
        let due = self.moved + silence;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(context)
    }

    fn note_movement(&mut self) {
        if self.watched {
            self.moved = Instant::now();
        }
    }
}

impl<T: Transport> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given < this.ahead.len() {
            let rest = &this.ahead[this.given..];
            let length = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..length]);
            this.given += length;
            if this.given == this.ahead.len() {
                this.ahead = Vec::new();
                this.given = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Poll::Ready(outcome) = read {
            this.note_movement();
            return Poll::Ready(outcome.and_then(|()| this.watch(&buffer.filled()[before..])));
        }
        match this.poll_silence(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "an upgraded connection was idle")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Transport> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_movement();
        Pin::new(&mut this.inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.note_movement();
        Pin::new(&mut this.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<T: Transport> Shutdown for Wire<T> {
    async fn shutdown(&mut self) {
        if let Err(e) = self.inner.shutdown().await {
            log::debug!("shutting down a client's connection: {e}");
        }
    }
}

impl<T: Transport> UniqueID for Wire<T> {
    fn id(&self) -> UniqueIDType {
        self.inner.tcp().id()
    }
}

impl<T: Transport> Ssl for Wire<T> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.tls()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.h2.then_some(ALPN::H2)
    }
}

impl<T: Transport> GetTimingDigest for Wire<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        // Nothing of ours asks for it, and it would be a list per request.
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for Wire<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.get_or_init(|| self.link.digest()).clone()
    }
}

impl<T: Transport> GetSocketDigest for Wire<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.tcp().get_socket_digest()
    }
}

impl<T: Transport> Peek for Wire<T> {}
