//! An issuer of tokens: keys that sign, and a server with TLS that publishes a key set and misbehaves when told to.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::Certs;

/// What the server does when it is asked.
#[derive(Clone)]
pub(crate) enum Publishes {
    /// Answers with these keys, and these further fields.
    Set(Value, &'static str),
    /// Answers with this.
    Raw(&'static str),
    /// Answers with so many bytes.
    Bytes(usize),
    /// Never answers.
    Nothing,
    /// Closes the connection.
    Close,
}

/// A server that publishes a key set.
pub(crate) struct JwksServer {
    pub(crate) port: u16,
    publishes: Arc<Mutex<Publishes>>,
    asked: Arc<AtomicUsize>,
    _executor: tokio::runtime::Runtime,
}

/// `localhost.pem` of `certs` is what the server shows.
fn acceptor(certs: &Certs) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(certs.path("localhost.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certs.path("localhost.key")).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

impl JwksServer {
    pub(crate) fn start(certs: &Certs, publishes: Publishes) -> Self {
        certs.issue("localhost", "localhost", &["localhost"]);
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = executor.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (publishes, asked) = (Arc::new(Mutex::new(publishes)), Arc::new(AtomicUsize::new(0)));
        let (script, count, acceptor) = (publishes.clone(), asked.clone(), acceptor(certs));
        executor.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, count, acceptor) = (script.clone(), count.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    count.fetch_add(1, SeqCst);
                    let publishes = script.lock().clone();
                    let ok = |body: &str, more: &str| {
                        format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
                    };
                    let answer = match publishes {
                        Publishes::Set(keys, more) => ok(&json!({ "keys": keys }).to_string(), more),
                        Publishes::Raw(text) => text.to_owned(),
                        Publishes::Bytes(count) => ok(&" ".repeat(count), ""),
                        Publishes::Nothing => return tokio::time::sleep(Duration::from_secs(600)).await,
                        Publishes::Close => return,
                    };
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, publishes, asked, _executor: executor }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.port)
    }

    pub(crate) fn publish(&self, publishes: Publishes) {
        *self.publishes.lock() = publishes;
    }

    /// How often it has been asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

/// A key of the fixtures, which signs and is published.
#[derive(Clone, Copy)]
pub(crate) enum TestKey {
    Ed25519,
    P256,
}

impl TestKey {
    fn file(self) -> &'static str {
        match self {
            Self::Ed25519 => "test-ed25519",
            Self::P256 => "test-ec256",
        }
    }

    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::Ed25519 => Algorithm::EdDSA,
            Self::P256 => Algorithm::ES256,
        }
    }

    fn pem(self, half: &str) -> Vec<u8> {
        fs::read(format!("tests/fixtures/keys/{}.{half}.pem", self.file())).unwrap()
    }

    pub(crate) fn signing(self) -> EncodingKey {
        match self {
            Self::Ed25519 => EncodingKey::from_ed_pem(&self.pem("private")).unwrap(),
            Self::P256 => EncodingKey::from_ec_pem(&self.pem("private")).unwrap(),
        }
    }

    /// The public half as a JWK.
    pub(crate) fn jwk(self, kid: &str) -> Value {
        let der = SubjectPublicKey::of(&self.pem("public"));
        let digits = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519 => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": digits(der.last(32)) })
            }
            Self::P256 => {
                let (x, y) = der.last(64).split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": digits(x), "y": digits(y) })
            }
        }
    }

    /// A token of these claims.
    pub(crate) fn token(self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(self.algorithm()) };
        encode(&header, claims, &self.signing()).unwrap()
    }
}

/// What a PEM file holds: the key's bytes are at its end.
struct SubjectPublicKey(Vec<u8>);

impl SubjectPublicKey {
    fn of(pem: &[u8]) -> Self {
        let text = String::from_utf8_lossy(pem);
        let digits: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        Self(base64::engine::general_purpose::STANDARD.decode(digits).unwrap())
    }

    fn last(&self, count: usize) -> &[u8] {
        &self.0[self.0.len() - count..]
    }
}
