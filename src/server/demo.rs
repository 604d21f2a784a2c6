//! `tollgate demo`: three small backends and the gateway in front of them, in one process, with nothing installed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use http::{Response, StatusCode, header};
use pingora::{
    apps::http_app::{HttpServer, ServeHttp},
    protocols::http::ServerSession,
    server::Server,
    services::listening::Service,
};

use super::{exit, serve};
use crate::{config, filter::Registry, runtime::Shared, server::failure::fail};

const YAML: &str = include_str!("../../conf/demo.yaml");

const BANNER: &str = "\
Tollgate demo: gateway on http://127.0.0.1:8080, admin on http://127.0.0.1:9090. Stop it with Ctrl-C.

Try, in another terminal:
  curl -i http://127.0.0.1:8080/users                                   # routing; again: the next backend answers
  curl -i http://127.0.0.1:8080/reports                                 # 401: this route wants an API key
  curl -i -H 'X-API-KEY: demo-key' http://127.0.0.1:8080/reports        # 200: with the key (a slow backend)
  for i in $(seq 25); do curl -s -o /dev/null -w '%{http_code} ' http://127.0.0.1:8080/limited; done; echo   # 20 x 200, then 429
  curl -s http://127.0.0.1:9090/metrics | grep gateway_requests_total   # what happened

And: curl -X POST http://127.0.0.1:8080/users/fail makes one backend fail its health checks; /users goes on.
";

/// One backend of the demo.
struct Backend {
    name: &'static str,
    delay: Duration,
    failing: AtomicBool,
}

#[async_trait]
impl ServeHttp for Backend {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let path = session.req_header().uri.path().to_owned();
        match path.as_str() {
            "/users/fail" => self.failing.store(true, Ordering::Relaxed),
            "/users/recover" => self.failing.store(false, Ordering::Relaxed),
            _ => tokio::time::sleep(self.delay).await,
        }
        let failing = self.failing.load(Ordering::Relaxed);
        let state = if failing { "failing" } else { "fine" };
        let body =
            format!("{{\"backend\":\"{}\",\"path\":\"{path}\",\"state\":\"{state}\"}}\n", self.name).into_bytes();
        let mut response = Response::new(body);
        if failing && !path.starts_with("/users/") {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
        response
    }
}

fn backends(server: &mut Server) {
    for (name, address, delay) in
        [("one", "127.0.0.1:8081", 0), ("two", "127.0.0.1:8082", 0), ("slow", "127.0.0.1:8083", 400)]
    {
        let backend = Backend { name, delay: Duration::from_millis(delay), failing: AtomicBool::new(false) };
        let mut service = Service::new(format!("demo backend {name}"), HttpServer::new_app(backend));
        service.add_tcp(address);
        service.threads = Some(1);
        server.add_service(service);
    }
}

/// Runs the demo.
pub(super) fn run(registry: &Registry) -> ExitCode {
    let shared = Shared::new();
    let loaded = match config::load("demo", YAML, registry, &shared) {
        Ok(loaded) => loaded,
        Err(rejected) => return fail(exit::CONFIG, &rejected.to_string()),
    };
    loaded.plan.log.install();
    for address in ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"] {
        if let Err(e) = std::net::TcpListener::bind(address) {
            return fail(exit::FAILURE, &format!("the demo needs {address}: {e}"));
        }
    }
    let _ = io::stderr().lock().write_all(BANNER.as_bytes());
    serve::serve(loaded, shared, false, false, backends)
}
