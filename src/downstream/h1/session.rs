//! A request as Pingora's proxy takes it: nothing here but the trait's methods.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
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

use super::stream_session::Http1Session;
use crate::downstream::{kept::Kept, transport::Transport};

#[async_trait]
impl<T: Transport> Session for Http1Session<T> {
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
        self.drain().await.map_err(Error::into_down)
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        // Nothing may follow an interim head, or one without a body, for a while.
        let alone = head.status.is_informational();
        self.take_head(head, end).map_err(Error::into_down)?;
        if alone || end || self.answer.has_ended() {
            self.flush().await.map_err(Error::into_down)?;
        }
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let tasks = vec![HttpTask::Body(Some(data), end)];
        self.response_duplex_vec(tasks).await.map(drop)
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.response_duplex_vec(vec![HttpTask::Trailer(Some(Box::new(trailers)))]).await.map(drop)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let (mut end, mut trailers, mut failed) = (false, None, None);
        for task in tasks {
            end |= match task {
                HttpTask::Header(head, end) => self.take_head_and_body(head, end).await.map_err(Error::into_down)?,
                HttpTask::Body(data, end) => {
                    self.take_part(data.unwrap_or_default()).await.map_err(Error::into_down)?;
                    end
                }
                HttpTask::Trailer(last) => {
                    trailers = last;
                    true
                }
                HttpTask::Done => true,
                HttpTask::Failed(e) => {
                    failed = Some(e);
                    break;
                }
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "an upgrade that nobody asked for");
                }
            };
        }
        if end && failed.is_none() {
            self.answer.end(trailers.as_deref()).map_err(Error::into_down)?;
        }
        self.flush().await.map_err(Error::into_down)?;
        failed.map_or(Ok(end || self.answer.has_ended()), Err)
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

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.close().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.body.is_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.give_back().await.map_err(Error::into_down)
    }

    fn is_body_empty(&mut self) -> bool {
        self.body.is_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.body.is_done() {
            return Err(self.idle().await.into_down());
        }
        self.read_body_bytes().await
    }

    fn body_bytes_sent(&self) -> usize {
        usize::try_from(self.answer.sent).unwrap_or(usize::MAX)
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
