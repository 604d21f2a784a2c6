//! gRPC over HTTP/2, as far as a gateway must know it: its deadline, and how it wants to be told of errors.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pingora::http::ResponseHeader;

/// True for a request or an answer of gRPC.
pub(crate) fn is(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|media| {
        let rest = media.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// The time that a caller gives a request: at most eight digits and a unit.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// How a call has ended, when these fields, or trailers, say so.
pub(crate) fn said(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The gRPC status for an answer of the gateway's own. What the specification maps from foreign proxies' statuses is
/// coarser than what we know.
fn status(status: StatusCode) -> u8 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => 4,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            8
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
        other if other.is_client_error() => 3,
        _ => 13,
    }
}

/// Makes an answer of the gateway's own one that gRPC understands: 200, and the status in the only head there is.
/// Over HTTP/1 its end must be told all the same, or the connection could not be used again.
pub(crate) fn trailers_only(head: &mut ResponseHeader, detail: &str, http2: bool) -> pingora::Result<()> {
    let code = status(head.status);
    head.set_status(StatusCode::OK)?;
    if http2 {
        head.remove_header(&header::CONTENT_LENGTH);
    } else {
        head.insert_header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))?;
    }
    head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))?;
    head.insert_header("grpc-status", HeaderValue::from(u16::from(code)))?;
    if let Ok(message) = HeaderValue::try_from(percent_encoded(detail)) {
        head.insert_header("grpc-message", message)?;
    }
    Ok(())
}

/// What `grpc-message` cannot have as it is: everything but printable ASCII, and the percent sign.
const ESCAPED: AsciiSet = CONTROLS.add(b'%');

fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, &ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn knows_its_media_types() {
        for (media, ours) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is(&headers("content-type", media)), ours, "{media}");
        }
    }

    #[test]
    fn reads_deadlines() {
        let read = |text| timeout(&headers("grpc-timeout", text));
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "m", "1", "1x", "123456789m", "-1m", "+1m", "1.5S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50% \u{e4}\n"), "50%25 %C3%A4%0A");
    }
}
