//! One HTTP/2 stream: reading within time limits, and writing as fast as the client reads.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use parking_lot::Mutex;
use pingora::{
    Error, ErrorType, OrErr as _, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{Digest, http::date::get_cached_date},
};

use super::{
    receive::{LENGTH, receive},
    room,
};
use crate::{
    downstream::{connection::ConnectionInfo, kept::Kept},
    message::{fields, hop_by_hop::NOT_IN_HTTP2},
};

/// A stream, from its head to its end.
pub(crate) struct StreamSession {
    pub(crate) head: RequestHeader,
    pub(crate) body: RecvStream,
    pub(crate) writer: Option<SendStream<Bytes>>,
    pub(crate) written: Option<Box<ResponseHeader>>,
    /// The end has been said.
    pub(crate) ended: bool,
    pub(crate) read: usize,
    /// What the `Content-Length` field says.
    length: Option<u64>,
    /// What makes the body as long as that, until the client has said that nothing follows.
    last: Option<Bytes>,
    pub(crate) sent: usize,
    /// How long writes have waited for the client to read.
    pub(crate) waited: Duration,
    /// What has been read, for another attempt.
    pub(crate) kept: Kept,
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
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| std::str::from_utf8(length.as_bytes()).ok()?.parse().ok());
        Self {
            head,
            body,
            writer: None,
            written: None,
            ended: false,
            read: 0,
            length,
            last: None,
            sent: 0,
            waited: Duration::ZERO,
            kept: Kept::Nothing,
            info,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            interim: 0,
            moved: Instant::now(),
        }
    }

    /// Waits for the end of a body that says it is empty: a backend would take the head for the whole request, whatever
    /// came after it.
    pub(crate) async fn settle_empty_body(&mut self, limit: Duration) {
        let empty = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
        if self.body.is_end_stream() || !self.head.headers.get(header::CONTENT_LENGTH).is_some_and(empty) {
            return;
        }
        let end = async {
            loop {
                match self.body.data().await {
                    None => return true,
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(_) => return false,
                }
            }
        };
        match tokio::time::timeout(limit, end).await {
            Ok(true) => {}
            Ok(false) => self.info.misread("there is a body, and the Content-Length field says that it is empty"),
            Err(_) => self.info.misread("the end of the request did not come in time"),
        }
    }

    /// True when nothing is left to read.
    pub(crate) fn is_read(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    /// What the next frames bring; an empty one brings nothing but perhaps the end, and whoever speaks HTTP/1 takes an
    /// empty part for the last chunk.
    async fn receive_some(&mut self) -> Result<Option<Bytes>> {
        loop {
            let data = receive(&mut self.body, &self.info).await?;
            if !data.as_ref().is_some_and(Bytes::is_empty) {
                return Ok(data);
            }
        }
    }

    /// The next part of the body. The one that makes it as long as its length says is held back until its end has come:
    /// whoever speaks HTTP/1 takes it for the end, whatever follows, and the codec finds out only then that the request
    /// is malformed (RFC 9113 §8.1.1). To be dropped at any time: what is held back is not lost.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.last.is_none() {
            let Some(data) = self.receive_some().await? else { return Ok(None) };
            let so_far = self.read.saturating_add(data.len()) as u64;
            if self.length != Some(so_far) {
                return Ok(Some(self.pass(data)));
            }
            self.last = Some(data);
        }
        if !self.body.is_end_stream() && self.receive_some().await?.is_some() {
            self.info.misread(LENGTH);
            return Error::e_explain(ErrorType::ReadError, LENGTH);
        }
        let last = self.last.take();
        Ok(last.map(|data| self.pass(data)))
    }

    /// Notes a part of the body that is handed on.
    fn pass(&mut self, data: Bytes) -> Bytes {
        self.read += data.len();
        self.note_movement();
        self.kept.take_in(&data);
        // An error here is one of the stream, which the next read will tell.
        let _ = self.body.flow_control().release_capacity(data.len());
        data
    }

    fn note_movement(&mut self) {
        self.moved = Instant::now();
        self.info.deadlines.note_movement(self.moved);
    }

    /// Resolves when the client resets the stream, or its connection ends.
    async fn gone(&mut self) -> Box<Error> {
        let (info, writer) = (&self.info, &mut self.writer);
        let reset = std::future::poll_fn(|context| {
            info.deadlines.client_is_asked();
            if info.is_cut() {
                return Poll::Ready(Ok(Reason::NO_ERROR));
            }
            match (&mut *writer, &info.respond) {
                (Some(writer), _) => writer.poll_reset(context),
                (None, Some(respond)) => respond.lock().poll_reset(context),
                (None, None) => Poll::Ready(Ok(Reason::CANCEL)),
            }
        });
        match reset.await {
            Ok(reason) => Error::explain(ErrorType::ConnectionClosed, format!("the client reset the stream: {reason}")),
            Err(e) => Error::because(ErrorType::ConnectionClosed, "the connection of the stream ended", e),
        }
    }

    /// Waits for the client to go away, for as long as the hooks allow it.
    pub(crate) async fn idle(&mut self) -> Box<Error> {
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
        let present = fields::present(&head.headers, &NOT_IN_HTTP2);
        for (name, _) in NOT_IN_HTTP2.iter().zip(present).filter(|(_, there)| *there) {
            head.remove_header(name);
        }
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
        // The origin's own is kept (RFC 9110 §6.6.1).
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
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

    pub(crate) async fn write_data(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else {
            return Error::e_explain(ErrorType::InternalError, "an answer's body before its head");
        };
        let mut left = data;
        while !left.is_empty() {
            writer.reserve_capacity(left.len());
            // Nearly always there is room at once, and no timer is needed.
            let at_once = writer.poll_capacity(&mut Context::from_waker(Waker::noop()));
            let room = match at_once {
                Poll::Ready(room) => room,
                Poll::Pending => {
                    let own = self.info.deadlines.write_limit(self.waited, self.sent as u64);
                    let limit = [own, self.write_timeout].into_iter().flatten().min().unwrap_or(Duration::MAX);
                    let (waited, room) = room::wait(writer, &self.info.deadlines, limit).await;
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
