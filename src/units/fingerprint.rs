//! A number for a text, the same in every process: for what must be told apart, and of which nobody's secret is part.

use super::sha256;

/// The first eight bytes of the SHA-256 of `text`.
pub(crate) fn fingerprint(text: &str) -> u64 {
    sha256(text.as_bytes()).iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_the_same_for_the_same_text_everywhere() {
        // sha256sum says e3b0c44298fc1c14... of nothing.
        assert_eq!(super::fingerprint(""), 0xe3b0_c442_98fc_1c14);
        assert_ne!(super::fingerprint("a"), super::fingerprint("b"));
    }
}
