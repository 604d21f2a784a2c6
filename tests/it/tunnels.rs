//! A tunnel must stay open however fast the backend agrees to it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use crate::harness::{Certs, Gateway, eventually, free_port};

const ASKING: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// When a backend agrees to another protocol.
#[derive(Clone, Copy, PartialEq)]
enum Agrees {
    /// When it has read the request.
    AtOnce,
    /// Before it has read anything: its answer is there before the gateway can look for it.
    Ahead,
    /// Never: it answers the request, and keeps the connection.
    Never,
}

struct Backend {
    url: String,
    connections: Arc<AtomicUsize>,
    /// Connections whose other end has closed.
    closed: Arc<AtomicUsize>,
    /// Where the last one came from.
    from: Arc<Mutex<Option<IpAddr>>>,
    _executor: tokio::runtime::Runtime,
}

impl Backend {
    fn start(agrees: Agrees, certs: Option<&Certs>) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = executor.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let from = Arc::new(Mutex::new(None));
        let (opening, closing, coming) = (connections.clone(), closed.clone(), from.clone());
        let acceptor = certs.map(acceptor);
        executor.spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                opening.fetch_add(1, SeqCst);
                *coming.lock().unwrap() = Some(peer.ip());
                let (acceptor, closing) = (acceptor.clone(), closing.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    let _ = match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => converse(stream, agrees).await,
                            Err(e) => Err(e),
                        },
                        None => converse(stream, agrees).await,
                    };
                    closing.fetch_add(1, SeqCst);
                });
            }
        });
        let scheme = if certs.is_some() { "https" } else { "http" };
        Self { url: format!("{scheme}://127.0.0.1:{port}"), connections, closed, from, _executor: executor }
    }

    fn gateway(&self, certs: Option<&Certs>) -> Gateway {
        let tls = |certs: &Certs| {
            format!("tls: {{ ca: {}, server_name: localhost, {} }}", certs.path("ca.pem"), certs.yaml("gateway"))
        };
        gateway(&self.url, &certs.map(tls).unwrap_or_default(), "")
    }
}

fn gateway(url: &str, service: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "{more}services:\n  main: {{ urls: [\"{url}\"], timeouts: {{ read: 3s, connect: 500ms }}, {service} }}\nroutes:\n  - match: {{ path: /* }}\n    service: main\n"
    ))
}

/// Wants to see a certificate of the client.
fn acceptor(certs: &Certs) -> TlsAcceptor {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.path("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(verifier);
    let chain = vec![CertificateDer::from_pem_file(certs.path("backend.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certs.path("backend.key")).unwrap();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

/// One connection: requests, and what is said back once both have agreed.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, agrees: Agrees) -> io::Result<()> {
    if agrees == Agrees::Ahead {
        say(&mut stream, AGREED).await?;
    }
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        if agrees != Agrees::Never {
            break;
        }
        say(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await?;
    }
    if agrees == Agrees::AtOnce {
        say(&mut stream, AGREED).await?;
    }
    let mut message = [0; 4];
    loop {
        stream.read_exact(&mut message).await?;
        say(&mut stream, &message).await?;
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, what: &[u8]) -> io::Result<()> {
    stream.write_all(what).await?;
    stream.flush().await
}

/// Sends a request; the head of the answer.
fn send(stream: &mut TcpStream, request: &[u8]) -> io::Result<String> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request)?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// One tunnel with two messages each way.
fn tunnel(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let head = send(&mut stream, ASKING)?;
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(io::Error::other(head));
    }
    for message in [b"ping", b"pong"] {
        stream.write_all(message)?;
        let mut echo = [0; 4];
        stream.read_exact(&mut echo)?;
        assert_eq!(&echo, message);
    }
    Ok(())
}

/// Opens tunnels from four threads while all processors are busy; how many were cut, and how the last one was.
fn cut(port: u16, each: usize) -> (usize, String) {
    let over = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    std::hint::spin_loop();
                }
            });
        }
        let open = || (0..each).filter_map(|_| tunnel(port).err()).collect::<Vec<_>>();
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        let errors: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        over.store(true, SeqCst);
        (errors.len(), errors.last().map(ToString::to_string).unwrap_or_default())
    })
}

