//! TLS and HTTP/2 towards backends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use crate::harness::{Certs, Gateway};

/// A TLS backend that speaks what was agreed on; it counts connections and answers with the protocol's name.
pub(crate) struct Backend {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    _executor: tokio::runtime::Runtime,
}

/// What is wanted of a backend.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wants {
    H1,
    H2,
    H2Only,
    H2c,
    Certificate,
}

impl Backend {
    pub(crate) fn start(certs: &Certs, wants: Wants) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = executor.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let acceptor = acceptor(certs, wants);
        let counted = connections.clone();
        executor.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if wants == Wants::H2c {
                        return serve_h2(stream).await;
                    }
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        serve_h2(stream).await;
                    } else {
                        serve_h1(stream).await;
                    }
                });
            }
        });
        Self { port, connections, _executor: executor }
    }
}

fn acceptor(certs: &Certs, wants: Wants) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if wants == Wants::Certificate {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certs.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(certs.path("backend.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certs.path("backend.key")).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    let protocols: &[&[u8]] = match wants {
        Wants::H2 => &[b"h2", b"http/1.1"],
        Wants::H2Only => &[b"h2"],
        _ => &[b"http/1.1"],
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn serve_h1<S>(mut stream: S) -> BoxFuture<'static, ()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    Box::pin(async move {
        let mut buffer = [0; 8192];
        while let Ok(1..) = stream.read(&mut buffer).await {
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh1").await.is_err() {
                return;
            }
        }
    })
}

async fn serve_h2<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let head = http::Response::builder().status(200).body(()).unwrap();
            if let Ok(mut stream) = respond.send_response(head, false) {
                let _ = stream.send_data(bytes::Bytes::from_static(b"h2"), true);
            }
        });
    }
}

fn gateway(url: &str, tls: &str) -> Gateway {
    Gateway::start(&format!(
        "services:\n  main: {{ urls: [\"{url}\"], retry: {{ max_attempts: 1 }}, tls: {{ {tls} }} }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n"
    ))
}

#[test]
fn certificates_of_backends_are_checked() {
    let (certs, others) = (Certs::new(), Certs::new());
    certs.issue("backend", "backend", &["backend.example"]);
    let backend = Backend::start(&certs, Wants::H1);
    let url = format!("https://127.0.0.1:{}", backend.port);
    let ca = |certs: &Certs| format!("ca: {}", certs.path("ca.pem"));
    gateway(&url, &format!("{}, server_name: backend.example", ca(&certs))).get("/").expect(200).says("h1");
    gateway(&url, &format!("{}, server_name: other.example", ca(&certs))).get("/").expect(502).problem();
    gateway(&url, &ca(&certs)).get("/").expect(502).problem();
    gateway(&url, &format!("{}, server_name: backend.example", ca(&others))).get("/").expect(502).problem();
    gateway(&url, "server_name: backend.example").get("/").expect(502).problem();
    gateway(&url, "verify: false").get("/").expect(200).says("h1");
}

#[test]
fn the_gateway_shows_its_own_certificate() {
    let certs = Certs::new();
    certs.issue("backend", "backend", &["backend.example"]);
    certs.issue("gateway", "gateway", &[]);
    let backend = Backend::start(&certs, Wants::Certificate);
    let url = format!("https://127.0.0.1:{}", backend.port);
    let trust = format!("ca: {}, server_name: backend.example", certs.path("ca.pem"));
    gateway(&url, &format!("{trust}, {}", certs.yaml("gateway"))).get("/").expect(200).says("h1");
    gateway(&url, &trust).get("/").expect(502).problem();
}

#[test]
fn http2_is_agreed_on_and_one_connection_carries_many_requests() {
    let certs = Certs::new();
    certs.issue("backend", "backend", &["backend.example"]);
    let trust = format!("ca: {}, server_name: backend.example", certs.path("ca.pem"));
    let backend = Backend::start(&certs, Wants::H2);
    let url = format!("https://127.0.0.1:{}", backend.port);
    let gw = gateway(&url, &trust);
    gw.get("/").expect(200).says("h2");
    gw.request("POST", "/").body(b"hello").expect(200).says("h2");
    std::thread::scope(|scope| {
        (0..20).for_each(|_| drop(scope.spawn(|| gw.get("/").expect(200).says("h2"))));
    });
    let connections = backend.connections.load(SeqCst);
    // One per worker thread of the gateway, and what was opened at the same moment: on a busy machine that is more.
    assert!(connections <= 11, "{connections} connections for 22 requests");
    gateway(&url, &format!("{trust}, http2: false")).get("/").expect(200).says("h1");

    let plain = Backend::start(&certs, Wants::H2c);
    gateway(&format!("h2c://127.0.0.1:{}", plain.port), "").get("/").expect(200).says("h2");
}

