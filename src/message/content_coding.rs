//! Content codings (RFC 9110 §8.4): which one a client wants, which answers may get one, and what that changes in their
//! head.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::fields::{self, items};

/// A coding that answers can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum ContentCoding {
    /// Zstandard (RFC 8878).
    #[serde(rename = "zstd")]
    Zstd,
    /// Brotli (RFC 7932).
    #[serde(rename = "br")]
    Brotli,
    /// gzip (RFC 1952).
    #[serde(rename = "gzip")]
    Gzip,
}

use ContentCoding::{Brotli, Gzip, Zstd};

impl ContentCoding {
    /// Its name (RFC 9110 §18.6).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Zstd => "zstd",
            Brotli => "br",
            Gzip => "gzip",
        }
    }
}

/// How much a client likes a coding, in thousandths; 0: not at all (RFC 9110 §12.4.2).
type Weight = u16;

/// What a client says of the codings that matter here.
#[derive(Debug, Default)]
struct Wishes {
    zstd: Option<Weight>,
    brotli: Option<Weight>,
    gzip: Option<Weight>,
    identity: Option<Weight>,
    /// `*`: all that are not listed.
    others: Option<Weight>,
}

/// The coding of an answer to a request with these fields, among those that are `offered`, the best first; `None`: it stays
/// as it is (RFC 9110 §12.5.3).
pub(crate) fn wanted(request: &HeaderMap, offered: &[ContentCoding]) -> Option<ContentCoding> {
    let mut wishes = Wishes::default();
    for line in request.get_all(header::ACCEPT_ENCODING) {
        items(line.as_bytes()).for_each(|item| wishes.note(item));
    }
    wishes.best(offered)
}

impl Wishes {
    fn note(&mut self, item: &[u8]) {
        let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let place = if is(b"gzip") || is(b"x-gzip") {
            &mut self.gzip
        } else if is(b"br") {
            &mut self.brotli
        } else if is(b"zstd") {
            &mut self.zstd
        } else if is(b"identity") {
            &mut self.identity
        } else if is(b"*") {
            &mut self.others
        } else {
            return;
        };
        // Whoever says something else too had better get what it reads in any case.
        let weight = parts.map(weight).fold(1000, Weight::min);
        *place = Some(place.map_or(weight, |before| before.min(weight)));
    }

    fn best(&self, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let listed = |coding: ContentCoding| match coding {
            Zstd => self.zstd,
            Brotli => self.brotli,
            Gzip => self.gzip,
        };
        let named = offered.iter().map(|coding| (*coding, listed(*coding)));
        // Of those that are not named, the one comes first that nearly everybody reads.
        let unnamed = [Gzip, Brotli, Zstd].into_iter().filter(|coding| offered.contains(coding));
        let unnamed = unnamed.map(|coding| (coding, if listed(coding).is_none() { self.others } else { None }));
        let mut best: (Option<ContentCoding>, Weight) = (None, 0);
        for (coding, weight) in named.chain(unnamed) {
            if let Some(weight) = weight.filter(|weight| *weight > best.1) {
                best = (Some(coding), weight);
            }
        }
        best.0.filter(|_| self.identity.is_none_or(|identity| identity <= best.1))
    }
}

/// The weight that a parameter says; 0 for `q=0` and for what is malformed.
fn weight(parameter: &[u8]) -> Weight {
    match parameter {
        [b'q' | b'Q', b'=', b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            let digit = |at: usize| digits.get(at).map_or(0, |digit| Weight::from(digit - b'0'));
            digit(0) * 100 + digit(1) * 10 + digit(2)
        }
        [b'q' | b'Q', b'=', b'1'] => 1000,
        [b'q' | b'Q', b'=', b'1', b'.', zeros @ ..] if zeros.len() <= 3 && zeros.iter().all(|byte| *byte == b'0') => {
            1000
        }
        _ => 0,
    }
}

