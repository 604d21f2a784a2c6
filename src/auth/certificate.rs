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
    /// The subject as a distinguished name, such as `CN=billing, O=Acme`; empty for one that says nothing.
    pub subject: String,
    /// The subject's common name, escaped as in the subject: it is no other certificate's whole subject. `None` for an empty one, and
    /// for one that nobody could be told.
    pub common_name: Option<String>,
    /// Subject alternative names: DNS names, URIs (SPIFFE ids among them), mail and IP addresses; those that could be a subject, that
    /// nobody could be told, or that are empty, are left out.
    pub names: Vec<String>,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: u64,
}

impl Certificate {
    /// Reads a DER certificate; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let common_name = common_name.map(|name| escaped(name.to_owned())).filter(|name| is_name(name));
        let fingerprint = hex(String::with_capacity(64), &sha256(der));
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        let says = subject.iter_attributes().any(|attribute| !attribute.as_slice().is_empty());
        let subject = if says { distinguished(subject) } else { String::new() };
        Some(Self { subject, common_name, names: names(&certificate), fingerprint, not_after })
    }

    /// Who it is, in one word: the first alternative name, else the common name, else the whole subject. `None` when it names
    /// nobody, or nobody who could be told.
    pub fn identity(&self) -> Option<&str> {
        let name = self.names.first().or(self.common_name.as_ref()).unwrap_or(&self.subject);
        Some(name.as_str()).filter(|name| is_name(name))
    }

    /// True until it ends; `now` in seconds since 1970.
    pub fn is_valid(&self, now: u64) -> bool {
        now <= self.not_after
    }

    /// True when `name` is the subject, the common name or one of the alternative names.
    pub fn is(&self, name: &str) -> bool {
        let own = self.names.iter().chain(&self.common_name).chain([&self.subject]);
        own.filter(|own| !own.is_empty()).any(|own| own == name)
    }
}

/// Whether a text names somebody whom a field can tell.
fn is_name(text: &str) -> bool {
    !text.is_empty() && can_be_told(text)
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
            let value = attribute.as_str().map(|value| escaped(value.to_owned()));
            text.push_str(&value.unwrap_or_else(|_| hex("#".to_owned(), attribute.as_slice())));
        }
    }
    text
}

/// A value with a backslash before what has a meaning in a subject (a `#` at its beginning has one), and before spaces around it, which
/// fields of requests lose (RFC 4514 §2.4, RFC 9110 §5.5).
fn escaped(value: String) -> String {
    let special = |letter: char| matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=');
    if !value.contains(special) && value.trim() == value && !value.starts_with('#') {
        return value;
    }
    let (first, last) = (value.len() - value.trim_start().len(), value.trim_end().len());
    let mut text = String::with_capacity(value.len() + 8);
    for (at, letter) in value.char_indices() {
        if special(letter) || at < first || at >= last || at == 0 && letter == '#' {
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
        // A subject has a `=` behind a word without a colon.
        GeneralName::URI(text) if !text.contains('=') || has_scheme(text) => Some((*text).to_owned()),
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) if !text.contains('=') => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    });
    text.filter(|text| is_name(text)).collect()
}

/// Whether a text begins as a URI does (RFC 3986 §3.1).
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

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
        assert_eq!(forged.identity(), Some("CN\\=admin\\, O\\=Ops"));
        assert_eq!((of(" admin").identity(), of("admin").identity()), (Some("\\ admin"), Some("admin")));
        // What is no text has a `#` before its digits.
        assert_eq!((of("#0c01").identity(), of("a#").identity()), (Some("\\#0c01"), Some("a#")));
        assert_eq!(of("#0c01").subject, "CN=\\#0c01");
    }

    #[test]
    fn an_alternative_name_is_no_other_certificate_s_subject() {
        let of = |name: SanType| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![name];
            Certificate::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
        };
        let text = |text: &str| text.try_into().unwrap();
        for forged in ["O=Acme, CN=spiffe://acme/billing", "CN=a", "1.2.3=a:b", "a b:c=d", ":=a", ""] {
            for kind in [SanType::DnsName, SanType::Rfc822Name, SanType::URI] {
                let forged = of(kind(text(forged)));
                assert!(forged.names.is_empty() && forged.identity().is_none() && !forged.is(""), "{forged:?}");
            }
        }
        for uri in ["https://a.example/?b=c", "urn:a=b", "spiffe://acme/billing", "no-scheme"] {
            assert_eq!(of(SanType::URI(text(uri))).identity(), Some(uri));
        }
        assert_eq!(of(SanType::DnsName(text("a.example"))).identity(), Some("a.example"));
    }

    #[test]
    fn a_name_that_no_field_can_carry_is_none() {
        let of = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            Certificate::read(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
        };
        for name in ["a\nb", "a\0", "\u{85}", ""] {
            let nobody = of(name);
            assert_eq!((nobody.identity(), &nobody.common_name), (None, &None), "{name:?}");
        }
        assert_eq!(of("").subject, "");
    }
}
