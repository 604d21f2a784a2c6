//! `Content-Digest` (RFC 9530), and the body that it is of: no backend gets all of one that is another.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use subtle::ConstantTimeEq as _;

use crate::units::{Sha256, sha256};

/// When a backend gets the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// When all of it, at most so many bytes, is verified.
    Buffer(u64),
    /// As it comes; the last part when all is verified.
    Stream,
}

/// Why a body is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It has more bytes than these.
    TooLarge(u64),
    /// It is another one.
    Other,
}

/// The SHA-256 in a field's value, which may have digests of other kinds, too.
pub(super) fn read(value: &str) -> Option<[u8; 32]> {
    let mut found = value.split(',').filter_map(|member| member.trim_matches([' ', '\t']).strip_prefix("sha-256="));
    let (digest, None) = (found.next()?, found.next()) else { return None };
    STANDARD.decode(digest.strip_prefix(':')?.strip_suffix(':')?).ok()?.try_into().ok()
}

/// That of an empty body.
pub(super) fn of_nothing() -> [u8; 32] {
    sha256(b"")
}

/// A body on its way.
#[derive(Clone)]
pub(super) struct BodyCheck {
    expected: [u8; 32],
    mode: Mode,
    hash: Sha256,
    /// What the backend has not got yet.
    held: BytesMut,
}

impl BodyCheck {
    pub(super) fn new(expected: [u8; 32], mode: Mode) -> Self {
        Self { expected, mode, hash: Sha256::new(), held: BytesMut::new() }
    }

    /// Takes in a part of the body, and leaves in `chunk` what the backend may have. `seen` counts the bytes of this attempt,
    /// with those of `chunk`.
    pub(super) fn pass(&mut self, chunk: &mut Option<Bytes>, end: bool, seen: u64) -> Result<(), Bad> {
        let part = chunk.take().unwrap_or_default();
        if seen == part.len() as u64 {
            // For another attempt the body comes once more.
            *self = Self::new(self.expected, self.mode);
        }
        self.hash.update(&part);
        if let Mode::Buffer(most) = self.mode
            && seen > most
        {
            return Err(Bad::TooLarge(most));
        }
        if end {
            let found = std::mem::take(&mut self.hash).finish();
            if !bool::from(found.ct_eq(&self.expected)) {
                return Err(Bad::Other);
            }
            let mut held = std::mem::take(&mut self.held);
            let rest = if held.is_empty() {
                part
            } else {
                held.extend_from_slice(&part);
                held.freeze()
            };
            *chunk = (!rest.is_empty()).then_some(rest);
            return Ok(());
        }
        // An empty part is none: without one the body would seem to have ended.
        *chunk = Some(Bytes::new());
        match self.mode {
            Mode::Buffer(_) => self.held.extend_from_slice(&part),
            Mode::Stream if part.is_empty() => {}
            Mode::Stream => *chunk = Some(std::mem::replace(&mut self.held, BytesMut::from(part)).freeze()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(body: &str) -> [u8; 32] {
        sha256(body.as_bytes())
    }

    /// What the backend gets of these parts, and how it ends.
    fn run(mode: Mode, signed: &str, parts: &[&str]) -> (Vec<String>, Result<(), Bad>) {
        let mut check = BodyCheck::new(digest(signed), mode);
        pass_all(&mut check, parts)
    }

    fn pass_all(check: &mut BodyCheck, parts: &[&str]) -> (Vec<String>, Result<(), Bad>) {
        let (mut got, mut seen) = (Vec::new(), 0);
        for (i, part) in parts.iter().enumerate() {
            let mut chunk = Some(Bytes::copy_from_slice(part.as_bytes()));
            seen += part.len() as u64;
            if let Err(bad) = check.pass(&mut chunk, i + 1 == parts.len(), seen) {
                assert!(chunk.is_none_or(|chunk| chunk.is_empty()));
                return (got, Err(bad));
            }
            got.push(String::from_utf8_lossy(&chunk.unwrap_or_default()).into_owned());
        }
        (got, Ok(()))
    }

    fn texts(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[test]
    fn a_backend_gets_all_of_a_good_body_and_never_all_of_another() {
        let buffer = Mode::Buffer(9);
        assert_eq!(run(buffer, "abc", &["a", "b", "c"]), (texts(&["", "", "abc"]), Ok(())));
        assert_eq!(run(buffer, "abc", &["abc"]), (texts(&["abc"]), Ok(())));
        assert_eq!(run(buffer, "abc", &["ab", "c", ""]), (texts(&["", "", "abc"]), Ok(())));
        assert_eq!(run(buffer, "", &[""]), (texts(&[""]), Ok(())));
        assert_eq!(run(buffer, "abc", &["a", "b", "d"]), (texts(&["", ""]), Err(Bad::Other)));
        assert_eq!(run(buffer, "abc", &["abc", "", "d"]), (texts(&["", ""]), Err(Bad::Other)));
        assert_eq!(run(buffer, "", &["a", ""]), (texts(&[""]), Err(Bad::Other)));
        assert_eq!(run(buffer, "abc", &[""]), (texts(&[]), Err(Bad::Other)));
        assert_eq!(run(buffer, "0123456789", &["01234", "56789"]), (texts(&[""]), Err(Bad::TooLarge(9))));
        let stream = Mode::Stream;
        assert_eq!(run(stream, "abc", &["a", "b", "c"]), (texts(&["", "a", "bc"]), Ok(())));
        assert_eq!(run(stream, "abc", &["a", "", "bc", ""]), (texts(&["", "", "a", "bc"]), Ok(())));
        assert_eq!(run(stream, "abc", &["a", "b", "d"]), (texts(&["", "a"]), Err(Bad::Other)));
        assert_eq!(run(stream, "abc", &["a", "bc", "", "d", ""]), (texts(&["", "a", "", "bc"]), Err(Bad::Other)));
    }

    #[test]
    fn another_attempt_begins_anew() {
        for mode in [Mode::Buffer(9), Mode::Stream] {
            let mut check = BodyCheck::new(digest("abc"), mode);
            let (mut chunk, mut more) = (Some(Bytes::from("ab")), Some(Bytes::from("x")));
            assert_eq!((check.pass(&mut chunk, false, 2), check.pass(&mut more, false, 3)), (Ok(()), Ok(())));
            assert_eq!(pass_all(&mut check, &["a", "bc"]).1, Ok(()));
        }
    }

    #[test]
    fn one_sha_256_is_read() {
        let nothing = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(read(nothing), Some(of_nothing()));
        assert_eq!(read(&format!("sha-512=:AAAA:, {nothing}")), Some(of_nothing()));
        for wrong in [
            "",
            "sha-256",
            "sha-256=::",
            "sha-256=:AAAA:",
            "SHA-256=:47DEQ:",
            &format!("{nothing}, {nothing}"),
            "sha-512=:AAAA:",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
