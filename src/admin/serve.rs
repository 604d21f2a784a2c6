//! The admin pages as an application of a Pingora listener.

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use pingora::{apps::http_app::ServeHttp, protocols::http::ServerSession};
use tower::ServiceExt as _;

use super::Pages;
use crate::filter::{Reply, ReplyBody};

/// The largest answer that is passed on.
const LARGEST: usize = 64 << 20;

/// Serves the admin pages.
pub struct AdminApp(Router);

impl AdminApp {
    /// Routes over `pages`.
    pub fn new(pages: Pages) -> Self {
        let page = |answer: fn(&Pages) -> Reply| {
            let pages = pages.clone();
            get(move || {
                let reply = answer(&pages);
                async move { Answer(reply) }
            })
        };
        let router = Router::new()
            .route("/health", page(Pages::ready))
            .route("/health/live", page(Pages::live))
            .route("/health/ready", page(Pages::ready))
            .route("/gateway/health", page(Pages::ready))
            .route("/gateway/stats", page(Pages::stats))
            .route("/gateway/metrics", page(Pages::metrics))
            .route("/metrics", page(Pages::metrics))
            .fallback(|| async { Answer(Reply::problem(StatusCode::NOT_FOUND, "there is no such admin page")) });
        Self(router)
    }
}

struct Answer(Reply);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (media, body) = match self.0.body {
            ReplyBody::Empty => (None, Bytes::new()),
            ReplyBody::Bytes(media, bytes) => (Some(media), bytes),
            ReplyBody::Problem { detail, .. } => {
                let status = self.0.status;
                let title = status.canonical_reason().unwrap_or("Error");
                let value = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
                (Some(HeaderValue::from_static("application/problem+json")), value.to_string().into())
            }
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        response.headers_mut().extend(media.map(|media| (header::CONTENT_TYPE, media)));
        response
    }
}

fn plain(status: StatusCode) -> http::Response<Vec<u8>> {
    let mut response = http::Response::new(Vec::new());
    *response.status_mut() = status;
    response
}

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        let head = session.req_header();
        let mut request = Request::new(Body::empty());
        request.method_mut().clone_from(&head.method);
        request.uri_mut().clone_from(&head.uri);
        let get = head.method == Method::GET;
        let Ok(answer) = self.0.clone().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        let Ok(bytes) = to_bytes(body, LARGEST).await else { return plain(StatusCode::INTERNAL_SERVER_ERROR) };
        let length = bytes.len();
        let mut response = http::Response::from_parts(parts, if get { bytes.to_vec() } else { Vec::new() });
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}
