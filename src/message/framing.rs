//! Where the body of a message ends, as its head says (RFC 9112 §6.3, RFC 9113 §8.1.1): one rule for heads of requests
//! read as bytes, for heads of requests that have been parsed, over HTTP/1 and HTTP/2, and for heads of answers.

use http::{HeaderMap, Version, header};

use super::violation::Violation;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes; none when a request does not say.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// The fields that frame a message, as they are met.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Framing {
    lengths: u32,
    length: u64,
    codings: u32,
}

impl Framing {
    /// A `Content-Length` line.
    pub(crate) fn length(&mut self, value: &[u8]) -> Result<(), Violation> {
        self.lengths += 1;
        self.length = number(value).ok_or("the Content-Length field is malformed")?;
        Ok(())
    }

    /// A `Transfer-Encoding` line.
    pub(crate) fn coding(&mut self, value: &[u8]) -> Result<(), Violation> {
        self.codings += 1;
        if value.eq_ignore_ascii_case(b"chunked") { Ok(()) } else { Err("the transfer coding is not supported") }
    }

    /// All of them in a head that has been parsed.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Violation> {
        let mut framing = Self::default();
        for value in headers.get_all(header::CONTENT_LENGTH) {
            framing.length(value.as_bytes())?;
        }
        for value in headers.get_all(header::TRANSFER_ENCODING) {
            framing.coding(value.as_bytes())?;
        }
        Ok(framing)
    }

    /// What they say together.
    pub(crate) fn body(&self, version: Version) -> Result<Body, Violation> {
        match (self.lengths, self.codings) {
            (2.., _) => Err("there is more than one Content-Length field"),
            (_, 2..) => Err("there is more than one Transfer-Encoding field"),
            (1, 1) => Err("Content-Length and Transfer-Encoding exclude each other"),
            (_, 1) if version == Version::HTTP_10 => Err("HTTP/1.0 has no Transfer-Encoding"),
            (_, 1) if version == Version::HTTP_2 => Err("HTTP/2 has no Transfer-Encoding and no Connection field"),
            (_, 1) => Ok(Body::Chunked),
            (_, 0) => Ok(Body::Length(self.length)),
        }
    }

    /// True when a body is announced.
    pub(crate) fn announces_body(&self) -> bool {
        self.codings > 0 || self.length > 0
    }
}

/// The value of `Content-Length`: no sign, no list, no space within, digits and nothing else (RFC 9112 §6.3). 19 of them
/// fit.
fn number(value: &[u8]) -> Option<u64> {
    let digit = |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    if value.is_empty() || value.len() > 19 { None } else { value.iter().try_fold(0, digit) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn body(version: Version, fields: &[(&'static str, &'static str)]) -> Result<Body, Violation> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Framing::of(&headers)?.body(version)
    }

    #[test]
    fn a_message_has_one_framing() {
        let (length, chunked) = (("content-length", "5"), ("transfer-encoding", "Chunked"));
        assert_eq!(body(Version::HTTP_11, &[]), Ok(Body::Length(0)));
        assert_eq!(body(Version::HTTP_11, &[length]), Ok(Body::Length(5)));
        assert_eq!(body(Version::HTTP_11, &[chunked]), Ok(Body::Chunked));
        assert_eq!(body(Version::HTTP_2, &[length]), Ok(Body::Length(5)));
        for (version, fields) in [
            (Version::HTTP_11, &[length, chunked][..]),
            (Version::HTTP_11, &[length, length]),
            (Version::HTTP_11, &[chunked, chunked]),
            (Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")]),
            (Version::HTTP_11, &[("content-length", "5, 5")]),
            (Version::HTTP_10, &[chunked]),
            (Version::HTTP_2, &[chunked]),
        ] {
            assert!(body(version, fields).is_err(), "{version:?} {fields:?}");
        }
    }

    #[test]
    fn a_length_is_digits() {
        assert_eq!(number(b"0012"), Some(12));
        for wrong in ["", "+1", "-1", "1 ", "0x1", "1,1", "99999999999999999999"] {
            assert_eq!(number(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
