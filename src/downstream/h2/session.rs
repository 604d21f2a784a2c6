//! A stream as Pingora's proxy takes it: nothing here but the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use h2::Reason;
use http::HeaderMap;
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::{
        Digest,
        http::{
            HttpTask,
            custom::{CustomMessageWrite, server::Session},
        },
        l4::socket::SocketAddr,
    },
};

use super::stream::StreamSession;
use crate::downstream::kept::Kept;

#[async_trait]
impl Session for StreamSession {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await.map_err(Error::into_down)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let limit = self.drain_timeout.unwrap_or(Duration::from_secs(60));
        let drain = async {
            while self.next_chunk().await?.is_some() {}
            Ok(())
        };
        let timed_out = |_| Error::explain(ErrorType::ReadTimedout, "while draining a request's body");
        tokio::time::timeout(limit, drain).await.map_err(timed_out)?
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.write_head(head, end).map(drop).map_err(Error::into_down)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_head(Box::new(head.clone()), end).map(drop).map_err(Error::into_down)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.take_part(data, end).await.map_err(Error::into_down)
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.write_tail(trailers).await.map_err(Error::into_down)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end |= match task {
                HttpTask::Header(head, end) => match head_and_body(self, head, end).await {
                    Ok(end) => end,
                    Err(e) => self.leave(e).map(|()| false).map_err(Error::into_down)?,
                },
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.take_part(data, end).await.map(|()| end).map_err(Error::into_down)?
                }
                HttpTask::Body(_, end) => end,
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_tail(*trailers).await.map(|()| true).map_err(Error::into_down)?
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(e) => return Err(e),
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "an upgrade over HTTP/2");
                }
            };
        }
        if end {
            self.write_rest().await.map_err(Error::into_down)?;
            self.end().map_err(Error::into_down)?;
        }
        Ok(end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, code: u32, _: &str) {
        if !self.ended {
            self.ended = true;
            if let Some(respond) = &self.info.respond {
                respond.lock().send_reset(if code == 0 { Reason::INTERNAL_ERROR } else { Reason::from(code) });
            }
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.is_read()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end().map_err(Error::into_down)
    }

    fn is_body_empty(&mut self) -> bool {
        self.body.read == 0 && self.is_read()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_read() {
            return Err(self.idle().await.into_down());
        }
        self.read_body_bytes().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body.read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        // Only subrequests ask for it, and there are none.
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        if matches!(self.body.kept, Kept::Nothing) {
            self.body.kept = Kept::Bytes(BytesMut::new());
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        matches!(self.body.kept, Kept::TooMuch)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let Kept::Bytes(kept) = &self.body.kept else { return None };
        (!kept.is_empty()).then(|| kept.clone().freeze())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures_core::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn futures_core::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

/// Writes a head, and the body that was left for it if there is one; true when the end has been said with that.
async fn head_and_body(stream: &mut StreamSession, head: Box<ResponseHeader>, end: bool) -> Result<bool> {
    let body = if head.status.is_informational() { None } else { stream.info.take_body() };
    let Some(parts) = body else { return stream.write_head(head, end) };
    stream.write_head(head, parts.is_empty())?;
    let last = parts.len().saturating_sub(1);
    for (number, part) in parts.into_iter().enumerate() {
        stream.write_data(part, number == last).await?;
    }
    Ok(stream.ended)
}
