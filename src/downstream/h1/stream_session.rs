//! One request over HTTP/1, from its head to the end of its answer.

use std::{
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use pingora::{
    Error, ErrorType, OrErr as _, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{Digest, GetProxyDigest as _, GetSocketDigest as _, Ssl as _},
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use super::{
    outgoing::{Asked, Outgoing},
    request_body::RequestBody,
};
use crate::{
    downstream::{ConnectionInfo, ahead::Ahead, stream::DownstreamStream, transport::Transport},
    message::framing::Body,
};

/// A request and its answer.
pub(crate) struct Http1Session<T: Transport> {
    pub(super) head: RequestHeader,
    pub(super) body: RequestBody,
    pub(super) answer: Outgoing,
    /// The head that went to the client.
    pub(super) written: Option<Box<ResponseHeader>>,
    /// `None` once it has been handed back.
    stream: Option<Box<DownstreamStream<T>>>,
    /// The body, when others are given it, too.
    ahead: Option<Box<Ahead>>,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) digest: Digest,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) drain_timeout: Option<Duration>,
}

impl<T: Transport> Http1Session<T> {
    /// The request with this `head`, over a connection that hands on its body.
    pub(crate) fn new(stream: Box<DownstreamStream<T>>, head: RequestHeader, body: Body) -> Self {
        let digest = Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: Vec::new(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        };
        let (info, answer) = (stream.info().clone(), Outgoing::to(Asked::by(&head)));
        Self {
            head,
            body: RequestBody::new(body),
            answer,
            written: None,
            stream: Some(stream),
            ahead: None,
            info,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    fn stream(&mut self) -> Result<&mut Box<DownstreamStream<T>>> {
        self.stream
            .as_mut()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a connection that was handed back"))
    }

    /// The next part of the body, within the time that a read may take. To be dropped at any time.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>> {
        let limit = self.read_timeout;
        let Self { body, stream: Some(stream), .. } = self else { return Ok(None) };
        let next = body.next(stream);
        match limit {
            None => next.await,
            Some(limit) => tokio::time::timeout(limit, next)
                .await
                .map_err(|_| Error::explain(ErrorType::ReadTimedout, "while reading a body"))?,
        }
    }

    /// Throws away what is left of the body.
    pub(super) async fn drain(&mut self) -> Result<()> {
        let limit = self.drain_timeout.unwrap_or(Duration::from_secs(60));
        let drain = async {
            while self.read().await?.is_some() {}
            Ok(())
        };
        let timed_out = |_| Error::explain(ErrorType::ReadTimedout, "while draining a body");
        tokio::time::timeout(limit, drain).await.map_err(timed_out)?
    }

    /// Resolves when the client goes away: the connection hands on nothing else that comes after the request.
    pub(super) async fn idle(&mut self) -> Box<Error> {
        self.share();
        std::future::poll_fn(|context| {
            // Meanwhile it may read on.
            let written = self.poll_ahead(context);
            let gone = match written {
                Poll::Ready(Err(e)) => e,
                _ => ready!(self.poll_gone(context)),
            };
            let goes_on = self.ahead.as_mut().is_some_and(|ahead| ahead.goes_on_without(&gone));
            if goes_on { Poll::Pending } else { Poll::Ready(gone) }
        })
        .await
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Box<Error>> {
        let stream = match self.stream() {
            Ok(stream) => stream,
            Err(e) => return Poll::Ready(e),
        };
        let mut space = [0];
        Poll::Ready(match ready!(Pin::new(stream).poll_read(context, &mut ReadBuf::new(&mut space))) {
            Ok(()) => Error::explain(ErrorType::ConnectionClosed, "the client left"),
            Err(e) => Error::because(ErrorType::ReadError, "while waiting for an answer", e),
        })
    }

    /// Takes in a head. It goes out with what follows it, or with the next `flush`.
    pub(super) fn take_head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        let mut head = head;
        if self.written.is_some() {
            return Ok(());
        }
        if head.status.is_informational() {
            self.answer.interim(&head);
            return Ok(());
        }
        // What has come already is thrown away in no time.
        let unread = !self.body.is_done() && !self.stream.as_ref().is_some_and(|stream| stream.has_request());
        if unread && self.info.closes_unread() {
            self.info.close_after_this();
        }
        self.answer.head(&mut head, end, self.info.closes())?;
        if self.answer.ends_connection() {
            self.info.close_after_this();
        }
        self.written = Some(head);
        Ok(())
    }

    /// Takes in a head, and the body that was left for it if there is one; true when the answer ends with that.
    pub(super) async fn take_head_and_body(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<bool> {
        let body = if head.status.is_informational() { None } else { self.info.take_body() };
        let Some(parts) = body else { return self.take_head(head, end).map(|()| end) };
        self.take_head(head, parts.is_empty())?;
        for part in parts {
            self.take_part(part).await?;
        }
        Ok(true)
    }

    /// Others may be given the body, too, from now on.
    fn share(&mut self) {
        if self.ahead.is_none() {
            self.ahead = self.info.take_shared().map(|body| Box::new(Ahead::of(body)));
        }
    }

    /// Takes in a part of the body: a small one goes out with the next `flush`.
    pub(super) async fn take_part(&mut self, data: Bytes) -> Result<()> {
        self.share();
        self.ahead = self.ahead.take().filter(|ahead| !ahead.is_over());
        if let Some(ahead) = &mut self.ahead {
            ahead.tell(self.answer.pass(data.len()));
            return Ok(());
        }
        let Some((data, after)) = self.answer.part(data) else { return Ok(()) };
        let before = self.answer.out.split().freeze();
        let mut all = before.chain(data).chain(after);
        self.stream()?.write_all_buf(&mut all).await.or_err(ErrorType::WriteError, "while writing an answer")
    }

    /// Writes what there is of a shared body; ready when there is nothing left of it for now.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { answer, stream: Some(stream), ahead: Some(ahead), .. } = self else { return Poll::Ready(Ok(())) };
        if ahead.is_lost() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = Pin::new(&mut **stream);
        let failed = |e| Error::because(ErrorType::WriteError, "while writing an answer", e);
        loop {
            let part = ahead.next();
            if part.is_empty() && answer.out.is_empty() {
                return stream.poll_flush(context).map_err(failed);
            }
            let slices = [IoSlice::new(&answer.out), IoSlice::new(part)];
            let written = ready!(stream.as_mut().poll_write_vectored(context, &slices)).map_err(failed)?;
            let before = written.min(answer.out.len());
            answer.out.advance(before);
            ahead.wrote(written - before);
        }
    }

    /// The same, until all of it has been written, or, unless it is the `end` of it, as far as the client reads when others
    /// are given it.
    async fn write_ahead(&mut self, end: bool) -> Result<()> {
        std::future::poll_fn(|context| {
            let written = self.poll_ahead(context);
            let Some(ahead) = self.ahead.as_mut().filter(|_| !end) else { return written };
            ahead.settle(written, context)
        })
        .await?;
        let ahead = self.ahead.as_mut().filter(|_| end);
        ahead.map_or(Ok(()), |ahead| ahead.take_lost())
    }

    /// Writes out what has been taken in.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.share();
        if self.ahead.is_some() {
            return self.write_ahead(self.answer.has_ended()).await;
        }
        let Self { answer, stream: Some(stream), .. } = self else { return Ok(()) };
        let written = async {
            if !answer.out.is_empty() {
                stream.write_all(&answer.out).await?;
                answer.out.clear();
            }
            stream.flush().await
        };
        written.await.or_err(ErrorType::WriteError, "while writing an answer")
    }

    /// The answer has ended; the connection goes back to its listener if it serves on.
    pub(super) async fn give_back(&mut self) -> Result<()> {
        self.answer.end(None)?;
        self.flush().await?;
        if self.written.is_none() || self.info.closes() {
            self.close().await;
            return Ok(());
        }
        self.drain().await?;
        if let Some(stream) = self.stream.take() {
            self.info.hand_back(stream);
        }
        Ok(())
    }

    /// Closes for writing.
    pub(super) async fn close(&mut self) {
        self.info.close_after_this();
        if let Some(stream) = &mut self.stream
            && let Err(e) = stream.shutdown().await
        {
            log::debug!("shutting down a client's connection: {e}");
        }
    }
}
