//! Where a request ends. A chunked body is watched byte by byte as it passes (RFC 9112 §7.1). Pingora takes an empty
//! chunk size for the last chunk, any bytes as an extension, and whatever stands before the final empty line as
//! trailers; two parsers that disagree about where a body ends are how requests are smuggled.

use std::ops::Range;

use super::{framing::Body, request_head, violation::Violation};

/// The most hexadecimal digits of a chunk's size.
const DIGITS: u8 = 16;
/// The most bytes of one chunk's extensions.
const EXTENSION: usize = 1024;
/// The most bytes of all extensions together: tiny chunks with long extensions make work and carry nothing.
const EXTENSIONS: usize = 16 << 10;
/// The most bytes of the trailer section.
const TRAILERS: usize = 16 << 10;

/// What is still to come of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RemainingRequest {
    /// Whatever comes: another protocol than HTTP/1, or nobody has looked for an end yet.
    Everything,
    /// So many bytes.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(Chunked),
}

impl RemainingRequest {
    /// Of a request whose head has just ended.
    pub(crate) fn of(body: Body) -> Self {
        match body {
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Chunked::new()),
        }
    }

    /// True when the request has come in full.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Everything => false,
            Self::Length(left) => *left == 0,
            Self::Chunked(body) => body.is_done(),
        }
    }

    /// Looks at the next bytes; answers how many of them belong to the request.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        self.push_with(bytes, |_| {})
    }

    /// The same; `content` is told what of them is not there to frame the rest.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn push_with(
        &mut self,
        bytes: &[u8],
        mut content: impl FnMut(Range<usize>),
    ) -> Result<usize, Violation> {
        match self {
            Self::Everything => {
                content(0..bytes.len());
                Ok(bytes.len())
            }
            Self::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= own as u64;
                content(0..own);
                Ok(own)
            }
            Self::Chunked(body) => body.push_with(bytes, content),
        }
    }
}

/// Where in the body the last byte was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Size {
        digits: u8,
        size: u64,
    },
    /// White space before an extension (RFC 9112 §7.1.1).
    Space {
        size: u64,
    },
    Extension {
        size: u64,
        length: usize,
        quoted: bool,
        escaped: bool,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
}

/// A chunked body on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    extensions: usize,
    trailers: usize,
    line: Vec<u8>,
}

