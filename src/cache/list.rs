//! Lists whose items may hold quoted text, in which commas separate nothing (RFC 9110 §5.6.1, §5.6.4).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The items of one line, without the space around them and without the empty ones. A quote that does not end holds the
/// rest of the line.
pub fn items(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(line, b',').filter(|item| !item.is_empty())
}

/// The items of all lines of `field`.
pub fn all<'h>(headers: &'h HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(field).iter().map(HeaderValue::as_bytes).flat_map(items)
}

/// The parts of `text` between separators that stand in no quotes, trimmed.
pub fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            if escaped {
                escaped = false;
            } else if quoted && *byte == b'\\' {
                escaped = true;
            } else if *byte == b'"' {
                quoted = !quoted;
            } else if !quoted && *byte == separator {
                return true;
            }
            false
        });
        let (part, next) = end.map_or((text, None), |end| (&text[..end], Some(&text[end + 1..])));
        rest = next;
        Some(part.trim_ascii())
    })
}

/// What a quoted text says, or the text itself when it is not quoted; `None` for a quote that does not end, or has
/// something behind it.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let [b'"', inner @ ..] = text else { return Some(text.to_vec()) };
    let (mut out, mut bytes) = (Vec::with_capacity(inner.len()), inner.iter());
    loop {
        match bytes.next()? {
            b'"' => break bytes.next().is_none().then_some(out),
            b'\\' => out.push(*bytes.next()?),
            byte => out.push(*byte),
        }
    }
}

/// Digits as a number of at most 2^31, which is what RFC 9111 §1.2.2 makes of anything greater; `None` for what is not
/// digits.
pub fn delta_seconds(text: &[u8]) -> Option<u64> {
    const MOST: u64 = 1 << 31;
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')).min(MOST))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_in_quotes_separate_nothing() {
        let of = |line: &'static str| {
            items(line.as_bytes()).map(|item| String::from_utf8_lossy(item).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("a, b ,,c"), ["a", "b", "c"]);
        assert_eq!(of(r#"a="x, y", b"#), [r#"a="x, y""#, "b"]);
        assert_eq!(of(r#"a="x\", y", b"#), [r#"a="x\", y""#, "b"]);
        assert_eq!(of(r#"a="x, y"#), [r#"a="x, y"#]);
        assert!(of(" , ").is_empty());
    }

    #[test]
    fn quotes_are_taken_off() {
        assert_eq!(unquote(br#""a\"b""#).as_deref(), Some(&br#"a"b"#[..]));
        assert_eq!(unquote(b"a").as_deref(), Some(&b"a"[..]));
        for wrong in [r#"""#, r#""a"#, r#""a"b"#, r#""a\"#] {
            assert_eq!(unquote(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn seconds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("003600", Some(3600)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483649", Some(1 << 31)),
            ("99999999999999999999999", Some(1 << 31)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1x", None),
            ("'1'", None),
        ] {
            assert_eq!(delta_seconds(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a\",\\\\ =]{0,20}") {
            let _ = (items(text.as_bytes()).count(), unquote(text.as_bytes()), delta_seconds(text.as_bytes()));
        }
    }
}
