//! The connection to a backend: a peer made once, with TLS, HTTP/2 and time limits, and cloned for every attempt.

use std::{fmt, sync::Arc};

use pingora::{
    protocols::tls::CaType,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use schemars::JsonSchema;
use serde::Deserialize;

use super::pem;
use crate::{
    units::{FileRef, Problems},
    yaml::Node,
};

/// TLS towards backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Check the backend's certificate and its name. Default true.
    pub verify: bool,
    /// The name to ask for and to check. Default: the URL's host.
    pub server_name: Option<String>,
    /// Certificates of the authorities to trust, as a PEM file. Default: `pingora.ca_file`, else the system's.
    pub ca: Option<FileRef>,
    /// The gateway's own certificate and its chain, as a PEM file, for backends that ask for one.
    pub cert: Option<FileRef>,
    /// Its private key, as a PEM file.
    pub key: Option<FileRef>,
    /// Offer HTTP/2 (ALPN). Default true.
    pub http2: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, server_name: None, ca: None, cert: None, key: None, http2: true }
    }
}

/// Whom to trust and who we are, towards the backends of one service.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) authorities: Option<Arc<CaType>>,
    pub(crate) own: Option<Arc<CertKey>>,
    /// Tells the contents of the files from others.
    pub(crate) stamp: u64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.authorities.as_ref().map_or(0, |list| list.len());
        write!(f, "Credentials {{ authorities: {authorities}, own: {} }}", self.own.is_some())
    }
}

impl Credentials {
    /// Reads the files of `config`; what is wrong goes to `problems`. `readers` may read the key.
    pub(crate) fn load(config: &UpstreamTls, readers: &[u32], node: &Node, problems: &mut Problems) -> Self {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        let mut credentials = Self::default();
        if let Some(path) = &config.ca {
            match trusted(path) {
                Ok((list, stamp)) => (credentials.authorities, credentials.stamp) = (Some(list), stamp),
                Err(message) => wrong("ca", message),
            }
        }
        match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => match own(cert, key, readers) {
                Ok((chain, key)) => {
                    let parts = chain.iter().chain([&key]);
                    credentials.stamp = parts.fold(credentials.stamp, |stamp, part| stamped(stamp, part));
                    credentials.own = Some(Arc::new(CertKey::new(chain, key)));
                }
                Err((place, message)) => wrong(place, message),
            },
            (Some(_), None) => wrong("cert", "a certificate needs its 'key'".to_owned()),
            (None, Some(_)) => wrong("key", "a key needs its 'cert'".to_owned()),
            (None, None) => {}
        }
        credentials
    }
}

/// `stamp` with one more part in it. Fixed seeds: two configurations of one process are compared.
fn stamped(stamp: u64, part: &[u8]) -> u64 {
    ahash::RandomState::with_seeds(stamp, 2, 3, 4).hash_one(part)
}

/// The authorities in a file, and what tells them from others.
///
/// # Errors
/// It cannot be read, or holds none.
pub(crate) fn trusted(file: &FileRef) -> Result<(Arc<CaType>, u64), String> {
    let list = authorities(file)?;
    let stamp = list.iter().fold(0, |stamp, der| stamped(stamp, der));
    Ok((list.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect(), stamp))
}

/// Certificates of authorities, in DER.
fn authorities(file: &FileRef) -> Result<Vec<Vec<u8>>, String> {
    Ok(pem::certificates(&file.path()?)?.iter().map(|der| der.to_vec()).collect())
}

/// A chain of certificates and the key to the first of them.
type OwnDer = (Vec<Vec<u8>>, Vec<u8>);

/// A chain of certificates and the key to the first of them, in DER.
///
/// # Errors
/// The key of the settings that is to blame, and why.
fn own(cert: &FileRef, key: &FileRef, readers: &[u32]) -> Result<OwnDer, (&'static str, String)> {
    let (of_cert, of_key) = (|message| ("cert", message), |message| ("key", message));
    let chain = pem::certificates(&cert.path().map_err(of_cert)?).map_err(of_cert)?;
    let secret = pem::key(&key.path().map_err(of_key)?, readers).map_err(of_key)?;
    let bytes = secret.secret_der().to_vec();
    CertifiedKey::from_der(chain.clone(), secret, &aws_lc_rs::default_provider())
        .map_err(|e| of_key(format!("'{cert}' and '{key}' do not belong together: {e}")))?;
    Ok((chain.iter().map(|der| der.to_vec()).collect(), bytes))
}
