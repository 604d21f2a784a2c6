//! An answer as bytes of HTTP/1: its head, what frames its body, its end (RFC 9112).

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    protocols::http::date::get_cached_date,
};

use crate::message::fields;

/// Larger parts of a body are not copied behind what stands before them.
pub(super) const LARGE: usize = 8 << 10;

/// What is said of the body and of this hop.
static OURS: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::DATE, header::UPGRADE];

/// What is to be known of the request that is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// `HEAD`: the answer has no body, whatever its head says.
    head_only: bool,
    /// HTTP/1.0: no chunks, no interim answers.
    old: bool,
    /// It reads trailers.
    trailers: bool,
}

impl Asked {
    /// By `head`.
    pub(crate) fn by(head: &RequestHeader) -> Self {
        let old = head.version == Version::HTTP_10;
        let trailers = fields::has(&head.headers, &header::TE, |word| word.eq_ignore_ascii_case(b"trailers"));
        Self { head_only: head.method == Method::HEAD, old, trailers }
    }
}

/// True when the client expects the connection to serve on (RFC 9112 §9.3).
pub(crate) fn is_persistent(head: &RequestHeader) -> bool {
    let says = |word: &[u8]| fields::has(&head.headers, &header::CONNECTION, |said| said.eq_ignore_ascii_case(word));
    !says(b"close") && (head.version != Version::HTTP_10 || says(b"keep-alive"))
}

/// Where the body of the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// There is no head yet.
    Unknown,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked,
    /// With the connection.
    Connection,
    /// Nothing more is written.
    Ended,
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Outgoing {
    asked: Asked,
    extent: Extent,
    /// What is to be written next.
    pub(crate) out: BytesMut,
    /// Bytes of the body so far.
    pub(crate) sent: u64,
}

impl Outgoing {
    /// The answer to what was `asked`.
    pub(crate) fn to(asked: Asked) -> Self {
        Self { asked, extent: Extent::Unknown, out: BytesMut::new(), sent: 0 }
    }

    /// True when all of it has been said.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.extent, Extent::Ended | Extent::Length(0))
    }

    /// True when its end is that of the connection.
    pub(crate) fn ends_connection(&self) -> bool {
        self.extent == Extent::Connection
    }

    /// An interim head; those who speak HTTP/1.0 do not know such (RFC 9110 §15.2).
    pub(crate) fn interim(&mut self, head: &ResponseHeader) {
        if !self.asked.old {
            self.line(head);
            head.header_to_h1_wire(&mut self.out);
            self.out.put_slice(b"\r\n");
        }
    }

    /// The head; `closes`: the connection ends after it. With `end` there is no body.
    pub(crate) fn head(&mut self, head: &mut ResponseHeader, end: bool, closes: bool) -> Result<()> {
        let bodiless = self.is_bodiless(head.status);
        let [length, coding, connection, date, upgrade] = fields::present(&head.headers, &OURS);
        let mut chunked = !length && coding;
        if chunked && self.asked.old {
            // It would take chunks for the body: there, the end of the connection is that of the body.
            head.remove_header(&header::TRANSFER_ENCODING);
            chunked = false;
        }
        self.extent = match () {
            () if bodiless => Extent::Ended,
            () if length => Extent::Length(content_length(head)?),
            () if chunked => Extent::Chunked,
            () if end => Extent::Length(0),
            () => Extent::Connection,
        };
        if connection {
            // It was meant for another hop.
            head.remove_header(&header::CONNECTION);
        }
        // With the fields of limits, and a short body.
        self.out.reserve(1024);
        self.line(head);
        head.header_to_h1_wire(&mut self.out);
        if self.extent == Extent::Length(0) && !length {
            self.out.put_slice(b"Content-Length: 0\r\n");
        }
        // The origin's own is kept (RFC 9110 §6.6.1).
        if !date {
            self.out.put_slice(b"Date: ");
            self.out.put_slice(get_cached_date().as_bytes());
            self.out.put_slice(b"\r\n");
        }
        self.connection(upgrade, closes || self.extent == Extent::Connection);
        self.out.put_slice(b"\r\n");
        Ok(())
    }

    /// What is said of the connection (RFC 9112 §9.3): that it ends, or that it does not to those who expect it to; and that
    /// `Upgrade` is for this hop (RFC 9110 §7.8).
    fn connection(&mut self, upgrade: bool, closes: bool) {
        let line: &[u8] = match (closes, upgrade) {
            (true, true) => b"Connection: upgrade, close\r\n",
            (true, false) => b"Connection: close\r\n",
            (false, true) => b"Connection: upgrade, keep-alive\r\n",
            (false, false) => b"Connection: keep-alive\r\n",
        };
        self.out.put_slice(line);
    }

    fn line(&mut self, head: &ResponseHeader) {
        self.out.put_slice(b"HTTP/1.1 ");
        self.out.put_slice(head.status.as_str().as_bytes());
        self.out.put_slice(b" ");
        self.out.put_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
        self.out.put_slice(b"\r\n");
    }

    /// True for answers that have no body, whatever a backend sends after the head (RFC 9110 §6.4.1).
    fn is_bodiless(&self, status: StatusCode) -> bool {
        self.asked.head_only || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// A part of the body: `out` has what stands before it, and what is handed back is to be written after that, and then
    /// `after`.
    pub(crate) fn part(&mut self, data: Bytes) -> Option<(Bytes, &'static [u8])> {
        let mut data = data;
        let after: &[u8] = match &mut self.extent {
            Extent::Unknown | Extent::Ended => return None,
            Extent::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                b""
            }
            Extent::Chunked => b"\r\n",
            Extent::Connection => b"",
        };
        if data.is_empty() {
            return None;
        }
        self.sent += data.len() as u64;
        if self.extent == Extent::Chunked {
            self.size(data.len());
        }
        if data.len() > LARGE {
            return Some((data, after));
        }
        self.out.reserve(data.len() + after.len());
        self.out.put_slice(&data);
        self.out.put_slice(after);
        None
    }

    /// So many bytes of the body that are written by another way; says how many of them belong to it. Only for one of which
    /// the head says the length.
    pub(super) fn pass(&mut self, bytes: usize) -> usize {
        let Extent::Length(left) = &mut self.extent else { return 0 };
        let bytes = bytes.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= bytes as u64;
        self.sent += bytes as u64;
        bytes
    }

    fn size(&mut self, length: usize) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            self.out.put_u8(DIGITS[length >> (4 * place) & 15]);
        }
        self.out.put_slice(b"\r\n");
    }

    /// The end, with `trailers` if there are any and they are read.
    ///
    /// # Errors
    /// The body is not as long as the head has said.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<()> {
        match self.extent {
            Extent::Chunked => {
                self.out.put_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten().filter(|_| self.asked.trailers) {
                    self.out.put_slice(name.as_str().as_bytes());
                    self.out.put_slice(b": ");
                    self.out.put_slice(value.as_bytes());
                    self.out.put_slice(b"\r\n");
                }
                self.out.put_slice(b"\r\n");
            }
            Extent::Length(1..) => {
                return Error::e_explain(ErrorType::WriteError, "the answer is shorter than its head says");
            }
            Extent::Length(0) | Extent::Connection | Extent::Ended => {}
            Extent::Unknown => return Ok(()),
        }
        self.extent = Extent::Ended;
        Ok(())
    }
}

