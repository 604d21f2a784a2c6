//! Waiting for a request, and reading its head: strictly, and within one time limit for all of it.

use std::{pin::pin, task::Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{limits::ClientLimits, validate::LONGEST_METHOD};
use crate::message::{chunked::RemainingRequest, framing::Body, replies, reply::Reply, request_head};

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What came of waiting for a request.
pub(crate) enum ReadOutcome {
    /// A head with as much of its body as came along.
    Head(HeadFacts, BufferedRequest),
    /// The beginning of HTTP/2.
    H2(Vec<u8>),
    /// A head that is refused.
    Refused(Box<Reply>),
    /// The connection ended, was silent for too long, or this process leaves.
    Nobody,
}

/// What there is to know of a head before it is parsed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadFacts {
    /// Its length in bytes.
    pub(crate) length: usize,
    /// How many fields it has.
    pub(crate) fields: usize,
    /// What follows it.
    pub(crate) body: Body,
    /// It asks for another protocol.
    pub(crate) upgrade: bool,
}

/// What has been read of a request.
pub(crate) struct BufferedRequest {
    /// Its head, and the beginning of its body.
    pub(crate) bytes: Vec<u8>,
    /// What is still to come of it.
    pub(crate) rest: RemainingRequest,
    /// The beginning of the request after it, when the client did not wait (RFC 9112 §9.3.2).
    pub(crate) next: Vec<u8>,
}

impl ReadOutcome {
    fn refused(reply: Reply) -> Self {
        Self::Refused(Box::new(reply))
    }
}

/// Which protocols a connection may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocols {
    Http1,
    Http2,
    Either,
}

/// Reads on from the `first` bytes until the head is complete, or says 408. `secure`: they came over TLS.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    first: Vec<u8>,
    limits: &ClientLimits,
    speech: Protocols,
    secure: bool,
) -> ReadOutcome {
    let mut reading = pin!(async {
        match speech {
            Protocols::Http2 => read_preface(stream, first).await,
            _ => read_head(stream, first, limits, speech, secure).await,
        }
    });
    // Nearly always all of it has come at once, and then no timer is needed.
    if let Poll::Ready(knock) = std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        return knock;
    }
    match tokio::time::timeout(limits.head.0, reading).await {
        Ok(knock) => knock,
        Err(_) if speech == Protocols::Http2 => ReadOutcome::Nobody,
        Err(_) => ReadOutcome::refused(replies::too_slow()),
    }
}

async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    first: Vec<u8>,
    limits: &ClientLimits,
    speech: Protocols,
    secure: bool,
) -> ReadOutcome {
    // What cannot become a request is not waited for.
    match first.first() {
        Some(&TLS_HANDSHAKE) => {
            return ReadOutcome::refused(replies::malformed("this port does not speak TLS: use http"));
        }
        Some(byte) if request_head::may_begin(*byte) => {}
        _ => return ReadOutcome::refused(replies::malformed("a request begins with a method")),
    }
    let most = usize::try_from(limits.uri.0 + limits.header_size.0).unwrap_or(usize::MAX).saturating_add(1024);
    let (mut bytes, mut searched) = (first, 0);
    loop {
        if let Some(length) = request_head::head_length(&bytes, searched) {
            if speech == Protocols::Either && PREFACE.starts_with(&bytes[..length]) {
                return read_preface(stream, bytes).await;
            }
            // Its end may have come with what made it too long.
            if length > most {
                return ReadOutcome::refused(replies::too_large(false));
            }
            return parse_head(bytes, length, limits, secure);
        }
        if bytes.len() > most {
            return ReadOutcome::refused(replies::too_large(!bytes.contains(&b'\n')));
        }
        searched = bytes.len();
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return ReadOutcome::Nobody;
        }
    }
}

/// Looks at a complete head of this `length`, and at what has come of its body.
pub(crate) fn parse_head(bytes: Vec<u8>, length: usize, limits: &ClientLimits, secure: bool) -> ReadOutcome {
    let facts = match request_head::verify(&bytes[..length], secure) {
        Ok(facts) if facts.method > LONGEST_METHOD => return ReadOutcome::refused(replies::unknown_method()),
        // More than Pingora would parse: it would answer them with an empty 400.
        Ok(facts) if facts.fields > limits.headers + 2 => return ReadOutcome::refused(replies::too_large(false)),
        // Pingora would answer it with an empty 405.
        Ok(_) if bytes.trim_ascii_start().starts_with(b"CONNECT ") => {
            return ReadOutcome::refused(replies::no_such_method());
        }
        Ok(facts) => facts,
        Err(reason) => return ReadOutcome::refused(replies::malformed(reason)),
    };
    let mut rest = RemainingRequest::of(facts.body);
    let own = match rest.push(&bytes[length..]) {
        Ok(own) => own,
        Err(reason) => return ReadOutcome::refused(replies::malformed(reason)),
    };
    let mut bytes = bytes;
    let next = bytes.split_off(length + own);
    let before = bytes.len();
    if let Some((place, origin_form)) = facts.rewrite {
        bytes.splice(place, origin_form);
    }
    if let Some(host) = facts.host {
        let line_end =
            bytes.iter().skip(facts.start).position(|byte| *byte == b'\n').map_or(0, |at| facts.start + at + 1);
        bytes.splice(line_end..line_end, [b"Host: ", &host[..], b"\r\n"].concat());
    }
    let length = length + bytes.len() - before;
    // One that was written in for want of it counts, too.
    let head = HeadFacts { length, fields: facts.fields + 1, body: facts.body, upgrade: facts.upgrade };
    ReadOutcome::Head(head, BufferedRequest { bytes, rest, next })
}

/// The rest of the preface: the HTTP/2 layer would wait for it without a limit.
async fn read_preface(stream: &mut (impl AsyncRead + Unpin), mut bytes: Vec<u8>) -> ReadOutcome {
    while bytes.len() < PREFACE.len() {
        if !PREFACE.starts_with(&bytes) || !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return ReadOutcome::Nobody;
        }
    }
    if bytes.starts_with(PREFACE) { ReadOutcome::H2(bytes) } else { ReadOutcome::Nobody }
}
