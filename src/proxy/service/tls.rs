//! The connection to a backend: a peer made once, with TLS, HTTP/2 and time limits, and cloned for every attempt.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

use pingora::{
    prelude::HttpPeer,
    protocols::{ALPN, tls::CaType},
    upstreams::peer::PeerOptions,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{BackendScheme, BackendUrl, Service, UpstreamTls};
use crate::{
    proxy::tls::trouble,
    units::{Problems, Span, private, tree::Node},
};

/// Requests that share one HTTP/2 connection to a backend; what common servers allow.
const H2_STREAMS: usize = 100;

/// Whom to trust and who we are, towards the backends of one service.
#[derive(Default)]
pub(super) struct Credentials {
    authorities: Option<Arc<CaType>>,
    own: Option<Arc<CertKey>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorities = self.authorities.as_ref().map_or(0, |list| list.len());
        write!(f, "Credentials {{ authorities: {authorities}, own: {} }}", self.own.is_some())
    }
}

impl Credentials {
    /// Reads the files of `config`; what is wrong goes to `problems`.
    pub(super) fn load(config: &UpstreamTls, node: &Node, problems: &mut Problems) -> Self {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        let mut credentials = Self::default();
        if let Some(path) = &config.ca {
            match certificates(path) {
                Ok(list) => credentials.authorities = Some(list.into()),
                Err(message) => wrong("ca", message),
            }
        }
        match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => match own(cert, key) {
                Ok(own) => credentials.own = Some(Arc::new(own)),
                Err(message) => wrong("cert", message),
            },
            (Some(_), None) => wrong("cert", "a certificate needs its 'key'".to_owned()),
            (None, Some(_)) => wrong("key", "a key needs its 'cert'".to_owned()),
            (None, None) => {}
        }
        credentials
    }
}

fn read(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let list = list.map_err(|e| format!("cannot read '{path}': {}", trouble(&e)))?;
    // Pingora panics on what is not a certificate.
    if list.is_empty() || list.iter().any(|der| x509_parser::parse_x509_certificate(der).is_err()) {
        return Err(format!("'{path}' holds no certificate"));
    }
    Ok(list)
}

fn certificates(path: &str) -> Result<Box<[WrappedX509]>, String> {
    Ok(read(path)?.iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect())
}

fn own(cert: &str, key: &str) -> Result<CertKey, String> {
    let chain = read(cert)?;
    private(Path::new(key))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("cannot read '{key}': {}", trouble(&e)))?;
    let bytes = secret.secret_der().to_vec();
    CertifiedKey::from_der(chain.clone(), secret, &aws_lc_rs::default_provider())
        .map_err(|e| format!("'{cert}' and '{key}' do not belong together: {e}"))?;
    Ok(CertKey::new(chain.iter().map(|der| der.to_vec()).collect(), bytes))
}

impl Service {
    /// A prepared peer for one of its URLs.
    pub(super) fn peer(&self, address: SocketAddr, url: &BackendUrl) -> HttpPeer {
        let encrypted = url.scheme == BackendScheme::Https;
        let sni = self.tls.server_name.clone().unwrap_or_else(|| url.host.clone());
        let mut peer = HttpPeer::new(address, encrypted, if encrypted { sni } else { String::new() });
        let mut options = PeerOptions::new();
        let some = |span: Span| (!span.0.is_zero()).then_some(span.0);
        options.connection_timeout = some(self.timeouts.connect);
        options.total_connection_timeout = some(self.timeouts.connect);
        options.read_timeout = some(self.timeouts.read);
        options.write_timeout = some(self.timeouts.write);
        options.idle_timeout = some(self.timeouts.keepalive);
        options.verify_cert = self.tls.verify;
        options.verify_hostname = self.tls.verify;
        options.max_h2_streams = H2_STREAMS;
        match url.scheme {
            BackendScheme::H2c => options.set_http_version(2, 2),
            BackendScheme::Https if self.tls.http2 => options.alpn = ALPN::H2H1,
            BackendScheme::Https | BackendScheme::Http => {}
        }
        options.ca.clone_from(&self.credentials.authorities);
        peer.options = options;
        peer.client_cert_key.clone_from(&self.credentials.own);
        // The pool keys connections by address and name only: two services must not share one that was opened under
        // other terms.
        peer.group_key = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&self.tls, url.scheme as u8));
        peer
    }
}
