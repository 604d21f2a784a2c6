//! Parts of a stored answer (RFC 9110 §14). One range is answered with that part; several are answered with the whole, which
//! §14.2 allows and which nobody can abuse.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{conditional::strongly_same, date, entry::Entry, freshness::dated};
use crate::message::fields::single;

/// What of a body is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it, with the stored status.
    Whole,
    /// These bytes, with 206 and [`content_range`].
    Bytes(Range<usize>),
    /// Nothing: 416, with [`unsatisfiable`].
    Unsatisfiable,
}

/// What of the entry's body the request is for. Conditions are looked at before (RFC 9110 §13.2.2). Whoever `takes_coded` bodies may
/// have the beginning of one.
pub fn part(method: &Method, request: &HeaderMap, entry: &Entry, takes_coded: impl FnOnce() -> bool) -> Part {
    if method != Method::GET || entry.status != StatusCode::OK {
        return Part::Whole;
    }
    let Some(range) = single(request, header::RANGE) else { return Part::Whole };
    if request.contains_key(header::IF_RANGE) && !is_same(single(request, header::IF_RANGE), entry, takes_coded) {
        return Part::Whole;
    }
    read(range.as_bytes(), entry.body.len())
}

/// `If-Range`: a strong entity-tag, or exactly the date of `Last-Modified`, if that is older than the answer by a second at
/// least (RFC 9110 §13.1.5, §8.8.2.2), and is not that of its coded form, too (§8.8.1).
fn is_same(condition: Option<&HeaderValue>, entry: &Entry, takes_coded: impl FnOnce() -> bool) -> bool {
    let Some(condition) = condition.map(HeaderValue::as_bytes) else { return false };
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return single(&entry.headers, header::ETAG).is_some_and(|stored| strongly_same(condition, stored.as_bytes()));
    }
    let now = entry.stored.unix;
    let modified = dated(&entry.headers, &header::LAST_MODIFIED, now);
    let made = dated(&entry.headers, &header::DATE, now).unwrap_or(now);
    modified.is_some() && date::parse(condition, now) == modified && modified < Some(made) && !takes_coded()
}

/// Reads `bytes=1-5`, `bytes=1-` or `bytes=-5`; what is none of these is not there (RFC 9110 §14.2).
fn read(range: &[u8], length: usize) -> Part {
    let ranges = match range.split_at_checked(6) {
        Some((unit, ranges)) if unit.eq_ignore_ascii_case(b"bytes=") => ranges.trim_ascii(),
        _ => return Part::Whole,
    };
    let Some(dash) = ranges.iter().position(|byte| *byte == b'-') else { return Part::Whole };
    let (first, last) = (&ranges[..dash], &ranges[dash + 1..]);
    let range = match (first, last) {
        ([], last) => match number(last) {
            Some(count) => length.saturating_sub(count)..length,
            None => return Part::Whole,
        },
        (first, []) => match number(first) {
            Some(first) => first..length,
            None => return Part::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
            _ => return Part::Whole,
        },
    };
    if range.start >= range.end { Part::Unsatisfiable } else { Part::Bytes(range) }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |number, byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(usize::from(byte - b'0')))
    })
}

/// `Content-Range` of a 206; `range` is not empty.
pub fn content_range(range: &Range<usize>, length: usize) -> HeaderValue {
    let text = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
    HeaderValue::try_from(text).unwrap_or_else(|_| unsatisfiable(length))
}

/// `Content-Range` of a 416.
pub fn unsatisfiable(length: usize) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{length}")).unwrap_or(HeaderValue::from_static("bytes */*"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::test_entry::Made, *};

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("bytes=0-1", Part::Bytes(0..2)),
            ("BYTES=0-0", Part::Bytes(0..1)),
            ("bytes=1-", Part::Bytes(1..10)),
            ("bytes=-1", Part::Bytes(9..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=5-99999999999999999999999", Part::Bytes(5..10)),
            ("bytes=9-9", Part::Bytes(9..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-11", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=2-1", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=1", Part::Whole),
            ("bytes=--1", Part::Whole),
            ("bytes = 0-1", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(read(text.as_bytes(), 10), expected, "{text}");
        }
        assert_eq!(read(b"bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(content_range(&(0..2), 10), "bytes 0-1/10");
        assert_eq!(unsatisfiable(10), "bytes */10");
    }

    #[test]
    fn if_range() {
        for (etag, modified, condition, expected) in [
            ("\"a\"", "@-9", None, true),
            ("\"a\"", "@-9", Some("\"a\""), true),
            ("\"a\"", "@-9", Some("\"b\""), false),
            ("W/\"a\"", "@-9", Some("W/\"a\""), false),
            ("\"a\"", "@-9", Some("W/\"a\""), false),
            ("\"a\"", "@-9", Some("@-9"), true),
            ("\"a\"", "@-9", Some("@-8"), false),
            ("\"a\"", "@0", Some("@0"), false),
            ("\"a\"", "@-9", Some("x"), false),
        ] {
            let made = Made::saying("max-age=9").with("etag", etag).with("last-modified", modified);
            let made = made.asked_with("range", "bytes=0-1");
            let made = condition.iter().fold(made, |made, condition| made.asked_with("if-range", condition));
            let part = |method, made: &Made, coded| part(&method, &made.request, &made.entry(), || coded);
            let found = part(Method::GET, &made, false);
            assert_eq!(found == Part::Bytes(0..2), expected, "{condition:?}");
            let by_date = condition.is_some_and(|condition| condition.starts_with('@'));
            assert_eq!(
                part(Method::GET, &made, true) == Part::Bytes(0..2),
                expected && !by_date,
                "coded {condition:?}"
            );
            assert_eq!(part(Method::HEAD, &made, false), Part::Whole);
            assert_eq!(part(Method::GET, &made.clone().status(404), false), Part::Whole);
        }
        let two = Made::saying("max-age=9").asked_with("range", "bytes=0-1").asked_with("range", "bytes=0-2");
        assert_eq!(part(&Method::GET, &two.request, &two.entry(), || false), Part::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_inside(text in "bytes=[0-9]{0,22}-[0-9]{0,22}", length in 0usize..1000) {
            if let Part::Bytes(range) = read(text.as_bytes(), length) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
