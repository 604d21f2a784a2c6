//! Text as a string of JSON.

use super::byte_class::is_plain_json;

/// Appends `text` with its quotes. Most text needs no escape, and is copied as it is.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    if is_plain_json(text.as_bytes()) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing a string to memory cannot fail.
        let _ = serde_json::to_writer(out, text);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_what_serde_writes(text in ".{0,40}") {
            let mut out = Vec::new();
            super::string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }
}
