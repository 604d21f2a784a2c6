//! Signatures of our own: HTTP message signatures (RFC 9421) with `hmac-sha256`, in the form that
//! [`HttpSignature`](super::HttpSignature) reads.

use std::fmt::Write as _;

use aws_lc_rs::rand;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use super::{SharedSecret, http_signature::base};

/// A secret to sign with, and what the other side calls it.
#[derive(Debug)]
pub struct SigningKey {
    /// `keyid` of the signature.
    pub id: String,
    /// The secret.
    pub secret: SharedSecret,
}

/// The values of the two fields that carry a signature.
#[derive(Debug, PartialEq, Eq)]
pub struct SignatureFields {
    /// `Signature-Input`.
    pub input: String,
    /// `Signature`.
    pub signature: String,
}

impl SigningKey {
    /// Signs these components at `created`, with a nonce that nobody has used. `None` when a component has no value, or when
    /// the system has no random bytes.
    pub fn sign(
        &self,
        components: &[String],
        created: u64,
        mut value: impl FnMut(&str) -> Option<String>,
    ) -> Option<SignatureFields> {
        let mut nonce = [0; 18];
        rand::fill(&mut nonce).ok()?;
        let mut params = String::from("(");
        for (i, name) in components.iter().enumerate() {
            let _ = write!(params, "{}\"{name}\"", if i == 0 { "" } else { " " });
        }
        let (id, nonce) = (&self.id, URL_SAFE_NO_PAD.encode(nonce));
        let _ = write!(params, ");created={created};keyid=\"{id}\";alg=\"hmac-sha256\";nonce=\"{nonce}\"");
        let mac = self.secret.mac(base(components, &params, &mut value)?.as_bytes());
        let signature = format!("sig1=:{}:", STANDARD.encode(mac));
        Some(SignatureFields { input: format!("sig1={params}"), signature })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::auth::HttpSignature;

    fn key(byte: u8) -> SigningKey {
        SigningKey { id: "gateway".to_owned(), secret: SharedSecret::new(&[byte; 32]).unwrap() }
    }

    #[test]
    fn what_is_signed_here_is_read_and_verified_there() {
        let components = ["@method", "x-user"].map(str::to_owned);
        let value = |name: &str| Some(format!("value of {name}"));
        let fields = key(1).sign(&components, 1_700_000_000, value).unwrap();
        let read = HttpSignature::read(&fields.input, &fields.signature).unwrap();
        assert_eq!((read.components.as_slice(), read.created), (components.as_slice(), 1_700_000_000));
        assert_eq!(read.key_id, "gateway");
        let base = read.base(value).unwrap();
        assert!(read.is_by(&key(1).secret, &base) && !read.is_by(&key(2).secret, &base));
        assert_ne!(key(1).sign(&components, 1_700_000_000, value).unwrap(), fields, "each has a nonce of its own");
        assert_eq!(key(1).sign(&components, 1, |_| None), None);
    }
}
