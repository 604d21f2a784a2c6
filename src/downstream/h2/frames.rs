//! How long a client may take to send the head of a request over HTTP/2.
//!
//! The codec puts a head together from a HEADERS frame and any number of CONTINUATION frames, and tells nobody before it
//! has ended; it has no clock. What passes below it is looked at here: only the frames' own nine bytes are read (RFC 9113
//! §4.1), to know whether a head has been begun and not ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// The client's first bytes: `PRI * HTTP/2.0` and so on (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Length, type, flags and stream of a frame.
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in the sequence of frames a connection is.
#[derive(Debug, Default)]
struct Position {
    preface: usize,
    header: [u8; HEADER],
    /// Bytes of `header` that have come.
    known: usize,
    /// What is to come of the frame's payload.
    payload: usize,
    /// A head has been begun, and its last frame has not.
    open: bool,
}

impl Position {
    fn pass(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        let preface = bytes.len().min(PREFACE - self.preface);
        self.preface += preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = bytes.len().min(self.payload);
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEADER - self.known);
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEADER {
                self.known = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                self.open = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
            }
        }
    }

    /// True in the middle of a head: of its frames, or of one of them.
    fn in_head(&self) -> bool {
        let within = self.known > 0 || self.payload > 0 && matches!(self.header[3], HEADERS | CONTINUATION);
        self.open || within
    }
}

/// A connection whose heads have a time limit.
#[derive(Debug)]
pub(crate) struct Timed<S> {
    inner: S,
    limit: Duration,
    position: Position,
    /// Rings when a head has taken too long; there while one is being sent.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, position: Position::default(), alarm: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        if read.is_ready() {
            this.position.pass(&buffer.filled()[before..]);
        }
        if !this.position.in_head() {
            this.alarm = None;
            return read;
        }
        let limit = this.limit;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if alarm.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a request's head took too long")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap_or_default().to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0);
        frame
    }

    #[test]
    fn a_head_lasts_from_its_first_byte_to_the_end_of_its_last_frame() {
        let stages = [
            (vec![b'P'; PREFACE], false),
            (frame(4, 0, 30), false),
            (frame(HEADERS, 1, 40), true),
            (frame(CONTINUATION, 0, 0), true),
            (frame(CONTINUATION, END_HEADERS, 5), false),
            (frame(0, 0, 20_000), false),
            (frame(0, 0, 300)[..100].to_vec(), false),
            (vec![0; 209], false),
            (frame(HEADERS, END_HEADERS, 40)[..30].to_vec(), true),
            (vec![0; 19], false),
            (vec![0], true),
        ];
        for size in [1, 2, 7, 1000] {
            let mut position = Position::default();
            for (number, (bytes, in_head)) in stages.iter().enumerate() {
                bytes.chunks(size).for_each(|bytes| position.pass(bytes));
                assert_eq!(position.in_head(), *in_head, "stage {number}, {size} bytes at a time");
            }
        }
    }
}
