//! Fields whose value is a list (RFC 9110 §5.6.1), read as bytes and over all their lines: whoever asks gets one answer.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The items of one line.
pub(crate) fn items(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// True when the list has an item that is `wanted`.
pub(crate) fn has(headers: &HeaderMap, field: &HeaderName, wanted: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(field).iter().flat_map(|line| items(line.as_bytes())).any(wanted)
}

/// Which of these fields there are, in one pass: a look-up for each costs more, and nearly always none is there.
pub(crate) fn present<const N: usize>(headers: &HeaderMap, fields: &[HeaderName; N]) -> [bool; N] {
    let mut present = [false; N];
    for name in headers.keys() {
        for (there, field) in present.iter_mut().zip(fields) {
            *there |= name == field;
        }
    }
    present
}

/// The first value of each of these fields, in one pass, too.
pub(crate) fn first<'h, const N: usize>(
    headers: &'h HeaderMap,
    fields: &[HeaderName; N],
) -> [Option<&'h HeaderValue>; N] {
    let mut values = [None; N];
    for (name, value) in headers {
        for (first, _) in values.iter_mut().zip(fields).filter(|(_, field)| name == *field) {
            first.get_or_insert(value);
        }
    }
    values
}

/// A number as the value of a field. What the `http` crate has for that allocates twice.
pub(crate) fn number(number: u64) -> HeaderValue {
    // Digits are a value that any field can have.
    HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or(HeaderValue::from_static("0"))
}

/// The value of `name` when it stands exactly once: two credentials are as good as none.
pub(crate) fn single(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

/// Fields that a backend may take for one of `names`, in another spelling: many read `X_Role` as `X-Role`. Empty, and so
/// without an allocation, for nearly every request.
pub(crate) fn other_spellings<'n, N>(headers: &HeaderMap, names: impl Fn() -> N) -> Vec<HeaderName>
where
    N: Iterator<Item = &'n HeaderName>,
{
    let same = |a: u8, b: u8| a == b || matches!((a, b), (b'-' | b'_', b'-' | b'_'));
    let alike = |a: &HeaderName, b: &HeaderName| {
        let (a, b) = (a.as_str().as_bytes(), b.as_str().as_bytes());
        a.len() == b.len() && a != b && a.iter().zip(b).all(|(a, b)| same(*a, *b))
    };
    headers.keys().filter(|name| names().any(|known| alike(known, name))).cloned().collect()
}

/// The value of a cookie (RFC 6265 §4.2), as bytes: what stands in another cookie is none of this one's business.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::*;

    #[test]
    fn finds_a_cookie_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_bytes(b"a=\xff; sid=xyz; sidx=2").unwrap());
        assert_eq!(cookie(&headers, "sid"), Some(&b"xyz"[..]));
        assert_eq!(cookie(&headers, "id"), None);
    }
}
