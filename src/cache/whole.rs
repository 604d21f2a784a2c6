//! A whole answer to a request for a part, or for what has changed: a backend need not mind conditions and ranges (RFC 9110
//! §13.2.1, §14.2), and a range may be all there is.

use http::{HeaderMap, StatusCode, header};

use super::{conditional::CONDITIONS, refusal::Refusal, storable::content_length};
use crate::message::fields::single;

/// What is kept of an answer with this status and these fields to a request with conditions or a range: `None` when it is the
/// answer as it came, other fields for a 206 that is all of a 200.
///
/// # Errors
/// Its condition or its range is what it was answered by.
pub fn of(request: &HeaderMap, status: StatusCode, response: &HeaderMap) -> Result<Option<HeaderMap>, Refusal> {
    if status == StatusCode::OK || !CONDITIONS.iter().any(|field| request.contains_key(field)) {
        return Ok(None);
    }
    // With `If-Range`, the client may be told less than a whole answer would say (RFC 9110 §15.3.7).
    if status != StatusCode::PARTIAL_CONTENT || request.contains_key(header::IF_RANGE) {
        return Err(Refusal::Partial);
    }
    // Several parts are one body, which says of each what it is.
    let several = |kind: &http::HeaderValue| kind.as_bytes().to_ascii_lowercase().starts_with(b"multipart/byteranges");
    if response.get_all(header::CONTENT_TYPE).iter().any(several) {
        return Err(Refusal::Partial);
    }
    let length = single(response, header::CONTENT_RANGE).and_then(|range| everything(range.as_bytes()));
    let length = length.filter(|length| content_length(response).is_none_or(|said| said == *length));
    let length = length.ok_or(Refusal::Partial)?;
    let mut fields = response.clone();
    fields.remove(header::CONTENT_RANGE);
    fields.insert(header::CONTENT_LENGTH, length.into());
    Ok(Some(fields))
}

/// The length of what `bytes 0-9/10` is all of.
fn everything(range: &[u8]) -> Option<u64> {
    let (unit, range) = range.split_at_checked(6)?;
    let (places, length) = std::str::from_utf8(range).ok()?.split_once('/')?;
    let (first, last) = places.split_once('-')?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?;
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    (unit.eq_ignore_ascii_case(b"bytes ") && first == 0 && last.checked_add(1) == Some(length)).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::{super::test_entry::fields, *};

    #[test]
    fn a_part_that_is_all_of_it() {
        for (range, length, expected) in [
            ("bytes 0-9/10", None, Some(10)),
            ("Bytes 0-9/10", Some("10"), Some(10)),
            ("bytes 0-9/10", Some("9"), None),
            ("bytes 0-8/10", None, None),
            ("bytes 1-9/10", None, None),
            ("bytes 0-9/*", None, None),
            ("bytes 0-18446744073709551615/18446744073709551615", None, None),
            ("bytes +0-9/10", None, None),
            ("bytes 0-9/10, bytes 0-9/10", None, None),
            ("bytes */10", None, None),
            ("pages 0-9/10", None, None),
            ("bytes", None, None),
        ] {
            let request = fields(&[("range", "bytes=0-")]);
            let mut response = fields(&[("content-range", range), ("etag", "\"1\"")]);
            if let Some(length) = length {
                response.extend(fields(&[("content-length", length)]));
            }
            let kept = of(&request, StatusCode::PARTIAL_CONTENT, &response);
            let said = kept.ok().flatten().and_then(|fields| {
                assert_eq!((fields.len(), fields.contains_key("etag")), (2, true), "{range}");
                content_length(&fields)
            });
            assert_eq!(said, expected, "{range} {length:?}");
        }
    }

    #[test]
    fn several_parts_are_no_whole() {
        let response =
            fields(&[("content-range", "bytes 0-9/10"), ("content-type", "Multipart/ByteRanges; boundary=x")]);
        let kept = of(&fields(&[("range", "bytes=0-")]), StatusCode::PARTIAL_CONTENT, &response);
        assert_eq!(kept, Err(Refusal::Partial));
    }

    #[test]
    fn what_was_answered_by_a_condition_is_no_whole() {
        for (asked, status, expected) in [
            (&[("range", "bytes=0-")][..], 200, Ok(None)),
            (&[("if-none-match", "\"1\"")], 200, Ok(None)),
            (&[("if-none-match", "\"1\"")], 304, Err(Refusal::Partial)),
            (&[("if-none-match", "\"1\"")], 404, Err(Refusal::Partial)),
            (&[("if-modified-since", "then")], 206, Err(Refusal::Partial)),
            (&[("range", "bytes=99-")], 416, Err(Refusal::Partial)),
            (&[("range", "bytes=0-"), ("if-range", "\"1\"")], 206, Err(Refusal::Partial)),
            (&[("range", "bytes=0-"), ("if-range", "\"1\"")], 200, Ok(None)),
            (&[], 404, Ok(None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let response = if status == StatusCode::PARTIAL_CONTENT && asked.len() == 2 {
                fields(&[("content-range", "bytes 0-9/10")])
            } else {
                HeaderMap::new()
            };
            assert_eq!(of(&fields(asked), status, &response), expected, "{asked:?} {status}");
        }
    }
}
