//! What `fuzz/` checks of a client's first bytes; compiled for fuzzing alone.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a finding is a panic")]

use std::io::Cursor;

use pingora::protocols::http::v1::server::HttpSession;
use tokio::runtime::Runtime;

use super::{
    head_reader::{BufferedRequest, ReadOutcome, parse_head},
    limits::ClientLimits,
    proxy_protocol,
};
use crate::message::{
    chunked::{Chunked, RemainingRequest},
    request_head,
};

fn executor() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What is accepted here Pingora accepts too, and reads alike: method, fields, body, end.
pub fn head(bytes: &[u8]) {
    let Some(length) = request_head::head_length(bytes, 0) else { return };
    let limits = ClientLimits { headers: 250, ..ClientLimits::default() };
    let ReadOutcome::Head(_, arrived) = parse_head(bytes.to_vec(), length, &limits, true) else { return };
    let BufferedRequest { bytes, rest, .. } = arrived;
    executor().block_on(async {
        let mut session = HttpSession::new(Box::new(Cursor::new(bytes.clone())));
        let read = session.read_request().await.expect("Pingora refuses what was accepted");
        assert!(read.is_some(), "Pingora waits for more");
        let parsed = session.req_header().clone();
        let end = request_head::head_length(&bytes, 0).unwrap();
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.trim_start_matches(['\r', '\n']).split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        assert_eq!(first.next().unwrap(), parsed.method.as_str());
        assert_eq!(first.next().unwrap().as_bytes(), parsed.raw_path());
        let fields = lines.filter(|line| !line.is_empty()).count();
        assert_eq!(fields, parsed.headers.len(), "{parsed:?}");
        if matches!(rest, RemainingRequest::Everything) {
            return;
        }
        let mut body = Vec::new();
        let whole = loop {
            match session.read_body_bytes().await {
                Ok(Some(part)) => body.extend_from_slice(&part),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert_eq!(whole, rest.is_done(), "one of two takes the body for whole: {rest:?}");
        if whole {
            let coded = parsed.headers.contains_key("transfer-encoding");
            let expected = if coded { decoded(&bytes[end..]) } else { bytes[end..].to_vec() };
            assert_eq!(body, expected);
        }
    });
}

/// The content of a chunked body that is known to be well-formed.
fn decoded(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..digits]).unwrap(), 16).unwrap();
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        if size == 0 {
            return out;
        }
        out.extend_from_slice(&bytes[line..line + size]);
        bytes = &bytes[line + size + 2..];
    }
}

/// However a chunked body is cut, it is read alike; and as Pingora reads it.
pub fn chunks(bytes: &[u8]) {
    let mut whole = Chunked::new();
    let expected = whole.push(bytes);
    let (mut parts, mut sum) = (Chunked::new(), Ok(0));
    for part in bytes.chunks(3) {
        sum = sum.and_then(|sum| parts.push(part).map(|length| sum + length));
    }
    assert_eq!(sum, expected);
    head(&[b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", bytes].concat());
}

/// The PROXY protocol never reads beyond its header, and never panics.
pub fn proxy_protocol(bytes: &[u8]) {
    executor().block_on(async {
        let mut rest = bytes;
        if proxy_protocol::read(&mut rest).await.is_ok() {
            let header = &bytes[..bytes.len() - rest.len()];
            let mut alone = header;
            assert!(proxy_protocol::read(&mut alone).await.is_ok() && alone.is_empty());
        }
    });
}
