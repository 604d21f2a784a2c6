//! What a client's certificate says about it. That it may be believed was settled in the TLS handshake.

use std::fmt::Write as _;

use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer as _, GeneralName, X509Certificate, X509Name},
};

use super::identity::can_be_told;
use crate::units::sha256;

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject as a distinguished name, such as `CN=billing, O=Acme`.
    pub subject: String,
    /// The subject's common name, escaped as in the subject: it is no other certificate's whole subject.
    pub common_name: Option<String>,
    /// Subject alternative names: DNS names, URIs (SPIFFE ids among them), mail and IP addresses; those that could be a subject, or
    /// that nobody could be told, are left out.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads a DER certificate; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let common_name = common_name.map(|name| escaped(name.to_owned()));
        let fingerprint = hex(String::with_capacity(64), &sha256(der));
        Some(Self { subject: distinguished(subject), common_name, names: names(&certificate), fingerprint })
    }

    /// Who it is, in one word: the first alternative name, else the common name, else the whole subject.
    pub fn identity(&self) -> &str {
        self.names.first().or(self.common_name.as_ref()).unwrap_or(&self.subject)
    }

    /// True when `name` is the subject, the common name or one of the alternative names.
    pub fn is(&self, name: &str) -> bool {
        self.subject == name || self.common_name.as_deref() == Some(name) || self.names.iter().any(|own| own == name)
    }
}

/// A name as `CN=billing, O=Acme`, with what would make a value look like several escaped (RFC 4514 §2.4).
fn distinguished(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for part in name.iter_rdn() {
        for (number, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push_str(if number == 0 { ", " } else { " + " });
            }
            match oid2abbrev(attribute.attr_type(), oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            let value = attribute.as_str().map_or_else(|_| hex("#".to_owned(), attribute.as_slice()), str::to_owned);
            text.push_str(&escaped(value));
        }
    }
    text
}

/// A value with a backslash before what has a meaning in a subject, and before spaces around it, which fields of requests lose
/// (RFC 4514 §2.4, RFC 9110 §5.5).
fn escaped(value: String) -> String {
    let special = |letter: char| matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=');
    if !value.contains(special) && value.trim() == value {
        return value;
    }
    let (first, last) = (value.len() - value.trim_start().len(), value.trim_end().len());
    let mut text = String::with_capacity(value.len() + 8);
    for (at, letter) in value.char_indices() {
        if special(letter) || at < first || at >= last {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// `text`, and these bytes in hexadecimal digits. What is no text has a `#` before them (RFC 4514 §2.4).
fn hex(text: String, bytes: &[u8]) -> String {
    bytes.iter().fold(text, |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The DNS names that a DER certificate is for; none when it cannot be read.
pub fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// Seconds since 1970 at which a DER certificate stops being valid.
pub fn not_after(der: &[u8]) -> Option<i64> {
    Some(X509Certificate::from_der(der).ok()?.1.validity().not_after.timestamp())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    });
    // A URI may have a `=`, and begins like no subject.
    let is_name = |text: &String| can_be_told(text) && (!text.contains('=') || text.contains("://"));
    text.filter(is_name).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        Certificate::read(params.self_signed(&key).unwrap().der()).unwrap().subject
    }

    #[test]
    fn one_value_does_not_look_like_two() {
        let two = subject(&[(DnType::OrganizationName, "Acme"), (DnType::CommonName, "billing")]);
        let one = subject(&[(DnType::OrganizationName, "Acme, CN=billing")]);
        assert_eq!((two.as_str(), one.as_str()), ("O=Acme, CN=billing", "O=Acme\\, CN\\=billing"));
    }

    #[test]
    fn a_common_name_is_no_other_certificate_s_subject_and_no_other_name() {
        let of = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            Certificate::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
        };
        let forged = of("CN=admin, O=Ops");
        assert!(!forged.is("CN=admin, O=Ops") && forged.is("CN\\=admin\\, O\\=Ops"), "{forged:?}");
        assert_eq!(forged.identity(), "CN\\=admin\\, O\\=Ops");
        assert_eq!((of(" admin").identity(), of("admin").identity()), ("\\ admin", "admin"));
    }
}