impl Chunked {
    /// Before the first byte.
    pub(crate) fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extensions: 0, trailers: 0, line: Vec::new() }
    }

    /// True after the last byte.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at the next bytes; answers how many of them belong to the body.
    ///
    /// # Errors
    /// What is wrong with them.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        self.push_with(bytes, |_| {})
    }

    fn push_with(&mut self, bytes: &[u8], mut content: impl FnMut(Range<usize>)) -> Result<usize, Violation> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = &mut self.state {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= step as u64;
                content(at..at + step);
                at += step;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Violation> {
        match self.state {
            State::Size { digits, size } => match (byte, char::from(byte).to_digit(16)) {
                (_, Some(_)) if digits == DIGITS => Err("a chunk's size is too long"),
                (_, Some(digit)) => Ok(State::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }),
                (b'\r', _) if digits > 0 => Ok(State::SizeLf { size }),
                (b' ' | b'\t', _) if digits > 0 => self.space(size),
                (b';', _) if digits > 0 => Ok(State::Extension { size, length: 0, quoted: false, escaped: false }),
                _ => Err("a chunk's size is malformed"),
            },
            State::Space { size } => match byte {
                b' ' | b'\t' => self.space(size),
                b';' => Ok(State::Extension { size, length: 0, quoted: false, escaped: false }),
                _ => Err("a chunk's size is malformed"),
            },
            State::Extension { size, length, quoted, escaped } => self.extension(byte, size, length, quoted, escaped),
            State::SizeLf { size: 0 } => expect(byte, b'\n', State::Trailer),
            State::SizeLf { size } => expect(byte, b'\n', State::Data { left: size }),
            State::DataCr => expect(byte, b'\r', State::DataLf),
            State::DataLf => expect(byte, b'\n', State::Size { digits: 0, size: 0 }),
            State::Trailer => self.trailer(byte),
            State::TrailerLf if byte != b'\n' => Err("a trailer ends with CR alone"),
            State::TrailerLf if self.line.is_empty() => Ok(State::Done),
            State::TrailerLf => {
                request_head::trailer(&self.line)?;
                self.line.clear();
                Ok(State::Trailer)
            }
            State::Data { .. } | State::Done => Ok(self.state.clone()),
        }
    }

    fn space(&mut self, size: u64) -> Result<State, Violation> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS { Err("a chunk's extensions are too long") } else { Ok(State::Space { size }) }
    }

    fn extension(
        &mut self,
        byte: u8,
        size: u64,
        length: usize,
        quoted: bool,
        escaped: bool,
    ) -> Result<State, Violation> {
        self.extensions += 1;
        match byte {
            b'\r' if !quoted && length > 0 => return Ok(State::SizeLf { size }),
            0..=0x08 | 0x0a..=0x1f | 0x7f => return Err("a chunk's extension is malformed"),
            _ => {}
        }
        if length == EXTENSION || self.extensions > EXTENSIONS {
            return Err("a chunk's extensions are too long");
        }
        let escaped_next = quoted && !escaped && byte == b'\\';
        let quoted = if byte == b'"' && !escaped { !quoted } else { quoted };
        Ok(State::Extension { size, length: length + 1, quoted, escaped: escaped_next })
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Violation> {
        self.trailers += 1;
        match byte {
            b'\r' => Ok(State::TrailerLf),
            b'\n' => Err("a trailer ends with LF alone"),
            _ if self.trailers > TRAILERS => Err("the trailers are too large"),
            _ => {
                self.line.push(byte);
                Ok(State::Trailer)
            }
        }
    }
}

fn expect(byte: u8, wanted: u8, next: State) -> Result<State, Violation> {
    if byte == wanted { Ok(next) } else { Err("a chunk does not end where it says") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<usize, Violation> {
        let mut body = Chunked::new();
        let length = body.push(bytes)?;
        if body.is_done() { Ok(length) } else { Err("incomplete") }
    }

    #[test]
    fn ends_where_the_body_ends() {
        for (body, next) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("5 \t; a = b\r\nhello\r\n0 ;x\r\n\r\n", "x"),
            ("A;a=\"b;\\\" c\"\r\n0123456789\r\n000;x\r\nX-A: b\r\nX-C:\r\n\r\n", "\r\n"),
        ] {
            assert_eq!(read(format!("{body}{next}").as_bytes()), Ok(body.len()), "{body:?}");
        }
    }

    #[test]
    fn refuses_what_could_be_read_otherwise() {
        for body in [
            "\r\nhello",
            "g\r\n",
            "-1\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\nhello",
            "5\r\nhello\n0",
            "5\r\nhelloo\r\n",
            "5;a\nb\r\n",
            "5;\r\n",
            "5;a=\"b\r\n",
            "5;a\0\r\n",
            "00000000000000005\r\n",
            "0\r\n\n",
            "0\r\nX-A: b\n\r\n",
            "0\r\nX-A b\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nHost: h\r\n\r\n",
            "0\r\nX-A: b\r\n c\r\n\r\n",
        ] {
            assert!(matches!(read(body.as_bytes()), Err(reason) if reason != "incomplete"), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn splits_make_no_difference(bytes in "(0|5|a|;|\"|\\\\|x|:|\r\n|\r|\n|hello| ){0,40}", cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let mut whole = Chunked::new();
            let expected = whole.push(bytes.as_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut parts, mut from, mut seen) = (Chunked::new(), 0, Ok(0));
            for cut in cuts {
                seen = seen.and_then(|sum| parts.push(&bytes.as_bytes()[from..cut]).map(|length| sum + length));
                from = cut;
            }
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn whatever_is_written_by_the_book_passes(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10), tail: Vec<u8>) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let length = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(read(&bytes), Ok(length));
        }
    }
}
