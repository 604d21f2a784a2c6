//! Which answers a route gives a coding, and which codings.

use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;

use super::content_coding::{ContentCoding, may_be_changed, may_be_coded};

/// Media types that become smaller: text, and what is made of text. Pictures, films, archives and `woff2` are packed
/// already, and of `application/octet-stream` nothing is known.
const TYPES: [&str; 20] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "application/yaml",
    "application/toml",
    "application/sql",
    "application/graphql",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

const GRPC: &[u8] = b"application/grpc";

/// A media type, `text/*`, or `*+json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPattern {
    text: String,
}

impl MediaPattern {
    /// Reads one; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, sub) = match text.strip_prefix("*+") {
            Some(suffix) => ("x", suffix),
            None => text.split_once('/')?,
        };
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        (token(kind) && (sub == "*" || token(sub))).then(|| Self { text: text.to_ascii_lowercase() })
    }

    fn covers(&self, media: &[u8]) -> bool {
        let pattern = self.text.as_bytes();
        if let Some(suffix) = pattern.strip_prefix(b"*") {
            let tail = media.len().checked_sub(suffix.len()).and_then(|from| media.get(from..));
            return tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix));
        }
        match pattern.strip_suffix(b"*") {
            Some(start) => media.get(..start.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(start)),
            None => media.eq_ignore_ascii_case(pattern),
        }
    }
}

/// What a route codes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodingTerms {
    /// 1 (fast) to 9 (small).
    pub level: u32,
    /// Answers that are known to be shorter stay as they are.
    pub min_size: u64,
    /// Media types that are coded.
    pub types: Vec<MediaPattern>,
    /// Codings, the best first.
    pub algorithms: Vec<ContentCoding>,
}

impl Default for CodingTerms {
    fn default() -> Self {
        Self {
            level: 5,
            min_size: 512,
            types: TYPES.into_iter().filter_map(MediaPattern::parse).collect(),
            algorithms: vec![ContentCoding::Zstd, ContentCoding::Brotli, ContentCoding::Gzip],
        }
    }
}

impl CodingTerms {
    /// True for answers that are to get a coding, if the client takes one.
    pub(crate) fn cover(&self, head: &ResponseHeader) -> bool {
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        may_be_coded(head) && length.is_none_or(|length: u64| length >= self.min_size) && self.cover_media(head)
    }

    /// True for a part of an answer that would get a coding as a whole, which may be too short for it: a part does not always say.
    pub(crate) fn cover_whole_of(&self, part: &ResponseHeader) -> bool {
        part.status == StatusCode::PARTIAL_CONTENT && may_be_changed(part) && self.cover_media(part)
    }

    fn cover_media(&self, head: &ResponseHeader) -> bool {
        let media = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let media = media.and_then(|media| media.split(|byte| *byte == b';').next()).unwrap_or_default().trim_ascii();
        // Streams whose every piece must arrive at once: the compressor would hold them back. gRPC compresses by itself.
        let grpc = media.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC));
        let stream = grpc || media.eq_ignore_ascii_case(b"text/event-stream");
        !stream && self.types.iter().any(|pattern| pattern.covers(media))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn types_and_sizes_decide() {
        let terms = CodingTerms::default();
        assert_eq!(terms.types.len(), TYPES.len());
        for (media, length, covered) in [
            ("text/html; charset=utf-8", Some(512), true),
            ("Text/Plain", None, true),
            ("text/plain", Some(511), false),
            ("application/problem+json", None, true),
            ("image/svg+xml", None, true),
            ("application/json;x", None, true),
            ("application/jsonx", None, false),
            ("application/octet-stream", None, false),
            ("font/woff2", None, false),
            ("image/png", None, false),
            ("text/event-stream", None, false),
            ("application/grpc+proto", None, false),
            ("", None, false),
        ] {
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.insert_header(header::CONTENT_TYPE, media).unwrap();
            if let Some(length) = length {
                head.insert_header(header::CONTENT_LENGTH, length.to_string()).unwrap();
            }
            assert_eq!(terms.cover(&head), covered, "{media} {length:?}");
        }
        let all = CodingTerms { types: vec![MediaPattern::parse("application/*").unwrap()], ..CodingTerms::default() };
        for (media, covered) in
            [("application/x", true), ("application/grpc", false), ("application/grpc-web+proto", false)]
        {
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.insert_header(header::CONTENT_TYPE, media).unwrap();
            assert_eq!(all.cover(&head), covered, "{media}");
        }
        for (pattern, good) in
            [("text/*", true), ("*+json", true), ("a/b", true), ("*/*", false), ("json", false), ("a/b c", false)]
        {
            assert_eq!(MediaPattern::parse(pattern).is_some(), good, "{pattern}");
        }
    }
}
