//! The admin pages as an application of a Pingora listener: a request is read whole, with its body, and handed to axum.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header, uri::Authority};
use pingora::{apps::http_app::ServeHttp, http::RequestHeader, protocols::http::ServerSession};
use tower::ServiceExt as _;

use super::{answer::Answer, router::router};
use crate::{
    downstream::{ConnectionInfo, validate::check_head},
    message::{replies, reply::Reply},
    runtime::Live,
};

/// The largest answer that is passed on.
const LARGEST_ANSWER: usize = 64 << 20;

/// The largest body of a request: what people send here are settings.
const LARGEST_BODY: usize = 1 << 20;

/// Serves the admin pages.
pub struct AdminApp {
    router: Router,
    /// On loopback: only names of this machine are answered to. A page from elsewhere whose name is made to lead here
    /// (DNS rebinding) would otherwise read everything through its visitor's browser.
    guarded: bool,
    live: Arc<Live>,
}

impl AdminApp {
    /// The pages about what `live` holds, for a listener on `address`.
    pub fn new(live: &Arc<Live>, address: &str) -> Self {
        let guarded = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        Self { router: router(live), guarded, live: live.clone() }
    }

    /// Why a request is not looked at.
    fn refuses(&self, head: &RequestHeader) -> Option<Reply> {
        if let Err(reply) = check_head(head, &self.live.load().limits) {
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

/// Reads the request's body, if there is one, within a size and a time limit.
///
/// # Errors
/// It is too large, too late, or broken off.
async fn read_body(session: &mut ServerSession, live: &Live) -> Result<Bytes, Reply> {
    let limits = live.load().limits;
    session.set_read_timeout(Some(limits.stall.0));
    if session.req_header().headers.contains_key(header::EXPECT) && !session.is_body_empty() {
        // Whether it is wanted is known only when its path is looked at, and then it is too late to ask for it.
        session.write_continue_response().await.map_err(|_| replies::too_slow())?;
    }
    let mut body = BytesMut::new();
    let read = async {
        while let Some(part) = session.read_request_body().await.map_err(|_| replies::too_slow())? {
            if body.len() + part.len() > LARGEST_BODY {
                let detail = format!("a body may have {LARGEST_BODY} bytes here");
                return Err(Reply::problem(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            body.extend_from_slice(&part);
        }
        Ok(())
    };
    // Settings that take longer to arrive than a head may are not on their way.
    tokio::time::timeout(limits.stall.0, read).await.unwrap_or_else(|_| Err(replies::too_slow()))?;
    Ok(body.freeze())
}

/// The answer to a request that has been read.
async fn dispatch(router: &Router, head: &RequestHeader, body: Bytes) -> Response {
    let mut request = Request::new(Body::from(body));
    // HEAD is GET without the body, not without its length.
    *request.method_mut() = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
    request.uri_mut().clone_from(&head.uri);
    request.headers_mut().clone_from(&head.headers);
    let Ok(answer) = router.clone().oneshot(request).await;
    answer
}

fn plain(status: StatusCode) -> http::Response<Vec<u8>> {
    let mut response = http::Response::new(Vec::new());
    *response.status_mut() = status;
    response
}

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> http::Response<Vec<u8>> {
        let mut refused = self.refuses(session.req_header());
        let mut body = Bytes::new();
        if refused.is_none() {
            match read_body(session, &self.live).await {
                Ok(read) => body = read,
                Err(reply) => refused = Some(reply),
            }
        }
        let head = session.req_header();
        let headless = head.method == Method::HEAD;
        let answer = match refused {
            Some(reply) => {
                // What follows is not known to be a request.
                session.set_keepalive(None);
                if let Some(info) = ConnectionInfo::of(session) {
                    info.close_after_this();
                }
                Answer(reply).into_response()
            }
            None => dispatch(&self.router, head, body).await,
        };
        let (parts, body) = answer.into_parts();
        let Ok(bytes) = to_bytes(body, LARGEST_ANSWER).await else { return plain(StatusCode::INTERNAL_SERVER_ERROR) };
        let length = bytes.len();
        let mut response = http::Response::from_parts(parts, if headless { Vec::new() } else { bytes.to_vec() });
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use axum::{extract::State, http::HeaderMap, routing::put};

    use super::*;

    #[tokio::test]
    async fn handlers_get_state_headers_and_body() {
        async fn echo(State(state): State<u32>, headers: HeaderMap, body: String) -> String {
            format!("{state} {} {body}", headers["x-who"].to_str().unwrap())
        }
        let router = Router::new().route("/echo", put(echo)).with_state(7);
        let mut head = RequestHeader::build("PUT", b"/echo", None).unwrap();
        head.insert_header("X-Who", "me").unwrap();
        let answer = dispatch(&router, &head, Bytes::from_static(b"text")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "7 me text");
    }
}