/// Fields that say that there is a coding, or have a checksum of what follows.
static FIXED: [HeaderName; 5] = [
    header::CONTENT_ENCODING,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// True for answers that may be given a coding. Not for parts, nor for what is coded already, says `no-transform` (RFC 9111
/// §5.2.2.6) or has a checksum.
pub(crate) fn may_be_coded(head: &ResponseHeader) -> bool {
    let bodiless = head.status.is_informational()
        || matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
    !bodiless && !head.headers.contains_key(header::CONTENT_RANGE) && may_be_changed(head)
}

/// True for what has no coding yet, no checksum and no `no-transform`.
pub(crate) fn may_be_changed(head: &ResponseHeader) -> bool {
    !fields::present(&head.headers, &FIXED).contains(&true)
        && !fields::has(&head.headers, &header::CACHE_CONTROL, |item| item.eq_ignore_ascii_case(b"no-transform"))
}

/// Says that what follows has this coding; `chunked`: and that it comes in chunks. Its length is not known any more, and
/// a part of it could not be asked for.
///
/// # Errors
/// A field cannot be set.
pub(crate) fn announce(head: &mut ResponseHeader, coding: ContentCoding, chunked: bool) -> pingora::Result<()> {
    head.insert_header(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()))?;
    head.remove_header(&header::CONTENT_LENGTH);
    head.remove_header(&header::ACCEPT_RANGES);
    if chunked {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    if let Some(tag) = weakened(head) {
        head.insert_header(header::ETAG, tag)?;
    } else if head.headers.get(header::ETAG).is_some_and(|tag| !tag.as_bytes().starts_with(b"W/")) {
        // It is none.
        head.remove_header(&header::ETAG);
    }
    Ok(())
}

/// A strong tag as that of another form of the same (RFC 9110 §8.8.1).
fn weakened(head: &ResponseHeader) -> Option<HeaderValue> {
    let tag = head.headers.get(header::ETAG)?.as_bytes();
    if tag.starts_with(b"\"") { HeaderValue::from_bytes(&[b"W/", tag].concat()).ok() } else { None }
}

/// In a 304, calls what the client has as it was called when the client got it coded.
///
/// # Errors
/// A field cannot be set.
pub(crate) fn recall(head: &mut ResponseHeader, request: &HeaderMap) -> pingora::Result<()> {
    let Some(tag) = weakened(head) else { return Ok(()) };
    let told = |line: &HeaderValue| line.as_bytes().windows(tag.len()).any(|part| part == tag.as_bytes());
    if request.get_all(header::IF_NONE_MATCH).iter().any(told) {
        // The length is that of the other form (RFC 9110 §8.6).
        head.remove_header(&header::CONTENT_LENGTH);
        head.insert_header(header::ETAG, tag)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn of(lines: &[&str]) -> &'static str {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, line.parse().unwrap());
        }
        wanted(&headers, &[Zstd, Brotli, Gzip]).map_or("", ContentCoding::name)
    }

    #[test]
    fn weights_decide() {
        for (accepts, coding) in [
            ("gzip", "gzip"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, deflate, br", "br"),
            (" gzip ; q=0.5 ,br;Q=0.501", "br"),
            ("gzip;q=1, br;q=0.9, zstd;q=0.999", "gzip"),
            ("gzip;q=1.000", "gzip"),
            ("gzip;q=0.001", "gzip"),
            ("gzip;q=0.0", ""),
            ("zstd;q=0, br;q=0, *;q=0.3", "gzip"),
            ("gzip;q=0, *", "br"),
            ("*, zstd;q=0.5", "gzip"),
            ("*;q=0.5, zstd;q=0.5", "zstd"),
            ("*;q=0, br;q=0.1", "br"),
            ("identity, gzip;q=0.9", ""),
            ("identity;q=0, gzip", "gzip"),
            ("identity;q=0", ""),
            ("", ""),
            (",,;q=1", ""),
            ("gzipx, xgzip", ""),
            // What is malformed is not taken for a wish.
            ("gzip;q=1.5", ""),
            ("gzip;q=-1", ""),
            ("gzip;q=0.1234", ""),
            ("gzip;q", ""),
            ("gzip;q= 1", ""),
            ("gzip;q=0, gzip", ""),
        ] {
            assert_eq!(of(&[accepts]), coding, "{accepts}");
        }
        assert_eq!(of(&[]), "");
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_ENCODING, "gzip, br, zstd, *".parse().unwrap());
        for (offered, coding) in [(&[Gzip, Zstd][..], Some(Gzip)), (&[Brotli], Some(Brotli)), (&[], None)] {
            assert_eq!(wanted(&headers, offered), coding);
        }
        assert_eq!(of(&["deflate", "br;q=0.5, gzip;q=0.4"]), "br");
    }

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn what_would_be_harmed_stays() {
        let text = ("content-type", "Text/plain; charset=utf-8");
        assert!(may_be_coded(&answer(200, &[text])));
        assert!(may_be_coded(&answer(200, &[("content-type", "application/json"), ("cache-control", "no-store")])));
        for (status, fields) in [
            (206, &[text][..]),
            (204, &[text]),
            (304, &[text]),
            (101, &[text]),
            (200, &[text, ("content-range", "bytes 0-1/2")]),
            (200, &[text, ("content-encoding", "br")]),
            (200, &[text, ("repr-digest", "sha-256=:x=:")]),
            (200, &[text, ("cache-control", "private, No-Transform")]),
        ] {
            assert!(!may_be_coded(&answer(status, fields)), "{status} {fields:?}");
        }
    }

    #[test]
    fn tags_become_weak() {
        for (tag, becomes) in [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("nonsense", None)] {
            let mut head = answer(200, &[("etag", tag), ("content-length", "50"), ("accept-ranges", "bytes")]);
            announce(&mut head, Brotli, true).unwrap();
            assert_eq!(head.headers.get("etag").map(|tag| tag.to_str().unwrap()), becomes);
            assert_eq!(
                (&head.headers["content-encoding"], &head.headers["transfer-encoding"]),
                (&HeaderValue::from_static("br"), &HeaderValue::from_static("chunked"))
            );
            assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("accept-ranges"));
        }
        let mut request = HeaderMap::new();
        for (known, becomes) in [("W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\""), ("W/\"ab\"", "\"a\""), ("*", "\"a\"")] {
            request.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            let mut head = answer(304, &[("etag", "\"a\"")]);
            recall(&mut head, &request).unwrap();
            assert_eq!(head.headers["etag"], becomes, "{known}");
        }
    }
}
