//! A backend that records what it sees and misbehaves when told to.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;

/// One request as the backend saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Clone, Default)]
struct Script {
    name: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    failing: Arc<AtomicBool>,
}

/// A backend on a port of its own. Answers its name; `/status/NNN` with that status, `/slow/MS` after that time,
/// `/big` with 10 KB of text, `/odd` with hop-by-hop fields, `/health` as told.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    script: Script,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Origin {
    pub(crate) fn start(name: &'static str) -> Self {
        // Another program may take a port between the look at it and this.
        let listener = std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", super::free_port())));
        Self::serve(name, listener.take(10).find_map(Result::ok).unwrap())
    }

    pub(crate) fn start_on(name: &'static str, port: u16) -> Self {
        Self::serve(name, TcpListener::bind(("127.0.0.1", port)).unwrap())
    }

    fn serve(name: &'static str, listener: TcpListener) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = runtime.block_on(async { tokio::net::TcpListener::from_std(listener) }).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { name, ..Script::default() };
        let app = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(script.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, script, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.script.seen.lock().last().cloned().expect("the backend has seen nothing")
    }

    /// Makes `/health` answer 500, or 200 again.
    pub(crate) fn fail_health(&self, failing: bool) {
        self.script.failing.store(failing, Ordering::Relaxed);
    }

    /// Closes the listener and every connection, as a process that dies does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn answer(State(script): State<Script>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if path == "/health" {
        let status =
            if script.failing.load(Ordering::Relaxed) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        return status.into_response();
    }
    script.seen.lock().push(Seen { method, uri, headers, body });
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    if let Some(status) = number("/status/") {
        return StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap().into_response();
    }
    if let Some(wait) = number("/slow/") {
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    let mut response = match path.as_str() {
        "/big" => "tollgate ".repeat(1200).into_response(),
        _ => script.name.into_response(),
    };
    if path == "/odd" {
        let mut add = |name: &'static str, value: &'static str| {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        };
        add("x-private", "for the proxy alone");
        add("connection", "x-private");
        add("keep-alive", "timeout=5");
    }
    response
}
