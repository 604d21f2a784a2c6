//! The admin pages as an application of a Pingora listener.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header, uri::Authority};
use pingora::{apps::http_app::ServeHttp, http::RequestHeader, protocols::http::ServerSession};
use tower::ServiceExt as _;

use super::Pages;
use crate::{
    downstream::validate::check_head,
    message::reply::{Reply, ReplyBody},
};

/// The largest answer that is passed on.
const LARGEST: usize = 64 << 20;

/// Serves the admin pages.
pub struct AdminApp {
    router: Router,
    /// On loopback: only names of this machine are answered to. A page from elsewhere whose name is made to lead here
    /// (DNS rebinding) would otherwise read everything through its visitor's browser.
    guarded: bool,
    pages: Pages,
}

impl AdminApp {
    /// Routes over `pages`, for a listener on `address`.
    pub fn new(pages: Pages, address: &str) -> Self {
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
            .fallback(|| async { Answer(Reply::problem(StatusCode::NOT_FOUND, "there is no such admin page")) })
            .method_not_allowed_fallback(|| async {
                Answer(Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read"))
            });
        let guarded = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        Self { router, guarded, pages }
    }

    /// Why a request is not looked at.
    fn refuses(&self, head: &RequestHeader) -> Option<Reply> {
        if let Err(reply) = check_head(head, &self.pages.limits()) {
            return Some(reply);
        }
        let foreign = self.guarded && named(head).is_some_and(|host| !is_local(host));
        let detail = "the admin pages answer to localhost and loopback addresses only";
        foreign.then(|| Reply::problem(StatusCode::MISDIRECTED_REQUEST, detail))
    }
}

/// True for `localhost` and addresses of this machine alone, with any port.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_end_matches('.');
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let localhost = name.eq_ignore_ascii_case("localhost");
    localhost || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The host that a request names; HTTP/1.0 need not name one.
fn named(head: &RequestHeader) -> Option<&str> {
    let host = || head.headers.get(header::HOST).map(|value| value.to_str().unwrap_or_default());
    head.uri.authority().map(Authority::as_str).or_else(host)
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
        let refused = self.refuses(head);
        // HEAD is GET without the body, not without its length.
        let headless = head.method == Method::HEAD;
        let mut request = Request::new(Body::empty());
        *request.method_mut() = if headless { Method::GET } else { head.method.clone() };
        request.uri_mut().clone_from(&head.uri);
        let bodiless =
            [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().all(|name| !head.headers.contains_key(name));
        if refused.is_some() || !bodiless {
            // A body is not read: what follows would have to wait for it.
            session.set_keepalive(None);
        }
        let answer = if let Some(reply) = refused {
            Answer(reply).into_response()
        } else {
            let Ok(answer) = self.router.clone().oneshot(request).await;
            answer
        };
        let (parts, body) = answer.into_parts();
        let Ok(bytes) = to_bytes(body, LARGEST).await else { return plain(StatusCode::INTERNAL_SERVER_ERROR) };
        let length = bytes.len();
        let mut response = http::Response::from_parts(parts, if headless { Vec::new() } else { bytes.to_vec() });
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}
