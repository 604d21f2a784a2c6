//! What has been read of a client's connection and not been handed on yet, told apart: what belongs to the request that
//! is under way, and what belongs to those after it. Where a body ends is decided here and nowhere else: one that is taken
//! from the wrong place makes bytes of a body a request.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::head_reader::BufferedRequest;
use crate::message::{chunked::RemainingRequest, violation::Violation};

/// The most that is taken of requests which a client sends without waiting for the answer to the one before.
const MOST_AHEAD: usize = 16 << 10;

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadStep {
    /// Bytes of the request; none at the end of the connection.
    Read,
    /// The request is malformed.
    Malformed(Violation),
    /// The request has come in full, and as much of those after it as is taken.
    Full,
}

/// Bytes of one connection.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Of the request, to be handed out before any others, from `given` on.
    own: Vec<u8>,
    given: usize,
    /// What is still to come of the request.
    rest: RemainingRequest,
    /// Of the requests after it: nothing while there is a rest. The HTTP layer does not get to see that before it is done
    /// with this one.
    next: Vec<u8>,
}

impl ReadAhead {
    pub(super) fn new() -> Self {
        Self { own: Vec::new(), given: 0, rest: RemainingRequest::Everything, next: Vec::new() }
    }

    /// A request has been found at the beginning of what was read.
    ///
    /// # Errors
    /// What is wrong with its body.
    pub(super) fn begin(&mut self, request: BufferedRequest) -> Result<(), Violation> {
        let BufferedRequest { mut bytes, mut rest, mut next } = request;
        // Its head was looked for in a part of what had been read: its body goes on in the remainder.
        let remainder = &self.own[self.given..];
        let (own, later) = remainder.split_at(rest.push(remainder)?);
        bytes.extend_from_slice(own);
        next.extend_from_slice(later);
        (self.own, self.given, self.rest, self.next) = (bytes, 0, rest, next);
        Ok(())
    }

    /// A request is done with: reading goes on with the one after it. False when something of it has not been handed on,
    /// which must not be taken for the beginning of another one.
    pub(super) fn turn(&mut self) -> bool {
        if !self.is_handed_on() {
            return false;
        }
        (self.own, self.given, self.rest) = (std::mem::take(&mut self.next), 0, RemainingRequest::Everything);
        true
    }

    /// True when the whole of a request has been handed on.
    pub(super) fn is_handed_on(&self) -> bool {
        self.given >= self.own.len() && self.rest.is_done()
    }

