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

#[cfg(test)]
mod tests {
    use super::*;

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