#[test]
fn a_health_check_asks_each_backend_for_its_own_certificate() {
    let certs = Certs::new();
    certs.issue("backend", "a", &["a.test"]);
    let a = Backend::start(&certs, Wants::H1);
    certs.issue("backend", "b", &["b.test"]);
    let b = Backend::start(&certs, Wants::H1);
    let zone = crate::discovery::Zone::default();
    for name in ["a.test", "b.test"] {
        zone.lock().insert((name.into(), 1), vec![vec![127, 0, 0, 1]]);
    }
    let resolver = crate::discovery::dns(zone);
    for path in ["", "path: /, "] {
        let gw = Gateway::start(&format!(
            "services:\n  main:\n    urls: [\"https://a.test:{}\", \"https://b.test:{}\"]\n    discovery: {{ resolver: \"{resolver}\" }}\n    tls: {{ ca: {} }}\n    health_check: {{ {path}every: 50ms, unhealthy_after: 2 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
            a.port,
            b.port,
            certs.path("ca.pem")
        ));
        let before = (a.connections.load(SeqCst), b.connections.load(SeqCst));
        crate::harness::eventually("both have been checked", || {
            a.connections.load(SeqCst) > before.0 + 4 && b.connections.load(SeqCst) > before.1 + 4
        });
        assert!(!gw.errors().contains("is unhealthy"), "{}", gw.errors());
    }
}

#[test]
fn health_checks_trust_whom_requests_trust() {
    let certs = Certs::new();
    certs.issue("backend", "backend", &["backend.example"]);
    let backend = Backend::start(&certs, Wants::H1);
    for path in ["", "path: /, "] {
        let gw = Gateway::start(&format!(
            "pingora: {{ threads: 2, pid_file: \"{{dir}}/pid\", upgrade_sock: \"{{dir}}/sock\", ca_file: {} }}\nservices:\n  main:\n    urls: [\"https://127.0.0.1:{}\"]\n    tls: {{ server_name: backend.example }}\n    health_check: {{ {path}every: 50ms, unhealthy_after: 1 }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
            certs.path("ca.pem"),
            backend.port
        ));
        let before = backend.connections.load(SeqCst);
        crate::harness::eventually("it has been checked", || backend.connections.load(SeqCst) > before + 4);
        assert!(!gw.errors().contains("is unhealthy"), "{}", gw.errors());
        gw.get("/").expect(200).says("h1");
    }
}

#[test]
fn a_backend_that_speaks_http2_alone_is_not_blamed_for_upgrades() {
    let certs = Certs::new();
    certs.issue("backend", "backend", &["backend.example"]);
    let backend = Backend::start(&certs, Wants::H2Only);
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"https://127.0.0.1:{}\"]\n    retry: {{ max_attempts: 1 }}\n    circuit_breaker: {{ failure_threshold: 2, reset_timeout: 60s }}\n    tls: {{ ca: {}, server_name: backend.example }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        backend.port,
        certs.path("ca.pem")
    ));
    for _ in 0..4 {
        let said = gw.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("h2"), "{said}");
    }
    gw.get("/").expect(200).says("h2");
    // One that cannot be reached at all is.
    let elsewhere = gateway(&format!("https://127.0.0.1:{}", crate::harness::free_port()), "verify: false");
    let said = elsewhere.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
}

#[test]
fn a_backend_whose_handshake_fails_is_blamed_for_upgrades_too() {
    let certs = Certs::new();
    certs.issue("backend", "backend", &["backend.example"]);
    let backend = Backend::start(&certs, Wants::H1);
    // Its authority is not trusted.
    let gw = Gateway::start(&format!(
        "services:\n  main:\n    urls: [\"https://127.0.0.1:{}\"]\n    retry: {{ max_attempts: 1 }}\n    circuit_breaker: {{ failure_threshold: 2, reset_timeout: 60s }}\nroutes:\n  - {{ match: {{ path: /* }}, service: main }}\n",
        backend.port
    ));
    for _ in 0..2 {
        let said = gw.raw(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
    }
    assert_eq!(gw.metric("gateway_circuit_breaker_state{backend=\"\",service=\"main\"}"), Some(1.0));
}
