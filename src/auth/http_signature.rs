//! Signed requests: HTTP message signatures (RFC 9421) with `hmac-sha256`, in one strict profile.
//!
//! Exactly one signature is read, in its one canonical form; components have no parameters. `created`, `keyid` and `nonce` must be
//! there, `alg` can only repeat what the key is for. Nothing is known of HTTP here: the value of a component comes from the caller.
//! A MAC is compared in constant time.

use std::{fmt, fmt::Write as _};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Digest;
use crate::units::SecretRef;

/// More components than a request has parts that matter.
pub const MOST_COMPONENTS: usize = 32;

/// Components that are no fields (RFC 9421, 2.2).
const DERIVED: [&str; 7] = ["@method", "@authority", "@path", "@query", "@scheme", "@target-uri", "@request-target"];

/// What is wrong with a list of components to cover: the place of each mistake, and what it is.
pub fn component_mistakes(components: &[String]) -> Vec<(usize, String)> {
    let mistake = |(i, name): (usize, &String)| {
        if !DERIVED.contains(&name.as_str()) && (name.contains('@') || !is_component(name)) {
            let known = DERIVED.join(", ");
            let field = "a field in lower case, of letters, digits, '-' and '_'";
            return Some((i, format!("'{name}' is neither {field}, nor one of {known}")));
        }
        components[..i].contains(name).then(|| (i, format!("'{name}' is there twice")))
    };
    components.iter().enumerate().filter_map(mistake).collect()
}

/// Whether a signature may cover something of this name.
fn is_component(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_@".contains(&byte);
    !name.is_empty() && name.bytes().all(known)
}

/// What is wrong with a key's id that [`is_key_id`] refuses.
pub const NO_KEY_ID: &str = "no signature can name it: take letters, digits and the like, without '\"', '\\' and ','";

/// Whether signatures of both kinds can name a key so.
pub fn is_key_id(id: &str) -> bool {
    let known = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\,".contains(&byte);
    !id.is_empty() && id.bytes().all(known) && id.trim() == id
}

/// The least and the most characters of a nonce: 16 of base64 are 96 bits.
const NONCE: std::ops::RangeInclusive<usize> = 16..=128;

/// A secret that is shared with a client.
pub struct SharedSecret(hmac::Key);

impl SharedSecret {
    /// The least bytes: RFC 2104, 3 advises against less than the hash has.
    pub const LEAST: usize = 32;

    /// A secret of these bytes; `None` when there are too few.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::LEAST).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// The secret that stands where `secret` says, in a file that `groups` may read.
    ///
    /// # Errors
    /// It is not there, or too short.
    pub fn read(secret: &SecretRef, groups: &[u32]) -> Result<Self, String> {
        Self::new(secret.read(groups)?.expose())
            .ok_or_else(|| format!("the secret has fewer than {} bytes: openssl rand -hex 32", Self::LEAST))
    }

    /// Tells it from others, also under another name, and tells nothing of it.
    pub fn stamp(&self) -> Digest {
        Digest::of(hmac::sign(&self.0, b"stamp").as_ref())
    }

    /// A name for one of its nonces: the same wherever the secret is, and nothing that another could make, or sign with.
    pub fn name_of(&self, nonce: &str) -> String {
        let mac = hmac::sign(&self.0, format!("nonce {nonce}").as_bytes());
        mac.as_ref().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The MAC of `message`.
    pub(super) fn mac(&self, message: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, message)
    }

    /// Whether `mac` is that of `message`.
    pub fn verifies(&self, message: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.0, message, mac).is_ok()
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is wrong with the form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// A signature that was read; nothing of it has been verified.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpSignature {
    /// The names of what it covers, in order.
    pub components: Vec<String>,
    /// When it was made.
    pub created: i64,
    /// When it ends.
    pub expires: Option<i64>,
    /// Whose it says that it is.
    pub key_id: String,
    /// What makes it the only one of its kind.
    pub nonce: String,
    /// The parameters as they are signed.
    params: String,
    mac: Vec<u8>,
}