fn no_tunnel_is_cut(agrees: Agrees, certs: Option<&Certs>, each: usize) {
    let backend = Backend::start(agrees, certs);
    let gw = backend.gateway(certs);
    let (cut, how) = cut(gw.port, each);
    assert_eq!(cut, 0, "of {} tunnels: {how}", 4 * each);
}

#[test]
fn a_tunnel_stays_open_when_the_backend_agrees_at_once() {
    no_tunnel_is_cut(Agrees::AtOnce, None, 500);
}

#[test]
fn a_tunnel_stays_open_when_the_answer_is_there_before_the_gateway_looks() {
    no_tunnel_is_cut(Agrees::Ahead, None, 100);
}

#[test]
fn a_tunnel_over_tls_stays_open_and_is_opened_on_the_terms_of_its_service() {
    let certs = Certs::new();
    certs.issue("backend", "localhost", &["localhost"]);
    certs.issue("gateway", "gateway", &[]);
    no_tunnel_is_cut(Agrees::Ahead, Some(&certs), 100);
    // Of this backend's authority nobody knows anything.
    let backend = Backend::start(Agrees::AtOnce, Some(&certs));
    let gw = gateway(&backend.url, "", "");
    let refused = tunnel(gw.port).unwrap_err().to_string();
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    gw.get("/").expect(502);
    let log = gw.log(2);
    assert_eq!(log[0]["error"], log[1]["error"], "{log:?}");
}

#[test]
fn a_refused_upgrade_closes_its_connection_and_ordinary_requests_keep_theirs() {
    let backend = Backend::start(Agrees::Never, None);
    let gw = backend.gateway(None);
    let (opened, closed) = (|| backend.connections.load(SeqCst), || backend.closed.load(SeqCst));
    let client = || TcpStream::connect(("127.0.0.1", gw.port)).unwrap();
    let mut ordinary = client();
    let mut get = || {
        let head = send(&mut ordinary, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        ordinary.read_exact(&mut [0; 2]).unwrap();
    };
    get();
    for round in 1..=3 {
        assert!(send(&mut client(), ASKING).unwrap().starts_with("HTTP/1.1 200 "));
        get();
        assert_eq!(opened(), 1 + round, "one for ordinary requests, and one for each upgrade");
        eventually("what nobody can use is closed", || closed() == round);
    }
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| send(&mut client(), ASKING).unwrap());
        }
    });
    eventually("nor is any of many kept", || closed() == 43);
    get();
    assert_eq!(opened(), 44);
}

#[test]
fn an_upgrade_comes_from_the_same_address_as_other_requests() {
    let backend = Backend::start(Agrees::AtOnce, None);
    let bind = "pingora: { threads: 1, pid_file: \"{dir}/pid\", upgrade_sock: \"{dir}/sock\", client_bind_to_ipv4: [ 127.0.0.7 ] }\n";
    let gw = gateway(&backend.url, "", bind);
    tunnel(gw.port).unwrap();
    assert_eq!(*backend.from.lock().unwrap(), Some([127, 0, 0, 7].into()));
}

#[test]
fn connecting_for_an_upgrade_takes_no_longer_than_it_may() {
    // The system accepts for it; nobody shakes hands.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gw = gateway(&format!("https://{}", silent.local_addr().unwrap()), "tls: { verify: false }", "");
    let begun = Instant::now();
    let refused = tunnel(gw.port).unwrap_err().to_string();
    assert!(refused.starts_with("HTTP/1.1 504 "), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(gw.log(1)[0]["error"], "ConnectTimedout");
    let nowhere = gateway(&format!("http://127.0.0.1:{}", free_port()), "", "");
    assert!(tunnel(nowhere.port).unwrap_err().to_string().starts_with("HTTP/1.1 502 "));
    assert_eq!(nowhere.log(1)[0]["error"], "ConnectRefused");
}
