//! Sessions of a listener that asks clients for certificates: none is resumed after the certificate that began it has ended.
//!
//! A resumed handshake verifies nothing, and its session is handed on with a fresh ticket each time. So each connection notes when its
//! client's certificate ends, its tickets carry that along, and one that has ended is taken for no ticket at all: the client is asked for
//! a certificate again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ProducesTickets,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::auth::not_after;

/// Seconds since 1970 at which a connection's sessions end; without a certificate they do not.
#[derive(Debug, Clone)]
pub(super) struct SessionEnd(Arc<AtomicU64>);

impl SessionEnd {
    /// Of a connection that has not shown a certificate.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

/// A verifier that notes when the certificates end that it lets in.
#[derive(Debug)]
pub(super) struct NotingVerifier {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) end: SessionEnd,
}

impl ClientCertVerifier for NotingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        // One whose end cannot be read is over: its session is not resumed.
        let end = not_after(end_entity).and_then(|end| u64::try_from(end).ok()).unwrap_or_default();
        self.end.0.store(end, Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}

/// Tickets with the end of their session in front: eight bytes, seconds since 1970.
#[derive(Debug)]
pub(super) struct EndingTickets {
    pub(super) inner: Arc<dyn ProducesTickets>,
    pub(super) end: SessionEnd,
}

impl ProducesTickets for EndingTickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&[&self.end.0.load(Relaxed).to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.inner.decrypt(cipher)?;
        let (end, session) = plain.split_first_chunk()?;
        let end = u64::from_be_bytes(*end);
        if UnixTime::now().as_secs() > end {
            return None;
        }
        // The next ticket of this session ends then, too.
        self.end.0.store(end, Relaxed);
        Some(session.to_vec())
    }
}