impl HttpSignature {
    /// Reads the values of `Signature-Input` and `Signature`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(input: &str, signature: &str) -> Result<Self, Unreadable> {
        let (label, params) = input.split_once('=').ok_or(Unreadable("Signature-Input is not a dictionary"))?;
        if !is_key(label) {
            return Err(Unreadable("the signature's label is none"));
        }
        let mac = signature.strip_prefix(label).and_then(|rest| rest.strip_prefix("=:")?.strip_suffix(':'));
        let mac = mac.ok_or(Unreadable("Signature does not belong to Signature-Input, or there are several"))?;
        let mac = STANDARD.decode(mac).map_err(|_| Unreadable("the signature is not base64"))?;
        let mut reader = Reader(params);
        let components = reader.components()?;
        let mut read = Self {
            components,
            created: 0,
            expires: None,
            key_id: String::new(),
            nonce: String::new(),
            params: params.to_owned(),
            mac,
        };
        let mut seen: Vec<&str> = Vec::new();
        while !reader.0.is_empty() {
            let name = reader.parameter()?;
            if seen.contains(&name) {
                return Err(Unreadable("a parameter is there twice"));
            }
            seen.push(name);
            match name {
                "created" => read.created = reader.integer()?,
                "expires" => read.expires = Some(reader.integer()?),
                "keyid" => read.key_id = reader.string()?,
                "nonce" => read.nonce = reader.string()?,
                "alg" if reader.string()? != "hmac-sha256" => {
                    return Err(Unreadable("the algorithm is not hmac-sha256"));
                }
                "alg" => {}
                "tag" => drop(reader.string()?),
                _ => return Err(Unreadable("there is an unknown parameter")),
            }
        }
        if ["created", "keyid", "nonce"].iter().any(|name| !seen.contains(name)) {
            return Err(Unreadable("created, keyid and nonce are required"));
        }
        if !NONCE.contains(&read.nonce.len()) {
            return Err(Unreadable("the nonce has fewer than 16 characters, or more than 128"));
        }
        Ok(read)
    }

    /// What is signed (RFC 9421, 2.5), with the values of the components; `None` when one is not there.
    pub fn base(&self, mut value: impl FnMut(&str) -> Option<String>) -> Option<String> {
        base(&self.components, &self.params, &mut value)
    }

    /// Whether `secret` has signed `base`.
    pub fn is_by(&self, secret: &SharedSecret, base: &str) -> bool {
        secret.verifies(base.as_bytes(), &self.mac)
    }
}

