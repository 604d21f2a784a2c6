//! What a client's connection runs over: TCP, or TLS over it.

use std::sync::Arc;

use pingora::protocols::{l4::stream::Stream as L4Stream, tls::SslDigest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

/// The bytes of a connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug + 'static {
    /// The TCP connection beneath.
    fn tcp(&self) -> &L4Stream;
    /// Cipher and version, when it is encrypted.
    fn tls(&self) -> Option<Arc<SslDigest>>;
}

impl Transport for Box<L4Stream> {
    fn tcp(&self) -> &L4Stream {
        self
    }

    fn tls(&self) -> Option<Arc<SslDigest>> {
        None
    }
}

impl Transport for Box<TlsStream<Box<L4Stream>>> {
    fn tcp(&self) -> &L4Stream {
        self.get_ref().0
    }

    fn tls(&self) -> Option<Arc<SslDigest>> {
        let connection = self.get_ref().1;
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("");
        let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("");
        Some(Arc::new(SslDigest::new(cipher, version, None, None, Vec::new())))
    }
}
