//! TLS to clients: `tls:` of a listener. The engine is rustls with its defaults, which are a subset of what Mozilla calls
//! "intermediate": TLS 1.2 with ECDHE and AEAD ciphers, and TLS 1.3.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ConfigBuilder, ServerConfig, SupportedProtocolVersion, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use tokio_rustls::TlsAcceptor;

use super::{
    certificates::{CertificateConfig, Certificates},
    pem,
    sessions::{EndingTickets, NotingVerifier, SessionEnd},
    stamp::{Reread, Stamp, stamp},
};
use crate::{
    units::{FileRef, Problems},
    yaml::{Node, Spanned},
};

/// `tls:` of a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates; the one whose names fit what the client asks for is shown, else the first. Changed files are
    /// taken up within seconds, without a restart.
    pub certificates: Vec<Spanned<CertificateConfig>>,
    /// The oldest version to speak: `1.2` (default) or `1.3`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Protocols to offer, the preferred one first. Default `[h2, http/1.1]`.
    #[serde(default = "both")]
    pub alpn: Vec<Alpn>,
    /// Ask clients for a certificate.
    #[serde(default)]
    pub mtls: Option<MtlsConfig>,
}

fn both() -> Vec<Alpn> {
    vec![Alpn::H2, Alpn::Http11]
}

/// An application protocol (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl Alpn {
    fn wire(self) -> Vec<u8> {
        match self {
            Self::H2 => b"h2".to_vec(),
            Self::Http11 => b"http/1.1".to_vec(),
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V12,
    /// RFC 8446.
    V13,
}

impl TlsVersion {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::V12 => &FROM_12,
            Self::V13 => &FROM_12[..1],
        }
    }
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "1.2" => Ok(Self::V12),
            "1.3" => Ok(Self::V13),
            other => Err(de::Error::custom(format!("unknown value '{other}' (known: 1.2, 1.3)"))),
        }
    }
}

impl JsonSchema for TlsVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TlsVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}

/// `mtls:` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MtlsConfig {
    /// Certificates of the authorities that may have signed a client's, as PEM. A changed file is taken up within
    /// seconds.
    pub ca: FileRef,
    /// `required` (default): no handshake without a certificate. `optional`: the `client_cert` filter decides.
    #[serde(default)]
    pub mode: MtlsMode,
}

/// Whether a client must have a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MtlsMode {
    /// It must.
    #[default]
    Required,
    /// It may.
    Optional,
}

/// The TLS side of one listener, ready for handshakes.
#[derive(Clone)]
pub struct TlsFront {
    config: TlsConfig,
    certificates: Arc<Certificates>,
    handshakes: Arc<ArcSwap<Handshakes>>,
    /// The file of authorities.
    authorities: Arc<Mutex<Reread<Stamp>>>,
}

impl fmt::Debug for TlsFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFront")
            .field("config", &self.config)
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

