//! The one reading of a request's path, made before anything looks at it and sent on to the backend, so that router,
//! filters and backend cannot disagree about which resource is meant (RFC 3986 §6.2.2).
//!
//! Policy: percent-encodings of unreserved characters are decoded, dot segments resolved, also encoded ones, and runs of
//! slashes become one: that is what the backend gets, with every other encoding as the client wrote it. What routes and
//! filters compare is the same with one spelling for what means the same in a segment: characters that may stand in one
//! are decoded, other encodings have upper-case digits. An encoded slash stays data. Refused: a climb above the root,
//! malformed percent-encoding, an encoded NUL, and characters that no path may contain (a backslash is one).
//! Where a backend may still read a path differently is for `readings.rs`.

use std::borrow::Cow;

/// Why a path cannot be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// `%` without two hex digits.
    Encoding,
    /// A control character, a space, a backslash, `"`, `<`, `>`, `^`, a backtick, braces, or bytes beyond ASCII.
    Character,
    /// `..` above the root.
    AboveRoot,
    /// Does not begin with a slash.
    Relative,
}

impl PathError {
    /// For the person who sent it.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Encoding => "the path has a malformed percent-encoding",
            Self::Character => "the path has a character that must be percent-encoded",
            Self::AboveRoot => "the path climbs above the root",
            Self::Relative => "the path does not begin with a slash",
        }
    }
}

/// A path in its two spellings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading<'p> {
    /// As routes and filters compare it. Borrowed when there was nothing to change: the common case.
    pub(crate) path: Cow<'p, str>,
    /// As the backend gets it, when that is spelled differently.
    pub(crate) sent: Option<String>,
    /// A backend may read it differently: it has an encoding, or path parameters.
    pub(crate) suspect: bool,
}

/// Reads `path` (without its query) as routes compare it.
///
/// # Errors
/// The reason to answer 400.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    read(path).map(|reading| reading.path)
}

/// Reads `path` (without its query), in one pass when there is nothing to change.
///
/// # Errors
/// The reason to answer 400.
pub(crate) fn read(path: &str) -> Result<Reading<'_>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let (mut plain, mut suspect, mut last) = (true, false, 0u8);
    for &byte in path.as_bytes() {
        match byte {
            b'%' => (plain, suspect) = (false, true),
            b';' => suspect = true,
            b'/' | b'.' if last == b'/' => plain = false,
            0..=0x20 | 0x7f.. | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'}' => {
                return Err(PathError::Character);
            }
            _ => {}
        }
        last = byte;
    }
    if plain {
        return Ok(Reading { path: Cow::Borrowed(path), sent: None, suspect });
    }
    let compared = resolve(&decode(path, Spelling::Compared)?)?;
    let sent = if suspect { Some(resolve(&decode(path, Spelling::Sent)?)?) } else { None };
    let sent = sent.filter(|sent| *sent != compared);
    let path = if compared == path { Cow::Borrowed(path) } else { Cow::Owned(compared) };
    Ok(Reading { path, sent, suspect })
}

/// Which encodings are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Those of unreserved characters (RFC 3986 §2.3); the others stay as they are.
    Sent,
    /// Those of all characters that may stand in a segment (RFC 3986 §3.3) but `;`, which begins a parameter to some; the
    /// others get upper-case digits.
    Compared,
}

pub(crate) fn decode(path: &str, spelling: Spelling) -> Result<String, PathError> {
    let (bytes, mut out) = (path.as_bytes(), String::with_capacity(path.len()));
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)).ok_or(PathError::Encoding);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            out.push(char::from(byte));
            at += 1;
            continue;
        }
        let code = digit(at + 1)? * 16 + digit(at + 2)?;
        match char::from_u32(code).ok_or(PathError::Encoding)? {
            '\0' => return Err(PathError::Character),
            c if c.is_ascii_alphanumeric() || "-._~".contains(c) => out.push(c),
            _ if spelling == Spelling::Sent => out.push_str(&path[at..at + 3]),
            c if "!$&'()*+,=:@[]|".contains(c) => out.push(c),
            _ => {
                out.push('%');
                out.push_str(&path[at + 1..at + 3].to_ascii_uppercase());
            }
        }
        at += 3;
    }
    Ok(out)
}

fn resolve(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => kept.pop().map(|_| ()).ok_or(PathError::AboveRoot)?,
            name => kept.push(name),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_spelling_of_one_resource_alike() {
        for spelling in ["/a/b", "/a//b", "/a/./b", "/a/x/../b", "/%61/b", "/a/%2e/b", "/a/x/%2E%2e/b", "///a/b"] {
            assert_eq!(normalise(spelling).unwrap(), "/a/b", "{spelling}");
        }
        assert_eq!(normalise("/").unwrap(), "/");
        assert_eq!(normalise("/a/..").unwrap(), "/");
        assert_eq!(normalise("/a/b/").unwrap(), "/a/b/");
        assert_eq!(normalise("/a/b/.").unwrap(), "/a/b/");
        assert_eq!(normalise("/a/.hidden/..b").unwrap(), "/a/.hidden/..b");
    }

    #[test]
    fn an_encoded_slash_stays_data() {
        assert_eq!(normalise("/a%2fb").unwrap(), "/a%2Fb");
        assert_eq!(normalise("/a%2f..%2fb").unwrap(), "/a%2F..%2Fb");
        assert_eq!(normalise("/100%25").unwrap(), "/100%25");
    }

    #[test]
    fn what_is_not_undone_is_sent_as_it_was_written() {
        let sent = |path| read(path).unwrap().sent;
        assert_eq!(sent("/@scope%2fpkg"), Some("/@scope%2fpkg".into()));
        assert_eq!(sent("/%40scope%2Fpkg"), Some("/%40scope%2Fpkg".into()));
        assert_eq!(normalise("/%40scope%2fpkg").unwrap(), "/@scope%2Fpkg");
        assert_eq!(sent("/x/../%61%3a%20"), Some("/a%3a%20".into()));
        assert_eq!(normalise("/x/../%61%3a%20").unwrap(), "/a:%20");
        for same in ["/a%2Fb", "/a/b", "/a;b", "/%61", "/a/../b"] {
            assert_eq!(sent(same), None, "{same}");
        }
        assert!(!read("/a/./b").unwrap().suspect && read("/a;b").unwrap().suspect && read("/a%20").unwrap().suspect);
    }

    #[test]
    fn refuses_what_two_parsers_would_read_differently() {
        assert_eq!(normalise("/.."), Err(PathError::AboveRoot));
        assert_eq!(normalise("/a/%2e%2e/%2e%2e/etc"), Err(PathError::AboveRoot));
        assert_eq!(normalise("/a%"), Err(PathError::Encoding));
        assert_eq!(normalise("/a%zz"), Err(PathError::Encoding));
        assert_eq!(normalise("/a%00b"), Err(PathError::Character));
        assert_eq!(normalise("/a\\b"), Err(PathError::Character));
        assert_eq!(normalise("a/b"), Err(PathError::Relative));
    }

    proptest! {
        #[test]
        fn is_idempotent_and_leaves_no_dots(path in "/[a-z%2eEfF./]{0,30}") {
            if let Ok(once) = normalise(&path) {
                prop_assert_eq!(normalise(&once).unwrap(), once.clone());
                prop_assert!(!once.split('/').any(|s| s == "." || s == ".."));
                prop_assert!(!once.contains("//"));
            }
        }
    }
}