fn content_length(head: &ResponseHeader) -> Result<u64> {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
    length.ok_or_else(|| Error::explain(ErrorType::InternalError, "an answer whose Content-Length is no number"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn answer(
        asked: (&str, Version),
        status: u16,
        fields: &[(&'static str, &'static str)],
        parts: &[&'static str],
    ) -> (String, bool) {
        let mut request = RequestHeader::build(asked.0, b"/", None).unwrap();
        request.set_version(asked.1);
        request.insert_header("te", "trailers").unwrap();
        let mut head = ResponseHeader::build(status, None).unwrap();
        head.insert_header("date", "then").unwrap();
        for (name, value) in fields {
            head.insert_header(*name, *value).unwrap();
        }
        let mut answer = Outgoing::to(Asked::by(&request));
        answer.head(&mut head, parts.is_empty(), false).unwrap();
        let closes = answer.ends_connection();
        for part in parts {
            if let Some((large, after)) = answer.part(Bytes::from_static(part.as_bytes())) {
                answer.out.put_slice(&large);
                answer.out.put_slice(after);
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        answer.end(Some(&trailers)).unwrap();
        assert!(answer.has_ended());
        let text = String::from_utf8(answer.out.to_vec()).unwrap();
        (text.split_once("\r\n").unwrap().1.replace("date: then\r\n", ""), closes)
    }

    #[test]
    fn each_kind_of_body_is_framed_as_its_client_reads_it() {
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        let keeps = "Connection: keep-alive\r\n";
        let chunked = [("transfer-encoding", "chunked")];
        let long = "x".repeat(0x2345).leak();
        for (asked, status, fields, parts, expected) in [
            (
                ("GET", new),
                200,
                &[("content-length", "3")][..],
                &["ab", "cd"][..],
                format!("content-length: 3\r\n{keeps}\r\nabc"),
            ),
            (("HEAD", new), 200, &[("content-length", "3")], &["abc"], format!("content-length: 3\r\n{keeps}\r\n")),
            (("GET", new), 204, &[], &["abc"], format!("{keeps}\r\n")),
            (("GET", new), 200, &[], &[], format!("Content-Length: 0\r\n{keeps}\r\n")),
            (
                ("GET", new),
                200,
                &chunked,
                &["ab", "", long],
                format!("transfer-encoding: chunked\r\n{keeps}\r\n2\r\nab\r\n2345\r\n{long}\r\n0\r\nx-end: 1\r\n\r\n"),
            ),
            (("GET", old), 200, &chunked, &["ab", "c"], "Connection: close\r\n\r\nabc".to_owned()),
            (("GET", new), 200, &[], &["ab"], "Connection: close\r\n\r\nab".to_owned()),
            (
                ("GET", new),
                426,
                &[("upgrade", "h3")],
                &[],
                "upgrade: h3\r\nContent-Length: 0\r\nConnection: upgrade, keep-alive\r\n\r\n".to_owned(),
            ),
        ] {
            let (text, closes) = answer(asked, status, fields, parts);
            assert_eq!((text.as_str(), closes), (expected.as_str(), expected.contains("close")), "{asked:?} {status}");
        }
    }

    #[test]
    fn an_answer_that_is_too_short_has_no_end() {
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.insert_header("content-length", "3").unwrap();
        let mut answer = Outgoing::to(Asked::by(&request));
        answer.head(&mut head, false, false).unwrap();
        assert!(answer.part(Bytes::from_static(b"ab")).is_none());
        assert!(answer.end(None).is_err() && !answer.has_ended());
    }
}
