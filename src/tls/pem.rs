//! PEM files, and what is wrong with one, in words. The crate that reads them prints names of sections as lists of bytes,
//! and in a file whose line ends are lost the whole key is a part of the name.

use std::path::Path;

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject as _, SectionKind},
    },
};

use crate::units::{private, read_file};

/// A longer name is none.
const NAME: usize = 40;

/// The certificates in the file at `path`, at least one.
///
/// # Errors
/// It cannot be read, or one of them is none: Pingora panics on what is not a certificate.
pub(crate) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(path, &read(path)?)
}

/// The same from a file that holds nothing else, as Pingora wants it, ready to be trusted.
///
/// # Errors
/// The same, or there is something else in it, or one cannot be trusted.
pub(crate) fn only_authorities(path: &str) -> Result<RootCertStore, String> {
    let text = read(path)?;
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(&text);
    if sections.any(|section| section.is_ok_and(|(kind, _)| kind != SectionKind::Certificate)) {
        return Err(format!("'{path}' holds what is no certificate"));
    }
    store(path, certificates_in(path, &text)?)
}

/// The certificates in the file at `path`, ready to be trusted.
///
/// # Errors
/// The same, or one cannot be trusted.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, String> {
    store(path, certificates(path)?)
}

/// The private key in the file at `path`, which nobody else can read but one of `groups`.
///
/// # Errors
/// Others can, or there is none in it.
pub(crate) fn key(path: &str, groups: &[u32]) -> Result<PrivateKeyDer<'static>, String> {
    private(Path::new(path), &format!("'{path}'"), groups)?;
    let text = read(path)?;
    if ENCRYPTED.iter().any(|mark| text.windows(mark.len()).any(|part| part == *mark)) {
        return Err(format!(
            "the key in '{path}' is encrypted, and nobody could type its password: openssl pkey -in FILE"
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| unreadable(path, &e))
}

/// What encrypted keys say of themselves (RFC 5958, and OpenSSL's older form).
const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];

fn read(path: &str) -> Result<Vec<u8>, String> {
    read_file(Path::new(path)).map_err(|e| format!("cannot read '{path}': {e}"))
}

fn certificates_in(path: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let list = list.map_err(|e| unreadable(path, &e))?;
    if list.is_empty() {
        return Err(format!("'{path}' holds no certificate"));
    }
    if list.iter().any(|der| x509_parser::parse_x509_certificate(der).is_err()) {
        return Err(format!("'{path}' holds what is no certificate"));
    }
    Ok(list)
}

fn store(path: &str, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|e| format!("'{path}' holds what is not an authority: {e}"))?;
    }
    Ok(roots)
}

fn unreadable(path: &str, e: &Error) -> String {
    format!("cannot read '{path}': {}", trouble(e))
}

/// What is wrong.
fn trouble(e: &Error) -> String {
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
