//! A client's connection as Pingora's HTTP layer gets it: what has been read already comes first, the connection's facts come
//! along, requests after the present one wait their turn, and what lasts too long is ended: silence on an upgraded
//! connection, an answer beyond its deadline.

use std::{
    future::Future as _,
    io,
    mem::MaybeUninit,
    os::fd::AsRawFd as _,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::Sleep,
};

use super::{
    connection::ConnectionInfo,
    deadlines::Lateness,
    hangup::HangupWatch,
    head_reader::BufferedRequest,
    read_ahead::{ReadAhead, ReadStep},
    transport::Transport,
    websocket::{GOING_AWAY, SentFrames},
};
use crate::message::{reply_wire, violation::Violation};

/// A connection with its facts.
#[derive(Debug)]
pub(crate) struct DownstreamStream<T: Transport> {
    /// `None` once it has been dropped.
    inner: Option<T>,
    /// What has been read and not been handed on yet.
    ahead: ReadAhead,
    /// Tells that the client has gone, once no more is read ahead.
    hangup: Option<Box<HangupWatch>>,
    info: Arc<ConnectionInfo>,
    /// The facts as Pingora takes them, made for the first request and kept for the others.
    digest: OnceLock<Option<Arc<ProxyDigest>>>,
    /// When something was read or written last, while that counts.
    moved: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Since when a write waits, and what rings when that is too long.
    blocked: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long writes of this request have waited before.
    waited: Duration,
    /// What has been written for this request.
    written: u64,
    /// Some of it may wait in a buffer.
    unflushed: bool,
    /// Of a tunnel: where the frames end that were written.
    frames: Option<SentFrames>,
}

/// What is left of a connection whose session was dropped.
pub(super) struct LeftOver<T> {
    pub(super) inner: T,
    ahead: ReadAhead,
    /// The next request can be served; else the client may still be sending what nobody reads.
    pub(super) serves_on: bool,
}

impl<T: Transport> LeftOver<T> {
    /// The connection, before the next request.
    pub(super) fn resume(self, info: Arc<ConnectionInfo>) -> DownstreamStream<T> {
        let mut stream = DownstreamStream::new(self.inner, info);
        stream.ahead = self.ahead;
        stream
    }
}

impl<T: Transport> DownstreamStream<T> {
    pub(crate) fn new(inner: T, info: Arc<ConnectionInfo>) -> Self {
        Self {
            inner: Some(inner),
            ahead: ReadAhead::new(),
            hangup: None,
            info,
            digest: OnceLock::new(),
            moved: Instant::now(),
            alarm: None,
            blocked: None,
            waited: Duration::ZERO,
            written: 0,
            unflushed: false,
            frames: None,
        }
    }

    /// Puts back what was read too early.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn rewind(&mut self, arrived: BufferedRequest) -> Result<(), Violation> {
        self.ahead.begin(arrived)
    }

    /// What has come, as soon as something has; empty at the end. There is a buffer while it is copied and no longer: a
    /// connection that idles has none.
    pub(crate) fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut buffer = ReadBuf::uninit(&mut space);
        std::task::ready!(Pin::new(self).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().to_vec()))
    }

    /// A request is done with: reading goes on with the one after it. False when it is not, and nothing can follow.
    pub(crate) fn turn(&mut self) -> bool {
        self.info.deadlines.reset();
        self.hangup = None;
        (self.waited, self.written) = (Duration::ZERO, 0);
        self.ahead.turn()
    }

    /// True when the whole of the request has come, whether it has been read or not.
    pub(crate) fn has_request(&self) -> bool {
        self.ahead.is_complete()
    }

    /// Reads more of the request; when it has come in full, all that is told is that the client has gone.
    fn poll_request(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.info.has_switched() {
            self.ahead.switch_protocols();
        }
        // Over HTTP/2 its streams are told, and it must live until they have answered.
        if self.info.is_cut() && !self.info.is_multiplexed() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the process is leaving")));
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(closed())) };
        match std::task::ready!(self.ahead.poll_read(inner, context, buffer))? {
            ReadStep::Read => return Poll::Ready(Ok(())),
            ReadStep::Malformed(reason) => {
                self.info.misread(reason);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            ReadStep::Full => {}
        }
        if self.hangup.is_none() {
            self.hangup = Some(Box::new(HangupWatch::new(inner.tcp().as_raw_fd())?));
        }
        self.hangup.as_mut().map_or(Poll::Pending, |hangup| hangup.poll_hangup(context))
    }

    /// What hooks will know of it.
    pub(crate) fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// Ready with what has lasted too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Lateness> {
        let Some((due, lateness)) = self.info.deadlines.due(self.moved) else { return Poll::Pending };
        let due = due.into();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(context).map(|()| lateness)
    }

    fn note_movement(&mut self) {
        if self.info.deadlines.counts_movement() {
            self.moved = Instant::now();
            self.info.deadlines.note_movement(self.moved);
        }
    }

    fn count(&mut self, parts: &[io::IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(mut bytes)) = *written else { return };
        self.written += bytes as u64;
        self.unflushed = true;
        if !self.info.has_switched() {
            return;
        }
        let frames = self.frames.get_or_insert_with(SentFrames::new);
        for part in parts {
            let taken = bytes.min(part.len());
            frames.note(&part[..taken]);
            bytes -= taken;
        }
    }

    /// Bounds the waiting of a write: a client that never reads must not hold a request, and all that it holds.
    fn bounded<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.info.deadlines.wait_for_reader(written.is_pending());
        if written.is_ready() {
            self.note_movement();
            if let Some((since, _)) = self.blocked.take() {
                self.waited += since.elapsed();
                self.info.deadlines.add_reading(since.elapsed());
            }
            return written;
        }
        self.info.deadlines.look_away();
        let Some(limit) = self.info.deadlines.write_limit(self.waited, self.written) else { return Poll::Pending };
        let (_, alarm) = self.blocked.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(limit))));
        std::task::ready!(alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<T: Transport> AsyncRead for DownstreamStream<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.info.deadlines.client_is_asked();
        let read = this.poll_request(context, buffer);
        if read.is_ready() {
            this.note_movement();
            return read;
        }
        // Whoever reads has nothing to write for now. Pingora keeps back what there is of an answer with a length, up to
        // its end: a client would see nothing of one that comes slowly. What fails here fails the next write.
        if let (true, Some(inner)) = (this.unflushed, &mut this.inner) {
            this.unflushed = Pin::new(inner).poll_flush(context).is_pending();
        }
        let lateness = std::task::ready!(this.poll_patience(context));
        this.info.deadlines.expire(lateness);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, lateness.reason())))
    }
}

