//! What comes of a request's body, and after it. Trailers are looked at for what must not be in them; they go nowhere.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderValue, header};
use pingora::{Error, ErrorType, OrErr as _, Result, http::RequestHeader};

use crate::{
    downstream::{connection::ConnectionInfo, kept::Kept},
    message::request_head::is_no_trailer,
};

/// What is wrong with a body that its `Content-Length` does not fit (RFC 9113 §8.1.1).
const LENGTH: &str = "the body is not as long as its Content-Length says";

const MISPLACED: &str = "there is a field in the trailers that does not belong there";

/// The body of a request.
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// What the `Content-Length` field says.
    length: Option<u64>,
    /// It says that there is none.
    empty: bool,
    /// How many bytes have been handed on.
    pub(crate) read: usize,
    /// What makes the body as long as its head says, until the client has said that nothing follows.
    last: Option<Bytes>,
    /// What has been read, for another attempt.
    pub(crate) kept: Kept,
}

impl StreamBody {
    /// Of the request with this head.
    pub(super) fn of(head: &RequestHeader, stream: RecvStream) -> Self {
        let said = head.headers.get(header::CONTENT_LENGTH);
        let length = said.and_then(|length| std::str::from_utf8(length.as_bytes()).ok()?.parse().ok());
        let zero = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
        Self { stream, length, empty: said.is_some_and(zero), read: 0, last: None, kept: Kept::Nothing }
    }

    /// Waits for the end of a body that says it is empty: a backend would take the head for the whole request, whatever
    /// came after it.
    pub(super) async fn settle_empty(&mut self, info: &ConnectionInfo, limit: Duration) {
        if self.stream.is_end_stream() || !self.empty {
            return;
        }
        let end = async {
            loop {
                match self.stream.data().await {
                    None => return true,
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(_) => return false,
                }
            }
        };
        match tokio::time::timeout(limit, end).await {
            Ok(true) => {}
            Ok(false) => info.misread("there is a body, and the Content-Length field says that it is empty"),
            Err(_) => info.misread("the end of the request did not come in time"),
        }
    }

    /// True when nothing is left to read.
    pub(super) fn is_read(&self) -> bool {
        self.last.is_none() && self.stream.is_end_stream()
    }

    /// What the next frames bring; an empty one brings nothing but perhaps the end, and whoever speaks HTTP/1 takes an
    /// empty part for the last chunk.
    async fn receive_some(&mut self, info: &ConnectionInfo) -> Result<Option<Bytes>> {
        loop {
            let data = receive(&mut self.stream, info).await?;
            if !data.as_ref().is_some_and(Bytes::is_empty) {
                return Ok(data);
            }
        }
    }

    /// The next part. The one that makes the body as long as its head says is held back until its end has come: whoever
    /// speaks HTTP/1 takes it for the end, whatever follows, and the codec finds out only then that the request is malformed
    /// (RFC 9113 §8.1.1). To be dropped at any time: what is held back is not lost.
    pub(super) async fn next(&mut self, info: &ConnectionInfo) -> Result<Option<Bytes>> {
        if self.last.is_none() {
            let Some(data) = self.receive_some(info).await? else { return Ok(None) };
            let so_far = self.read.saturating_add(data.len()) as u64;
            if self.length != Some(so_far) {
                return Ok(Some(self.pass(data)));
            }
            self.last = Some(data);
        }
        if !self.stream.is_end_stream() && self.receive_some(info).await?.is_some() {
            info.misread(LENGTH);
            return Error::e_explain(ErrorType::ReadError, LENGTH);
        }
        let last = self.last.take();
        Ok(last.map(|data| self.pass(data)))
    }

    /// Notes a part that is handed on.
    fn pass(&mut self, data: Bytes) -> Bytes {
        self.read += data.len();
        self.kept.take_in(&data);
        // An error here is one of the stream, which the next read will tell.
        let _ = self.stream.flow_control().release_capacity(data.len());
        data
    }
}

/// What the next frame brings.
async fn receive(body: &mut RecvStream, info: &ConnectionInfo) -> Result<Option<Bytes>> {
    let data = body.data().await.transpose();
    if data.as_ref().is_err_and(|e| e.is_library() && e.reason() == Some(Reason::PROTOCOL_ERROR)) {
        info.misread(LENGTH);
    }
    let data = data.or_err(ErrorType::ReadError, "while reading a request's body")?;
    if data.is_none() {
        // Nothing is left to wait for: this is not dropped in the middle.
        check_trailers(body, info).await?;
    }
    Ok(data)
}

/// A field that frames or describes the message came too late for that (RFC 9110 §6.5.1): the request is malformed.
async fn check_trailers(body: &mut RecvStream, info: &ConnectionInfo) -> Result<()> {
    let trailers = body.trailers().await.or_err(ErrorType::ReadError, "while reading a request's trailers")?;
    if trailers.is_some_and(|fields| fields.keys().any(|name| is_no_trailer(name.as_str().as_bytes()))) {
        info.misread(MISPLACED);
        return Error::e_explain(ErrorType::ReadError, MISPLACED);
    }
    Ok(())
}
