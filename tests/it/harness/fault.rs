//! A TCP proxy before a backend that does harm on purpose, and counts what passes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
};

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is refused.
    Refuse,
    /// It is reset as soon as the request has been read.
    Reset,
    /// The request is read and nothing happens any more.
    Stall,
    /// Everything comes 50 ms later.
    Delay,
    /// The answer is cut in the middle of its body.
    Cut,
    /// A status in the place of an answer.
    Status503,
}

const FAULTS: [Fault; 7] =
    [Fault::None, Fault::Refuse, Fault::Reset, Fault::Stall, Fault::Delay, Fault::Cut, Fault::Status503];

/// A proxy on a port of its own.
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    fault: Arc<AtomicU8>,
    requests: Arc<AtomicUsize>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FaultProxy {
    /// A proxy before `backend`.
    pub(crate) fn start(backend: SocketAddr, fault: Fault) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", super::free_port()))).unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, requests) = (Arc::new(AtomicU8::new(fault as u8)), Arc::new(AtomicUsize::new(0)));
        let shared = (fault.clone(), requests.clone());
        runtime.spawn(async move {
            let mut listener = Some(listener);
            loop {
                let refuse = shared.0.load(SeqCst) == Fault::Refuse as u8;
                match (&listener, refuse) {
                    // A port that refuses is one that nobody listens on.
                    (Some(_), true) => listener = None,
                    (None, false) => listener = TcpListener::bind(address).await.ok(),
                    (None, true) => tokio::time::sleep(Duration::from_millis(5)).await,
                    (Some(open), false) => {
                        let accepted = tokio::time::timeout(Duration::from_millis(5), open.accept()).await;
                        if let Ok(Ok((stream, _))) = accepted {
                            tokio::spawn(serve(stream, backend, shared.clone()));
                        }
                    }
                }
            }
        });
        let proxy = Self { address, fault, requests, runtime: Some(runtime) };
        // A listener that must go is gone before the first request comes.
        super::eventually("the fault is there", || {
            std::net::TcpStream::connect(address).is_err() == (proxy.fault() == Fault::Refuse)
        });
        proxy
    }

    fn fault(&self) -> Fault {
        FAULTS[usize::from(self.fault.load(SeqCst))]
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have come here, answered or not.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One connection; a fault that comes up ends it, as a crash would.
async fn serve(client: TcpStream, backend: SocketAddr, (fault, requests): (Arc<AtomicU8>, Arc<AtomicUsize>)) {
    let now = || FAULTS[usize::from(fault.load(SeqCst))];
    let Ok(server) = TcpStream::connect(backend).await else { return };
    let ((mut from, mut to), (mut up, mut down)) = (client.into_split(), (vec![0; 64 << 10], vec![0; 64 << 10]));
    let (mut answers, mut backend) = server.into_split();
    let reset = |to: OwnedWriteHalf| drop(to.as_ref().set_zero_linger());
    loop {
        let read = tokio::select! {
            read = from.read(&mut up) => read.unwrap_or(0),
            read = answers.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if to.write_all(&down[..length]).await.is_err() {
                    return;
                }
                continue;
            }
            () = until(&fault, Fault::Refuse) => return reset(to),
        };
        if read == 0 {
            return;
        }
        if [&b"GET "[..], b"POST", b"PUT ", b"DELE", b"HEAD"].iter().any(|verb| up.starts_with(verb)) {
            requests.fetch_add(1, SeqCst);
        }
        match now() {
            Fault::Reset | Fault::Refuse => return reset(to),
            Fault::Stall => {
                while now() == Fault::Stall {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                return;
            }
            Fault::Status503 => {
                let _ = to.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nsorry").await;
                continue;
            }
            Fault::Cut => {
                let _ = to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                return reset(to);
            }
            Fault::Delay => tokio::time::sleep(Duration::from_millis(50)).await,
            Fault::None => {}
        }
        if backend.write_all(&up[..read]).await.is_err() {
            return;
        }
    }
}

async fn until(fault: &AtomicU8, wanted: Fault) {
    while fault.load(SeqCst) != wanted as u8 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