impl<T: Transport> AsyncWrite for DownstreamStream<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let written = Pin::new(inner).poll_write(context, bytes);
        let written = this.bounded(context, written);
        this.count(&[io::IoSlice::new(bytes)], &written);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let written = Pin::new(inner).poll_flush(context);
        this.unflushed &= written.is_pending();
        this.bounded(context, written)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let written = Pin::new(inner).poll_shutdown(context);
        this.bounded(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(closed())) };
        let written = Pin::new(inner).poll_write_vectored(context, slices);
        let written = this.bounded(context, written);
        this.count(slices, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

impl<T: Transport> Drop for DownstreamStream<T> {
    /// Says what is left to say to the client of a request that was dropped: at once or not at all, and nothing stands in
    /// the way of an answer when nothing was said before. A connection that serves the next request, or on which the client
    /// may still be sending, is left over for `app.rs`.
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        let mut context = Context::from_waker(Waker::noop());
        if let Some(word) = self.info.take_last_word()
            && let Poll::Ready(Ok(written)) =
                Pin::new(&mut inner).poll_write(&mut context, &reply_wire::wire(word.0, &word.1))
        {
            self.written += written as u64;
            let _ = Pin::new(&mut inner).poll_flush(&mut context);
        }
        if self.info.is_cut() && self.frames.is_some_and(SentFrames::is_between) {
            let _ = Pin::new(&mut inner).poll_write(&mut context, GOING_AWAY);
            let _ = Pin::new(&mut inner).poll_flush(&mut context);
        }
        let serves_on = self.info.take_kept() && self.ahead.is_handed_on();
        if serves_on || self.written > 0 && self.ahead.is_unread(&mut inner, &mut context) {
            let ahead = std::mem::replace(&mut self.ahead, ReadAhead::new());
            self.info.leave_over(LeftOver { inner, ahead, serves_on });
        }
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

#[async_trait]
impl<T: Transport> Shutdown for DownstreamStream<T> {
    async fn shutdown(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        if let Err(e) = inner.shutdown().await {
            log::debug!("shutting down a client's connection: {e}");
        }
    }
}

impl<T: Transport> UniqueID for DownstreamStream<T> {
    fn id(&self) -> UniqueIDType {
        self.inner.as_ref().map_or(-1, |inner| inner.tcp().id())
    }
}

impl<T: Transport> Ssl for DownstreamStream<T> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.as_ref()?.tls()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        // Only HTTP/1 is spoken over it as a whole: streams of HTTP/2 are sessions of their own (`h2`).
        None
    }
}

impl<T: Transport> GetTimingDigest for DownstreamStream<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        // Nothing of ours asks for it, and it would be a list per request.
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for DownstreamStream<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.get_or_init(|| self.info.digest()).clone()
    }
}

impl<T: Transport> GetSocketDigest for DownstreamStream<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.as_ref()?.tcp().get_socket_digest()
    }
}

impl<T: Transport> Peek for DownstreamStream<T> {}
