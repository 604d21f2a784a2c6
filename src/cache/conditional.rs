//! Conditional requests: those of clients, answered out of an entry (RFC 9111 §4.3.2, RFC 9110 §13), and our own, by which a
//! backend says whether an entry is good still (RFC 9111 §4.3.1).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{date, entry::Entry, freshness::dated};
use crate::message::fields::single;

/// True when the client has what the entry holds: it is answered 304, with the entry's fields less those that
/// [`is_left_out`] names.
pub fn is_not_modified(method: &Method, request: &HeaderMap, entry: &Entry) -> bool {
    if entry.status != StatusCode::OK || (method != Method::GET && method != Method::HEAD) {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let lines = request.get_all(header::IF_NONE_MATCH).iter().map(HeaderValue::as_bytes);
        let stored = single(&entry.headers, header::ETAG).map(HeaderValue::as_bytes);
        return lines.flat_map(tags).any(|tag| tag == b"*" || stored.is_some_and(|stored| weakly_same(tag, stored)));
    }
    let since = single(request, header::IF_MODIFIED_SINCE);
    let Some(since) = since.and_then(|since| date::parse(since.as_bytes(), entry.stored.unix)) else { return false };
    // Without `Last-Modified`, when it was made counts.
    let modified = dated(&entry.headers, &header::LAST_MODIFIED, entry.stored.unix)
        .or_else(|| dated(&entry.headers, &header::DATE, entry.stored.unix));
    modified.unwrap_or(entry.stored.unix) <= since
}

/// Fields that a 304 does not have: they say what a body is (RFC 9110 §15.4.5).
pub fn is_left_out(field: &HeaderName) -> bool {
    static FIELDS: [HeaderName; 6] = [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
    ];
    FIELDS.contains(field)
}

/// Fields by which a client says that it has something already, or wants a part.
pub static CONDITIONS: [HeaderName; 4] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE];

/// Makes the request to the backend one that asks whether the entry is good still: its validators take the place of the
/// client's conditions and range. False when the entry has no validator, and the request is left as a plain one.
pub fn ask_again(request: &mut HeaderMap, entry: &Entry) -> bool {
    clear(request);
    let validators = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
    let mut asked = false;
    for (field, condition) in validators {
        if let Some(value) = single(&entry.headers, field) {
            request.insert(condition, value.clone());
            asked = true;
        }
    }
    asked
}

/// Makes the request to the backend one for a whole answer, which may be kept: the client's conditions and range are taken
/// away, and held against the answer when it is there.
pub fn clear(request: &mut HeaderMap) {
    for field in &CONDITIONS {
        request.remove(field);
    }
}

/// The entity-tags of a list. A backslash escapes nothing in them (RFC 9110 §8.8.3); what is no entity-tag stands for
/// itself.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let text = &rest[start..];
        let quote = text.iter().position(|byte| matches!(byte, b'"' | b',')).filter(|at| text[*at] == b'"');
        let close = quote.and_then(|open| Some(open + 2 + text[open + 1..].iter().position(|byte| *byte == b'"')?));
        let from = close.unwrap_or(0);
        let end = text[from..].iter().position(|byte| *byte == b',').map_or(text.len(), |comma| from + comma);
        rest = &text[end..];
        Some(text[..end].trim_ascii_end())
    })
}

/// The weak comparison (RFC 9110 §8.8.3.2).
pub fn weakly_same(one: &[u8], other: &[u8]) -> bool {
    one.strip_prefix(b"W/").unwrap_or(one) == other.strip_prefix(b"W/").unwrap_or(other)
}

/// The strong comparison.
pub fn strongly_same(one: &[u8], other: &[u8]) -> bool {
    one == other && one.starts_with(b"\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::test_entry::Made, *};

    fn request(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().fold(Made::saying(""), |made, (name, value)| made.asked_with(name, value)).request
    }

    fn entry(fields: &[(&str, &str)]) -> Entry {
        fields.iter().fold(Made::saying("max-age=9"), |made, (name, value)| made.with(name, value)).entry()
    }

    #[test]
    fn entity_tags() {
        let cases: &[(&str, &str, bool)] = &[
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "\"b\"", false),
            ("\"a\"", "W/\"a\"", true),
            ("W/\"a\"", "\"a\"", true),
            ("W/\"a\"", "W/\"a\"", true),
            ("\"a\"", "\"x\", \"a\", \"y\"", true),
            ("\"a\"", "\"x\",W/\"y\" ,, \"a\"", true),
            ("\"a\"", "*", true),
            ("\"a\"", "\"*\"", false),
            ("\"a\"", "\"x, \"a\"", false),
            ("\"a,b\"", "\"x\", \"a,b\"", true),
            ("\"b\\\"", "\"a\\\", \"b\\\"", true),
            ("\"a\"", "a", false),
            ("a", "a", true),
            ("w/\"a\"", "w/\"a\"", true),
            ("\"abc\u{fc}\"", "\"abc\u{fc}\"", true),
            ("\"a\"", "", false),
        ];
        for (stored, asked, expected) in cases {
            let request = request(&[("if-none-match", asked), ("if-modified-since", "@0")]);
            let entry = entry(&[("etag", stored), ("last-modified", "@-9")]);
            assert_eq!(is_not_modified(&Method::GET, &request, &entry), *expected, "{stored} {asked}");
        }
        let two_lines = request(&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")]);
        assert!(is_not_modified(&Method::HEAD, &two_lines, &entry(&[("etag", "\"a\"")])));
        assert!(!is_not_modified(&Method::POST, &two_lines, &entry(&[("etag", "\"a\"")])));
        let other = Made::saying("max-age=9").with("etag", "\"a\"").status(404).entry();
        assert!(!is_not_modified(&Method::GET, &two_lines, &other));
    }

    #[test]
    fn dates() {
        for (fields, since, expected) in [
            (vec![("last-modified", "@-30")], "@-30", true),
            (vec![("last-modified", "@-30")], "@-20", true),
            (vec![("last-modified", "@-30")], "@-31", false),
            (vec![("last-modified", "@-30")], "yesterday", false),
            (vec![("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "Sunday, 06-Nov-94 08:49:37 GMT", true),
            (vec![("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "Sun Nov  6 08:49:37 1994", true),
            (vec![("date", "@-5")], "@-5", true),
            (vec![("date", "@-5")], "@-6", false),
            (vec![], "@0", true),
        ] {
            let request = request(&[("if-modified-since", since)]);
            assert_eq!(is_not_modified(&Method::GET, &request, &entry(&fields)), expected, "{fields:?} {since}");
        }
    }

    #[test]
    fn our_own_conditions_take_the_place_of_the_clients() {
        let client =
            [("if-none-match", "\"x\""), ("range", "bytes=0-1"), ("if-range", "\"x\""), ("if-modified-since", "@0")];
        let mut asked = request(&client);
        assert!(ask_again(&mut asked, &entry(&[("etag", "W/\"a\"")])));
        assert_eq!(asked, request(&[("if-none-match", "W/\"a\"")]));
        let mut asked = request(&client);
        assert!(ask_again(&mut asked, &entry(&[("last-modified", "@-9")])));
        assert_eq!(asked, request(&[("if-modified-since", "@-9")]));
        let mut asked = request(&client);
        assert!(!ask_again(&mut asked, &entry(&[])) && asked.is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(line in "[\"a,W/* \\\\]{0,20}") {
            let count = tags(line.as_bytes()).inspect(|tag| assert!(!tag.is_empty())).count();
            prop_assert!(count <= line.len());
        }
    }
}
