//! A backend that speaks HTTP/2 without TLS, and answers as a test says, frame by frame.

use std::{net::SocketAddr, sync::Arc};

use axum::http::Request;
use bytes::Bytes;
use h2::server::SendResponse;
use parking_lot::Mutex;

/// What is answered to a request.
type Script = dyn Fn(&Request<()>, SendResponse<Bytes>) + Send + Sync;

/// A backend on a port of its own.
pub(crate) struct H2Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request<()>>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl H2Origin {
    /// A backend that reads each request to its end and then leaves the answer to `script`.
    pub(crate) fn start(script: impl Fn(&Request<()>, SendResponse<Bytes>) + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, script): (Arc<Mutex<_>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let noted = seen.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), noted.clone()));
            }
        });
        Self { address, seen, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// The heads of the requests that have come.
    pub(crate) fn seen(&self) -> Vec<Request<()>> {
        self.seen.lock().clone()
    }
}

async fn serve(stream: tokio::net::TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<Request<()>>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (script, seen) = (script.clone(), seen.clone());
        tokio::spawn(async move {
            let (parts, mut body) = request.into_parts();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let head = Request::from_parts(parts, ());
            seen.lock().push(head.clone());
            script(&head, respond);
        });
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
