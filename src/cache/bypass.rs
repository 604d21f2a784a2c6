//! Requests that no stored answer is for: the operator says so (`bypass_if`), or the request asks what only its backend
//! can answer.

use http::{HeaderMap, HeaderName, Method, header};

use super::policy::Policy;
use crate::message::{fields, hop_by_hop::nominated};

/// Why a request goes past the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The cache does not answer this method (RFC 9211 `fwd=method`).
    Method,
    /// `bypass_if` holds.
    Rule,
    /// `If-Match` or `If-Unmodified-Since`, which are not for caches (RFC 9111 §4.3.2).
    Precondition,
    /// It switches protocols, or has a body, which no key holds.
    NotPlain,
    /// It keeps fields from the backend (`Connection: X-Field`), which keys and `Vary` would be read from.
    Nominated,
    /// It has a field of the rules in another spelling (`X_Field`), which many backends take for the same.
    Spelling,
}

impl Past {
    /// The word for `Cache-Status` and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Rule => "bypass-rule",
            Self::Precondition => "precondition",
            Self::NotPlain => "request-with-body",
            Self::Nominated => "connection-field",
            Self::Spelling => "field-spelling",
        }
    }
}

/// Whether a request goes past the cache: nothing stored is given to it, and its answer is not kept.
pub fn past(policy: &Policy, method: &Method, headers: &HeaderMap, query: Option<&str>) -> Option<Past> {
    static FIELDS: [HeaderName; 6] = [
        header::UPGRADE,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::CONNECTION,
    ];
    if !policy.methods.contains(method) {
        return Some(Past::Method);
    }
    let [upgrade, chunked, length, matches, unmodified, connection] = fields::present(headers, &FIELDS);
    let empty = || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    if upgrade || chunked || (length && !empty()) {
        Some(Past::NotPlain)
    } else if matches || unmodified {
        Some(Past::Precondition)
    } else if policy.bypass.holds(headers, query) {
        Some(Past::Rule)
    } else if connection && keeps_fields(headers) {
        Some(Past::Nominated)
    } else {
        let named = || policy.key_headers.iter().chain(policy.bypass.headers.iter().map(|(name, _)| name));
        let spelled = named().next().is_some() && !fields::other_spellings(headers, named).is_empty();
        spelled.then_some(Past::Spelling)
    }
}

/// True when the request has a field that it names in `Connection`, beside those that every hop takes off anyway.
fn keeps_fields(headers: &HeaderMap) -> bool {
    const OF_HOPS: [&str; 4] = ["te", "keep-alive", "proxy-connection", "connection"];
    nominated(headers).iter().any(|name| headers.contains_key(name) && !OF_HOPS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::{super::config::CacheConfig, *};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_goes_past() {
        let yaml = "bypass_if: {header: [X-Preview, X-Mode=live], cookie: [session, a=1], query: [nocache, v=1]}";
        let policy = serde_yaml::from_str::<CacheConfig>(yaml).unwrap().policy().unwrap();
        let of = |fields: &[_], query| past(&policy, &Method::GET, &headers(fields), query);
        for fields in
            [[("x-preview", "")], [("x-mode", "live")], [("cookie", "b=2; session=x")], [("cookie", "a=2; a=1")]]
        {
            assert_eq!(of(&fields, None), Some(Past::Rule), "{fields:?}");
        }
        for query in ["nocache", "a&nocache=1", "v=1", "%76=%31", "x=1;nocache"] {
            assert_eq!(of(&[], Some(query)), Some(Past::Rule), "{query}");
        }
        for fields in [[("x-mode", "dead")], [("cookie", "sessions=1; a=2")], [("content-length", "0")]] {
            assert_eq!(of(&fields, Some("v=2&nocache2")), None, "{fields:?}");
        }
        for (connection, expected) in [("close, x-a", Some(Past::Nominated)), ("TE, keep-alive", None), ("x-b", None)] {
            let fields = [("connection", connection), ("x-a", "1"), ("te", "trailers")];
            assert_eq!(of(&fields, None), expected, "{connection}");
        }
        assert_eq!(of(&[("x_mode", "dead")], None), Some(Past::Spelling));
        assert_eq!(of(&[("if-match", "*")], None), Some(Past::Precondition));
        assert_eq!(of(&[("if-unmodified-since", "x")], None), Some(Past::Precondition));
        assert_eq!(of(&[("content-length", "1")], None), Some(Past::NotPlain));
        assert_eq!(of(&[("upgrade", "websocket")], None), Some(Past::NotPlain));
        assert_eq!(past(&policy, &Method::POST, &HeaderMap::new(), None), Some(Past::Method));
    }
}
