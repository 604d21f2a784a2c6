//! The body of a request, out of what the connection hands on of it.

use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorType, OrErr as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    downstream::kept::Kept,
    message::{chunked::RemainingRequest, framing::Body},
};

/// The most that is taken of it at once. Larger parts would be fetched from the system and given back each time.
const MOST: usize = 32 << 10;

/// A body on its way.
#[derive(Debug)]
pub(super) struct RequestBody {
    left: RemainingRequest,
    empty: bool,
    /// Bytes that have been read, without what frames them.
    pub(super) read: usize,
    /// The same, for another attempt.
    pub(super) kept: Kept,
}

impl RequestBody {
    pub(super) fn new(body: Body) -> Self {
        Self { left: RemainingRequest::of(body), empty: body == Body::Length(0), read: 0, kept: Kept::Nothing }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left.is_done()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.empty
    }

    /// The next part; none at the end. To be dropped at any time.
    pub(super) async fn next(&mut self, connection: &mut (impl AsyncRead + Unpin)) -> Result<Option<Bytes>> {
        while !self.left.is_done() {
            let room = match &self.left {
                RemainingRequest::Length(left) => usize::try_from(*left).unwrap_or(MOST).min(MOST),
                _ => MOST,
            };
            let mut bytes = BytesMut::with_capacity(room);
            let length = connection.read_buf(&mut bytes).await.or_err(ErrorType::ReadError, "while reading a body")?;
            if length == 0 {
                return Error::e_explain(ErrorType::ConnectionClosed, "the client closed before the end of its body");
            }
            let data = self.unframe(bytes.freeze())?;
            if !data.is_empty() {
                self.read += data.len();
                self.kept.take_in(&data);
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// What of these bytes is content. Nearly always it is one part of them, and shared.
    fn unframe(&mut self, bytes: Bytes) -> Result<Bytes> {
        let (mut first, mut all) = (0..0, BytesMut::new());
        let outcome = self.left.push_with(&bytes, |part| {
            if first.is_empty() {
                first = part;
                return;
            }
            if all.is_empty() {
                all.extend_from_slice(&bytes[first.clone()]);
            }
            all.extend_from_slice(&bytes[part]);
        });
        match outcome {
            Ok(_) if all.is_empty() => Ok(bytes.slice(first)),
            Ok(_) => Ok(all.freeze()),
            // The connection has looked at it before, and would not have handed it on.
            Err(reason) => Error::e_explain(ErrorType::InvalidHTTPHeader, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chunked_body_is_what_was_sent_however_it_comes(
            body in proptest::collection::vec(any::<u8>(), 0..3000),
            size in 1usize..700,
            cuts in 1usize..900,
        ) {
            let mut wire = Vec::new();
            for chunk in body.chunks(size) {
                wire.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nx-end: 1\r\n\r\n");
            let mut reader = RequestBody::new(Body::Chunked);
            let mut read = Vec::new();
            for part in wire.chunks(cuts) {
                prop_assert!(!reader.is_done());
                read.extend_from_slice(&reader.unframe(Bytes::copy_from_slice(part)).unwrap());
            }
            prop_assert!(reader.is_done() && read == body);
        }
    }
}