impl TlsFront {
    /// Reads certificates and keys; what is wrong goes to `problems`. `node` is the listener's `tls`; `groups` may read
    /// the keys, too.
    pub fn build(config: &TlsConfig, node: &Node, groups: &[u32], problems: &mut Problems) -> Option<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let before = problems.len();
        if config.certificates.is_empty() {
            problems.push(node.at("certificates").place().problem("TLS needs at least one certificate"));
        }
        if config.alpn.is_empty() {
            problems.push(node.at("alpn").place().problem("nothing to speak: name h2, http/1.1 or both"));
        }
        let certificates = Arc::new(Certificates::load(&config.certificates, node, groups, provider.clone(), problems));
        let authorities = config.mtls.as_ref().and_then(|mtls| stamp(&mtls.ca));
        let verifier = config.mtls.as_ref().and_then(|mtls| match verifier(mtls, provider.clone()) {
            Ok(verifier) => Some(verifier),
            Err(message) => {
                problems.push(node.at("mtls.ca").place().problem(message));
                None
            }
        });
        if problems.len() > before {
            return None;
        }
        match Handshakes::new(config, provider, verifier, &certificates) {
            Ok(handshakes) => Some(Self {
                config: config.clone(),
                certificates,
                handshakes: Arc::new(ArcSwap::from_pointee(handshakes)),
                authorities: Arc::new(Mutex::new(Reread::new(authorities))),
            }),
            Err(message) => {
                problems.push(node.place().problem(message));
                None
            }
        }
    }

    /// Takes up files that have changed. What cannot be read leaves what was read before in use, and is said once.
    pub fn refresh(&self) {
        self.certificates.refresh();
        let Some(mtls) = &self.config.mtls else { return };
        let found = stamp(&mtls.ca);
        let mut authorities = self.authorities.lock();
        if !authorities.have_changed(&found) {
            return;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let renewed = verifier(mtls, provider.clone())
            .and_then(|verifier| Handshakes::new(&self.config, provider, Some(verifier), &self.certificates));
        match renewed {
            Ok(handshakes) => {
                self.handshakes.store(Arc::new(handshakes));
                *authorities = Reread::new(found);
                log::info!("authorities of clients were read again: {}", mtls.ca);
            }
            Err(message) => authorities
                .failed(found, &format!("authorities of clients: {message}; those that were read before stay")),
        }
    }

    /// What makes the handshake of one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.handshakes.load().acceptor()
    }

    /// The certificates in use.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }
}

/// How handshakes are made, with tickets of its own: a session that another verifier has let in is not resumed.
enum Handshakes {
    /// All alike.
    Alike(Arc<ServerConfig>),
    /// Each for itself, for whoever may show a certificate.
    Asking(Box<Asking>),
}

/// What a handshake is made of that asks for a certificate.
struct Asking {
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    verifier: Arc<dyn ClientCertVerifier>,
    certificates: Arc<Certificates>,
    alpn: Vec<Vec<u8>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Handshakes {
    fn new(
        config: &TlsConfig,
        provider: Arc<CryptoProvider>,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        certificates: &Arc<Certificates>,
    ) -> Result<Self, String> {
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(config.min_version.and_newer())
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let (certificates, alpn) = (certificates.clone(), config.alpn.iter().map(|protocol| protocol.wire()).collect());
        // Stateless resumption: a client that comes back is spared the signature, and we are spared a table of them.
        let tickets = aws_lc_rs::Ticketer::new().ok();
        let Some(verifier) = verifier else {
            let server = builder.with_no_client_auth().with_cert_resolver(certificates);
            return Ok(Self::Alike(Arc::new(with_sessions(server, alpn, tickets))));
        };
        Ok(Self::Asking(Box::new(Asking { builder, verifier, certificates, alpn, tickets })))
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(match self {
            Self::Alike(server) => server.clone(),
            Self::Asking(asking) => Arc::new(asking.server()),
        })
    }
}

impl Asking {
    fn server(&self) -> ServerConfig {
        let end = SessionEnd::new();
        let verifier = Arc::new(NotingVerifier { inner: self.verifier.clone(), end: end.clone() });
        let server = self.builder.clone().with_client_cert_verifier(verifier);
        let server = server.with_cert_resolver(self.certificates.clone());
        let tickets =
            self.tickets.clone().map(|inner| Arc::new(EndingTickets { inner, end }) as Arc<dyn ProducesTickets>);
        let mut server = with_sessions(server, self.alpn.clone(), tickets);
        // No session but by a ticket: nothing that is kept here would end in time.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server
    }
}

fn with_sessions(
    mut server: ServerConfig,
    alpn: Vec<Vec<u8>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> ServerConfig {
    server.alpn_protocols = alpn;
    if let Some(tickets) = tickets {
        server.ticketer = tickets;
    }
    server.send_tls13_tickets = 1;
    server
}

fn verifier(config: &MtlsConfig, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let path = &config.ca.path()?;
    let roots = pem::authorities(path)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match config.mode {
        MtlsMode::Required => builder,
        MtlsMode::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|e| format!("'{path}' cannot be used: {e}"))
}