    /// True when the whole of a request has come.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_done()
    }

    /// True when the client of an HTTP/1 request has sent, or may still be sending, what nobody is going to read.
    pub(super) fn is_unread(&mut self, inner: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> bool {
        if self.rest == RemainingRequest::Everything {
            return false;
        }
        let mut space = [MaybeUninit::uninit(); 1];
        let mut buffer = ReadBuf::uninit(&mut space);
        !self.rest.is_done()
            || !self.next.is_empty()
            || (Pin::new(inner).poll_read(context, &mut buffer).is_ready() && !buffer.filled().is_empty())
    }

    /// Another protocol begins: what follows the request belongs to that, also what has come too early. Backends do not get
    /// to see it before they have agreed: to one that does not, it is the next request.
    pub(super) fn switch_protocols(&mut self) {
        if self.rest == RemainingRequest::Everything {
            return;
        }
        self.rest = RemainingRequest::Everything;
        self.own.append(&mut self.next);
    }

    /// Hands out more of the request, and keeps back what belongs to others.
    pub(super) fn poll_read(
        &mut self,
        inner: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<ReadStep>> {
        if self.given < self.own.len() {
            self.give(buffer);
            return Poll::Ready(Ok(ReadStep::Read));
        }
        if self.rest.is_done() { self.poll_next(inner, context) } else { self.poll_rest(inner, context, buffer) }
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.own[self.given..];
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        self.given += length;
        if self.given == self.own.len() {
            (self.own, self.given) = (Vec::new(), 0);
        }
    }

    fn poll_rest(
        &mut self,
        inner: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<ReadStep>> {
        let before = buffer.filled().len();
        ready!(Pin::new(inner).poll_read(context, buffer))?;
        let bytes = &buffer.filled()[before..];
        let own = match self.rest.push(bytes) {
            Ok(own) => own,
            Err(reason) => return Poll::Ready(Ok(ReadStep::Malformed(reason))),
        };
        self.next.extend_from_slice(&bytes[own..]);
        buffer.set_filled(before + own);
        Poll::Ready(Ok(ReadStep::Read))
    }

    /// Whoever reads now wants to know whether the client is still there, and brings a buffer of one byte.
    fn poll_next(
        &mut self,
        inner: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<ReadStep>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        while self.next.len() < MOST_AHEAD {
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *inner).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(ReadStep::Read));
            }
            self.next.extend_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(ReadStep::Full))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::VecDeque;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::downstream::{
        head_reader::{Protocols, ReadOutcome, read},
        limits::ClientLimits,
    };

    /// What comes over the network, read by read; nothing yet where it is empty.
    struct Network(VecDeque<Vec<u8>>);

    impl AsyncRead for Network {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let parts = &mut self.get_mut().0;
            let Some(part) = parts.front_mut() else { return Poll::Ready(Ok(())) };
            if part.is_empty() {
                parts.pop_front();
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let length = part.len().min(buffer.remaining());
            buffer.put_slice(&part[..length]);
            part.drain(..length);
            if part.is_empty() {
                parts.pop_front();
            }
            Poll::Ready(Ok(()))
        }
    }

    /// A connection without what is watched beside reading.
    struct Wire {
        ahead: ReadAhead,
        network: Network,
    }

    impl AsyncRead for Wire {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let Self { ahead, network } = self.get_mut();
            match ready!(ahead.poll_read(network, context, buffer))? {
                ReadStep::Read => Poll::Ready(Ok(())),
                ReadStep::Malformed(reason) => Poll::Ready(Err(io::Error::other(reason))),
                ReadStep::Full => Poll::Pending,
            }
        }
    }

    fn request(chunks: Option<usize>, body: &[u8]) -> Vec<u8> {
        let Some(size) = chunks else {
            let length = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
            return [length.as_bytes(), body].concat();
        };
        let mut bytes = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(size) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nX-Trailer: a\r\n\r\n");
        bytes
    }

    /// Bodies that look like requests, wherever they are cut.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        (0usize..12_000, 0usize..50).prop_map(|(length, from)| {
            let text = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n0\r\n\r\n";
            text.iter().cycle().skip(from).take(length).copied().collect()
        })
    }

    /// Serves what comes over the network as a listener does, request after request; `sizes` are those of the buffers
    /// that bodies are read with, `probes` how often it is looked whether the client is still there.
    async fn serve(network: Network, count: usize, sizes: &[usize], probes: &[usize]) -> Vec<Vec<u8>> {
        let mut wire = Wire { ahead: ReadAhead::new(), network };
        let (mut told, limits) = (Vec::new(), ClientLimits::default());
        for number in 0..count {
            let mut first = vec![0; 4096];
            let length = wire.read(&mut first).await.unwrap();
            first.truncate(length);
            let outcome = read(&mut wire, first, &limits, Protocols::Http1, false).await;
            let ReadOutcome::Head(_, found) = outcome else { panic!("request {number} is none") };
            wire.ahead.begin(found).unwrap();
            let (mut all, mut step) = (Vec::new(), number);
            while wire.ahead.given < wire.ahead.own.len() || !wire.ahead.rest.is_done() {
                assert!(!wire.ahead.turn(), "it is not done with");
                step += 1;
                let mut buffer = vec![0; sizes[step % sizes.len()]];
                let length = wire.read(&mut buffer).await.unwrap();
                assert!(length > 0, "request {number} ends early");
                all.extend_from_slice(&buffer[..length]);
            }
            for _ in 0..probes[number % probes.len()] {
                let mut context = Context::from_waker(std::task::Waker::noop());
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                let _ = Pin::new(&mut wire).poll_read(&mut context, &mut byte);
                assert!(byte.filled().is_empty(), "nobody is told what follows");
            }
            told.push(all);
            assert!(wire.ahead.turn());
        }
        told
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn each_request_gets_its_bytes_however_they_come(
            requests in proptest::collection::vec((proptest::option::of(1usize..5000), body()), 1..6),
            cuts in proptest::collection::vec(0usize..60_000, 0..12),
            pauses in proptest::collection::vec(any::<bool>(), 1..8),
            sizes in proptest::collection::vec(1usize..9000, 1..5),
            probes in proptest::collection::vec(0usize..6, 1..5),
        ) {
            let sent: Vec<_> = requests.iter().map(|(chunks, body)| request(*chunks, body)).collect();
            let bytes = sent.concat();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % bytes.len()).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut parts, mut from) = (VecDeque::new(), 0);
            for (number, cut) in cuts.into_iter().enumerate() {
                if pauses[number % pauses.len()] {
                    parts.push_back(Vec::new());
                }
                if from < cut {
                    parts.push_back(bytes[from..cut].to_vec());
                }
                from = cut;
            }
            let executor = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let told = executor.block_on(serve(Network(parts), sent.len(), &sizes, &probes));
            prop_assert!(told == sent, "{:?} instead of {:?}",
                told.iter().map(Vec::len).collect::<Vec<_>>(), sent.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_malformed_is_found_in_what_was_read_ahead() {
        let mut ahead = ReadAhead::new();
        ahead.own = b"5\r\nhello\r\nxyz".to_vec();
        let rest = RemainingRequest::of(crate::message::framing::Body::Chunked);
        let found = BufferedRequest { bytes: b"head".to_vec(), rest, next: Vec::new() };
        assert!(ahead.begin(found).is_err());
    }
}
