//! One HTTP/2 stream: reading within time limits, and writing as fast as the client reads.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Response, StatusCode};
use parking_lot::Mutex;
use pingora::{
    Error, ErrorType, OrErr as _, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::Digest,
};

use super::{answer_head, room, stream_body::StreamBody};
use crate::downstream::{ahead::Ahead, connection::ConnectionInfo};

/// A stream, from its head to its end.
pub(crate) struct StreamSession {
    pub(crate) head: RequestHeader,
    pub(crate) body: StreamBody,
    pub(crate) writer: Option<SendStream<Bytes>>,
    pub(crate) written: Option<Box<ResponseHeader>>,
    /// The end has been said.
    pub(crate) ended: bool,
    pub(crate) sent: usize,
    /// The body of the answer, when others are given it, too.
    ahead: Option<Box<Ahead>>,
    /// How long writes have waited for the client to read.
    pub(crate) waited: Duration,
    pub(crate) info: Arc<ConnectionInfo>,
    pub(crate) digest: Digest,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    /// Interim answers so far.
    interim: u32,
    /// When something was read or written last.
    pub(crate) moved: Instant,
}

/// The most interim answers of one exchange that are passed on.
const MOST_INTERIM: u32 = 64;

impl StreamSession {
    pub(crate) fn new(head: RequestHeader, body: RecvStream, info: Arc<ConnectionInfo>, digest: Digest) -> Self {
        let body = StreamBody::of(&head, body);
        Self {
            head,
            body,
            writer: None,
            written: None,
            ended: false,
            sent: 0,
            ahead: None,
            waited: Duration::ZERO,
            info,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            interim: 0,
            moved: Instant::now(),
        }
    }

    /// True when nothing is left to read.
    pub(crate) fn is_read(&self) -> bool {
        self.body.is_read()
    }

