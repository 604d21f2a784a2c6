//! What a byte may be part of, looked up in one table: heads are read byte by byte, and a search in a list for each byte
//! costs more than everything else that is done to a head.

/// A set of bytes that a grammar names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteClass(u8);

/// A token: methods, names of fields (RFC 9110 §5.6.2).
pub(crate) const TOKEN: ByteClass = ByteClass(1);
/// A control character that has no place in a line: NUL and every other but the tab; CR alone is one of them.
pub(crate) const CONTROL: ByteClass = ByteClass(2);
/// A host without an encoding, and without a comma: a list of hosts is no host, though one may stand in a reg-name
/// (RFC 3986 §3.2.2).
pub(crate) const HOST: ByteClass = ByteClass(4);
/// A request target as clients send it; see `target.rs`.
pub(crate) const TARGET: ByteClass = ByteClass(8);
/// What no path has before its query; see `target.rs`.
pub(crate) const NOT_IN_PATH: ByteClass = ByteClass(32);
/// A string of JSON without an escape (RFC 8259 §7).
pub(crate) const JSON: ByteClass = ByteClass(16);

static TABLE: [u8; 256] = table();

const fn table() -> [u8; 256] {
    let (mut table, mut byte) = ([0; 256], 0u8);
    loop {
        let letter = byte.is_ascii_alphanumeric();
        if letter || among(byte, b"!#$%&'*+-.^_`|~") {
            table[byte as usize] |= TOKEN.0;
        }
        if (byte < 0x20 && byte != b'\t') || byte == 0x7f {
            table[byte as usize] |= CONTROL.0;
        }
        if letter || among(byte, b"-._~!$&'()*+;=") {
            table[byte as usize] |= HOST.0;
        }
        if byte.is_ascii_graphic() && !among(byte, b"#\"<>") {
            table[byte as usize] |= TARGET.0;
        }
        if byte >= 0x20 && !among(byte, b"\"\\") {
            table[byte as usize] |= JSON.0;
        }
        if among(byte, b"\\^`{}") {
            table[byte as usize] |= NOT_IN_PATH.0;
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

const fn among(byte: u8, list: &[u8]) -> bool {
    let mut at = 0;
    while at < list.len() {
        if list[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

impl ByteClass {
    /// True for a byte of this class.
    pub(crate) fn has(self, byte: u8) -> bool {
        TABLE[usize::from(byte)] & self.0 != 0
    }

    /// True when all bytes are of this class.
    pub(crate) fn has_all(self, bytes: &[u8]) -> bool {
        // To the end, whatever there is: a way out at each byte costs more than what it saves.
        bytes.iter().fold(self.0, |kept, byte| kept & TABLE[usize::from(*byte)]) != 0
    }

    /// True when any byte is of this class.
    pub(crate) fn has_any(self, bytes: &[u8]) -> bool {
        bytes.iter().fold(0, |seen, byte| seen | TABLE[usize::from(*byte)]) & self.0 != 0
    }
}

/// True when there is a control character: a byte of `CONTROL`.
pub(crate) fn has_control(bytes: &[u8]) -> bool {
    // The tab is the one byte below 0x20 that is none: it is seldom there, and the table knows it.
    words(bytes).any(|word| below(word, 0x20) | equal(word, 0x7f) != 0) && CONTROL.has_any(bytes)
}

/// True for a text that stands in JSON as it is: all its bytes are of `JSON`.
pub(crate) fn is_plain_json(bytes: &[u8]) -> bool {
    !words(bytes).any(|word| below(word, 0x20) | equal(word, b'"') | equal(word, b'\\') != 0)
}

/// The bytes in words of eight; some may be there twice, and of less than a word the rest is a letter.
fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, _) = bytes.as_chunks();
    let last = bytes.last_chunk().copied().unwrap_or_else(|| {
        let mut padded = [b'a'; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        padded
    });
    whole.iter().copied().chain(std::iter::once(last)).map(u64::from_ne_bytes)
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = ONES << 7;

/// Not zero when a byte of the word is below `least`, which is at most 0x80.
fn below(word: u64, least: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(least)) & !word & TOPS
}

/// Not zero when a byte of the word is this one.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_say_what_the_table_says(text in prop::collection::vec(prop_oneof![
            8 => 0x20u8..0x7f, 1 => any::<u8>(), 1 => Just(b'\t'), 1 => Just(0x7f)], 0..40)) {
            prop_assert_eq!(has_control(&text), CONTROL.has_any(&text));
            prop_assert_eq!(is_plain_json(&text), JSON.has_all(&text));
        }
    }

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for (length, at) in (1..20usize).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut text = vec![b'x'; length];
                text[at] = byte;
                assert_eq!(has_control(&text), CONTROL.has(byte), "{byte} at {at} of {length}");
                assert_eq!(is_plain_json(&text), JSON.has(byte), "{byte} at {at} of {length}");
            }
        }
    }

    #[test]
    fn bytes_are_what_the_grammars_say() {
        let of = |class: ByteClass| (0..=u8::MAX).filter(|byte| class.has(*byte)).collect::<Vec<_>>();
        let letters = |more: &[u8]| {
            let mut all: Vec<u8> =
                (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z').chain(more.iter().copied()).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(of(TOKEN), letters(b"!#$%&'*+-.^_`|~"));
        assert_eq!(of(HOST), letters(b"-._~!$&'()*+;="));
        let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        assert_eq!(of(CONTROL), (0..=u8::MAX).filter(control).collect::<Vec<_>>());
        let target = |byte: &u8| (0x21..0x7f).contains(byte) && !b"#\"<>".contains(byte);
        assert_eq!(of(TARGET), (0..=u8::MAX).filter(target).collect::<Vec<_>>());
        assert_eq!(of(NOT_IN_PATH), b"\\^`{}");
        for byte in 0..=u8::MAX {
            let text = char::from(byte).to_string();
            let plain = serde_json::to_string(&text).is_ok_and(|json| json == format!("\"{text}\""));
            assert_eq!(text.bytes().all(|byte| JSON.has(byte)), plain, "{byte}");
        }
    }

    #[test]
    fn all_and_any() {
        assert!(TOKEN.has_all(b"GET") && TOKEN.has_all(b"") && !TOKEN.has_all(b"G T"));
        assert!(CONTROL.has_any(b"a\0b") && !CONTROL.has_any(b"a\tb") && !CONTROL.has_any(b""));
    }
}
