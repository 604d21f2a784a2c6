//! What is wrong with a PEM file, in words. The crate that reads them prints names of sections as lists of bytes, and in
//! a file whose line ends are lost the whole key is a part of the name.

use rustls::pki_types::pem::Error;

/// A longer name is none.
const NAME: usize = 40;

/// What is wrong.
pub(crate) fn trouble(e: &Error) -> String {
    match e {
        Error::MissingSectionEnd { end_marker } => format!("the section '{}' has no end", name(end_marker)),
        Error::IllegalSectionStart { line } => {
            let line = line.strip_prefix(b"-----BEGIN ").unwrap_or(line);
            format!("the first line of the section '{}' does not end in -----", name(line))
        }
        Error::NoItemsFound => "there is no such section in it".to_owned(),
        other => other.to_string(),
    }
}

/// A section's name, and nothing of what follows it.
fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let name = text.split("--").next().unwrap_or_default().trim_end();
    let short: String = name.chars().take(NAME).collect();
    short.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

    use super::*;

    #[test]
    fn a_name_is_text_and_holds_no_key() {
        let said = |text: &str| trouble(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap_err());
        assert_eq!(said("-----BEGIN STRANGE\u{7}-----\nAAAA\n"), "the section 'STRANGE\\u{7}' has no end");
        assert_eq!(
            said("-----BEGIN ODD ONE--\nAAAA\n"),
            "the first line of the section 'ODD ONE' does not end in -----"
        );
        assert_eq!(said("nonsense"), "there is no such section in it");
        for one_line in
            ["-----BEGIN PRIVATE KEY-----c2VjcmV0-----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY----- c2VjcmV0"]
        {
            let said = trouble(&PrivateKeyDer::from_pem_slice(one_line.as_bytes()).unwrap_err());
            assert!(said.contains("'PRIVATE KEY'") && !said.contains("c2Vj"), "{said}");
        }
    }
}