pub(super) fn base(
    components: &[String],
    params: &str,
    value: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<String> {
    let mut text = String::with_capacity(256);
    for name in components {
        let _ = writeln!(text, "\"{name}\": {}", value(name)?);
    }
    let _ = write!(text, "\"@signature-params\": {params}");
    Some(text)
}

/// A key of a dictionary (RFC 8941, 3.2).
fn is_key(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') && text.bytes().all(inner)
}

/// Reads structured fields in their canonical form only: what is signed is the text itself, so it must have one reading.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn take(&mut self, text: &str) -> Result<(), Unreadable> {
        self.0 = self.0.strip_prefix(text).ok_or(Unreadable("Signature-Input is not in its canonical form"))?;
        Ok(())
    }

    fn components(&mut self) -> Result<Vec<String>, Unreadable> {
        self.take("(")?;
        let mut components: Vec<String> = Vec::new();
        while self.take(")").is_err() {
            if !components.is_empty() {
                self.take(" ")?;
            }
            let name = self.string()?;
            if !is_component(&name) {
                return Err(Unreadable("a component's name is none"));
            }
            if components.contains(&name) || components.len() >= MOST_COMPONENTS {
                return Err(Unreadable("a component is there twice, or there are too many"));
            }
            components.push(name);
        }
        Ok(components)
    }

    fn parameter(&mut self) -> Result<&'a str, Unreadable> {
        self.take(";")?;
        let (name, rest) = self.0.split_once('=').ok_or(Unreadable("a parameter has no value"))?;
        self.0 = rest;
        Ok(name)
    }

    fn integer(&mut self) -> Result<i64, Unreadable> {
        let end = self.0.find(';').unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        let canonical = digits.len() <= 15
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        self.0 = rest;
        digits.parse().ok().filter(|_| canonical).ok_or(Unreadable("a time is not a whole number of seconds"))
    }

    /// A string without anything that would have to be escaped.
    fn string(&mut self) -> Result<String, Unreadable> {
        self.take("\"")?;
        let (text, rest) = self.0.split_once('"').ok_or(Unreadable("a string has no end"))?;
        if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
            return Err(Unreadable("a string has characters that are not allowed here"));
        }
        self.0 = rest;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// RFC 9421, B.2.5, with the key of B.1.5.
    #[test]
    fn the_example_of_the_rfc_verifies() {
        let key = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
        let secret = SharedSecret::new(&STANDARD.decode(key).unwrap()).unwrap();
        let components = ["date", "@authority", "content-type"].map(str::to_owned);
        let params = r#"("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
        let mut value = |name: &str| {
            let value = match name {
                "date" => "Tue, 20 Apr 2021 02:07:55 GMT",
                "@authority" => "example.com",
                "content-type" => "application/json",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let base = base(&components, params, &mut value).unwrap();
        let mac = STANDARD.decode("pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=").unwrap();
        assert!(secret.verifies(base.as_bytes(), &mac), "{base}");
        for at in 0..base.len() {
            let mut changed = base.clone().into_bytes();
            changed[at] ^= 1;
            assert!(!secret.verifies(&changed, &mac), "byte {at}");
        }
    }

    const PARAMS: &str = r#"("@method" "@path");created=1700000000;keyid="k1";nonce="0123456789abcdef""#;

    #[test]
    fn one_signature_in_one_form_is_read() {
        let read = |input: &str, signature: &str| HttpSignature::read(input, signature);
        let good = read(&format!("sig1={PARAMS};alg=\"hmac-sha256\";expires=1700000060"), "sig1=:AAAA:").unwrap();
        assert_eq!(good.components, ["@method", "@path"]);
        assert_eq!((good.created, good.expires, good.key_id.as_str()), (1_700_000_000, Some(1_700_000_060), "k1"));
        assert_eq!(good.base(|name| (name == "@method").then(String::new)), None, "a component is missing");
        let with = |from: &str, to: &str| format!("sig1={}", PARAMS.replace(from, to));
        for input in [
            String::new(),
            "sig1".to_owned(),
            format!("={PARAMS}"),
            format!("Sig1={PARAMS}"),
            format!("sig1={PARAMS}, sig2={PARAMS}"),
            format!("sig1={PARAMS} "),
            with("(", "( "),
            with("\" \"", "\"  \""),
            with(";created", "; created"),
            with("created=1700000000", "created=01700000000"),
            with("created=1700000000", "created=-1"),
            with("created=1700000000", "created=1700000000.0"),
            with("created=1700000000", "created=9999999999999999"),
            with("created=1700000000", "created=\"1700000000\""),
            with(";created=1700000000", ""),
            with(";keyid=\"k1\"", ""),
            with(";nonce=\"0123456789abcdef\"", ""),
            with("0123456789abcdef", "short"),
            with("\"@path\"", "\"@method\""),
            with("\"@path\"", "\"@path\";req"),
            with("\"@path\"", "\"@Path\""),
            with("\"@path\"", "\"\""),
            with("\"@path\"", "@path"),
            with("k1", "k\\\"1"),
            format!("sig1={PARAMS};created=1700000000"),
            format!("sig1={PARAMS};alg=\"ed25519\""),
            format!("sig1={PARAMS};alg=hmac-sha256"),
            format!("sig1={PARAMS};new=1"),
            format!("sig1={PARAMS};flag"),
        ] {
            assert!(read(&input, "sig1=:AAAA:").is_err(), "{input}");
        }
        for signature in
            ["", "sig1", "sig1=AAAA", "sig2=:AAAA:", "sig1=:AAA:", "sig1=:AAAA:, sig2=:AAAA:", "sig1=:AAAA:;a=1"]
        {
            assert!(read(&format!("sig1={PARAMS}"), signature).is_err(), "{signature}");
        }
    }

    #[test]
    fn a_key_id_can_be_written_in_both_kinds_of_signature() {
        for good in ["k1", "partner 7", "a.b-c_d@e/f=;'"] {
            assert!(is_key_id(good), "{good}");
        }
        for wrong in ["", " ", " a", "a ", "a\"b", "a\\b", "a,b", "caf\u{e9}", "a\tb", "a\u{7f}"] {
            assert!(!is_key_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn secrets_have_stamps_whatever_they_are_called() {
        let stamp = |byte| SharedSecret::new(&[byte; 32]).unwrap().stamp();
        assert!(stamp(b'a') == stamp(b'a') && stamp(b'a') != stamp(b'b'));
    }

    #[test]
    fn a_secret_is_long_and_not_shown() {
        assert!(SharedSecret::new(&[b's'; 31]).is_none());
        assert_eq!(format!("{:?}", SharedSecret::new(&[b's'; 32]).unwrap()), "[redacted]");
    }
}