    /// The next part of the body. To be dropped at any time: what is held back is not lost.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let next = self.body.next(&self.info).await?;
        if next.is_some() {
            self.note_movement();
        }
        Ok(next)
    }

    fn note_movement(&mut self) {
        self.moved = Instant::now();
        self.info.deadlines.note_movement(self.moved);
    }

    /// Resolves when the client resets the stream, or its connection ends.
    async fn gone(&mut self) -> Box<Error> {
        std::future::poll_fn(|context| {
            // Meanwhile it may read on.
            let gone = match self.poll_ahead(context) {
                Poll::Ready(Err(e)) => e,
                _ => ready!(self.poll_gone(context)),
            };
            let goes_on = self.ahead.as_mut().is_some_and(|ahead| ahead.goes_on_without(&gone));
            if goes_on { Poll::Pending } else { Poll::Ready(gone) }
        })
        .await
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Box<Error>> {
        let info = &self.info;
        info.deadlines.client_is_asked();
        let reset = match (&mut self.writer, &info.respond) {
            _ if info.is_cut() => Ok(Reason::NO_ERROR),
            (Some(writer), _) => ready!(writer.poll_reset(context)),
            (None, Some(respond)) => ready!(respond.lock().poll_reset(context)),
            (None, None) => Ok(Reason::CANCEL),
        };
        Poll::Ready(match reset {
            Ok(reason) => Error::explain(ErrorType::ConnectionClosed, format!("the client reset the stream: {reason}")),
            Err(e) => Error::because(ErrorType::ConnectionClosed, "the connection of the stream ended", e),
        })
    }

    /// Waits for the client to go away, for as long as the hooks allow it.
    pub(crate) async fn idle(&mut self) -> Box<Error> {
        self.share();
        let info = self.info.clone();
        let Some((due, lateness)) = info.deadlines.due(self.moved) else { return self.gone().await };
        tokio::select! {
            gone = self.gone() => gone,
            () = tokio::time::sleep_until(due.into()) => {
                info.deadlines.expire(lateness);
                Error::explain(ErrorType::ReadTimedout, lateness.reason())
            }
        }
    }

    /// Reads on, and notes that the client is looked at.
    async fn ask(&mut self) -> Result<Option<Bytes>> {
        let info = self.info.clone();
        let mut next = std::pin::pin!(self.next_chunk());
        std::future::poll_fn(|context| {
            info.deadlines.client_is_asked();
            next.as_mut().poll(context)
        })
        .await
    }

    /// Reads on, at most for the time that a read may take, and not beyond what the hooks allow.
    pub(crate) async fn read(&mut self) -> Result<Option<Bytes>> {
        let now = Instant::now();
        let limit = self.read_timeout.and_then(|limit| now.checked_add(limit));
        let due = self.info.deadlines.due(self.moved);
        let (until, lateness) = match (limit, due) {
            (Some(limit), Some((due, lateness))) if due < limit => (due, Some(lateness)),
            (Some(limit), _) => (limit, None),
            (None, Some((due, lateness))) => (due, Some(lateness)),
            (None, None) => return self.ask().await,
        };
        if let Ok(read) = tokio::time::timeout_at(until.into(), self.ask()).await {
            return read;
        }
        if let Some(lateness) = lateness {
            self.info.deadlines.expire(lateness);
        }
        Error::e_explain(ErrorType::ReadTimedout, "while reading a request's body")
    }

    /// True for answers that have no body, whatever a backend sends after the head (RFC 9110 §6.4.1).
    fn is_bodiless(&self, status: StatusCode) -> bool {
        matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || self.head.method == Method::HEAD
    }

    /// True when the end has been said with it.
    pub(crate) fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<bool> {
        if self.ended || self.written.is_some() {
            return Ok(end);
        }
        let info = self.info.clone();
        let Some(mut respond) = info.respond.as_ref().map(Mutex::lock) else {
            return Error::e_explain(ErrorType::InternalError, "a stream that cannot be answered");
        };
        answer_head::translate(&mut head)?;
        if head.status.is_informational() {
            // Heads have no flow control: those that the client does not read would be kept, however many they are.
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Ok(false);
            }
            let interim = Response::from_parts(head.as_owned_parts(), ());
            respond.send_informational(interim).or_err(ErrorType::WriteError, "while writing a 1xx")?;
            return Ok(false);
        }
        let end = end || self.is_bodiless(head.status);
        let response = Response::from_parts(head.as_owned_parts(), ());
        let writer = respond.send_response(response, end);
        self.writer = Some(writer.or_err(ErrorType::WriteError, "while writing an answer's head")?);
        self.written = Some(head);
        self.ended = end;
        self.note_movement();
        Ok(end)
    }

    /// A part of the body has come along; with `end` it is the last.
    pub(crate) async fn take_part(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.share();
        self.ahead = self.ahead.take().filter(|ahead| !ahead.is_over());
        let Some(ahead) = &mut self.ahead else { return self.write_data(data, end).await };
        ahead.tell(data.len());
        if end {
            self.write_rest().await?;
            return self.end();
        }
        let info = self.info.clone();
        let limit = room::limit([info.deadlines.write_limit(self.waited, self.sent as u64), self.write_timeout]);
        let written = std::future::poll_fn(|context| {
            let written = self.poll_ahead(context);
            self.ahead.as_mut().map_or(Poll::Ready(Ok(())), |ahead| ahead.settle(written, context))
        });
        // Nearly always there is room at once, or somebody else who reads.
        let mut written = std::pin::pin!(written);
        if let Poll::Ready(written) = std::future::poll_fn(|context| Poll::Ready(written.as_mut().poll(context))).await
        {
            return written;
        }
        let (waited, written) = room::wait(&info.deadlines, limit, written).await;
        self.waited += waited;
        written.unwrap_or_else(|late| self.leave(late))
    }

    /// Others may be given the body, too, from now on.
    fn share(&mut self) {
        if self.ahead.is_none() {
            self.ahead = self.info.take_shared().map(|body| Box::new(Ahead::of(body)));
        }
    }

    /// The client gets no more for this reason, which ends the answer unless others are given it.
    pub(crate) fn leave(&mut self, why: Box<Error>) -> Result<()> {
        self.share();
        match &mut self.ahead {
            Some(ahead) => ahead.leave(why),
            None => Err(why),
        }
    }

    /// Writes what is left of a shared body, before its end.
    pub(crate) async fn write_rest(&mut self) -> Result<()> {
        while let Some(part) = self.ahead.as_mut().and_then(|ahead| ahead.take_next()) {
            self.write_data(part, false).await?;
        }
        self.ahead.as_mut().map_or(Ok(()), |ahead| ahead.take_lost())
    }

    /// Writes what there is of a shared body; ready when there is nothing left of it for now.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { writer: Some(writer), ahead: Some(ahead), .. } = self else { return Poll::Ready(Ok(())) };
        while !ahead.is_lost() {
            let left = ahead.next().len();
            if left == 0 {
                break;
            }
            writer.reserve_capacity(left);
            if writer.capacity() == 0 {
                match ready!(writer.poll_capacity(context)) {
                    Some(room) => room.or_err(ErrorType::WriteError, "while waiting for the client to read")?,
                    None => return Poll::Ready(Error::e_explain(ErrorType::ConnectionClosed, "the stream has ended")),
                };
                continue;
            }
            let part = ahead.take(writer.capacity());
            self.sent += part.len();
            writer.send_data(part, false).or_err(ErrorType::WriteError, "while writing an answer's body")?;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) async fn write_data(&mut self, mut left: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else {
            return Error::e_explain(ErrorType::InternalError, "an answer's body before its head");
        };
        while !left.is_empty() {
            writer.reserve_capacity(left.len());
            // Nearly always there is room at once, and no timer is needed.
            let at_once = writer.poll_capacity(&mut Context::from_waker(Waker::noop()));
            let room = match at_once {
                Poll::Ready(room) => room,
                Poll::Pending => {
                    let own = self.info.deadlines.write_limit(self.waited, self.sent as u64);
                    let limit = room::limit([own, self.write_timeout]);
                    let room = std::future::poll_fn(|context| writer.poll_capacity(context));
                    let (waited, room) = room::wait(&self.info.deadlines, limit, room).await;
                    self.waited += waited;
                    room?
                }
            };
            let room = match room {
                Some(room) => room.or_err(ErrorType::WriteError, "while waiting for the client to read")?,
                None => return Error::e_explain(ErrorType::ConnectionClosed, "the stream has ended"),
            };
            let part = left.split_to(room.min(left.len()));
            self.sent += part.len();
            let last = end && left.is_empty();
            writer.send_data(part, last).or_err(ErrorType::WriteError, "while writing an answer's body")?;
            self.ended = last;
        }
        self.note_movement();
        if end { self.end() } else { Ok(()) }
    }

    /// Says the end, unless it has been said. A stream whose answer has not begun is reset when it is dropped.
    pub(crate) fn end(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.ended) {
            writer.send_data(Bytes::new(), true).or_err(ErrorType::WriteError, "while ending an answer")?;
            self.ended = true;
        }
        Ok(())
    }

    pub(crate) async fn write_tail(&mut self, trailers: HeaderMap) -> Result<()> {
        self.write_rest().await?;
        if let Some(end) = self.info.left_for_trailers() {
            self.write_data(end, false).await?;
        }
        if let Some(writer) = self.writer.as_mut().filter(|_| !self.ended) {
            writer.send_trailers(trailers).or_err(ErrorType::WriteError, "while writing trailers")?;
            self.ended = true;
        }
        Ok(())
    }
}

impl Drop for StreamSession {
    /// Says what is left to say to the client of a request that was dropped. An answer that does not end has broken off,
    /// here or behind us; a stream that is dropped without a word says `CANCEL`, as if nobody wanted it any more (RFC 9113
    /// §7).
    fn drop(&mut self) {
        if let Some((head, body)) = self.info.take_last_word().map(|word| *word) {
            let silent = body.is_empty();
            let said = self.write_head(Box::new(head), silent);
            if let (Ok(false), Some(writer)) = (said, &mut self.writer) {
                // What there is no room for yet waits within the codec.
                self.ended = writer.send_data(body, true).is_ok();
            }
        }
        if !self.ended
            && let Some(respond) = &self.info.respond
        {
            respond.lock().send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
