//! Requests that the gateway sends by itself, beside Pingora's proxying: hedges and copies. They have a connection pool
//! of their own, because Pingora's is its own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, Uri, Version, header};
use pingora::{
    Error, ErrorType, OrErr as _,
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    prelude::HttpPeer,
    protocols::http::client::HttpSession,
};

use super::response;

/// An answer whose head has come.
pub(crate) struct Answer {
    /// The connection, at the beginning of the body.
    pub(crate) session: HttpSession,
    /// The head of the backend's answer.
    pub(crate) head: ResponseHeader,
    /// The connection had been kept from an earlier request.
    pub(crate) reused: bool,
    /// How long it took to come by it.
    pub(crate) connect: Duration,
    peer: Box<HttpPeer>,
}

/// Why a request that the gateway sent by itself got no answer.
pub(crate) struct Failure {
    /// What went wrong, at which side; [`ErrorType::ConnectError`] and its like when nothing was sent.
    pub(crate) error: Box<Error>,
    /// The connection had been kept from an earlier request.
    pub(crate) reused: bool,
    /// How long it took to come by it; nothing when there was none.
    pub(crate) connect: Option<Duration>,
}

/// Sends a request and waits for the head of its answer.
///
/// # Errors
/// What went wrong, at which side; [`ErrorType::ConnectError`] and its like when nothing was sent.
pub(crate) async fn send(
    connector: &Connector,
    peer: Box<HttpPeer>,
    head: RequestHeader,
    body: Bytes,
) -> pingora::Result<Answer> {
    try_send(connector, peer, head, body).await.map_err(|failure| failure.error)
}

/// The same for whoever must know whether the connection was a fresh one.
///
/// # Errors
/// As for [`send`].
pub(crate) async fn try_send(
    connector: &Connector,
    peer: Box<HttpPeer>,
    head: RequestHeader,
    body: Bytes,
) -> Result<Answer, Failure> {
    let begun = Instant::now();
    let unconnected = |error: Box<Error>| Failure { error: error.into_up(), reused: false, connect: None };
    let (mut session, reused) = connector.get_http_session(&*peer).await.map_err(unconnected)?;
    let connect = begun.elapsed();
    let broken = |error: Box<Error>| Failure { error: error.into_up(), reused, connect: Some(connect) };
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    let h2 = matches!(session, HttpSession::H2(_));
    let head = if h2 { for_h2(head, peer.is_tls()).map_err(broken)? } else { head };
    let exchange = async {
        session.write_request_header(Box::new(head)).await?;
        if !body.is_empty() {
            session.write_request_body(body, true).await?;
        }
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let Some(mut head) = session.response_header().cloned() else {
                return Error::e_explain(ErrorType::InternalError, "an answer without a head");
            };
            // Hints are for whoever waits at the other end of a whole exchange.
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                response::verify(&mut head, false)?;
                return Ok(head);
            }
        }
    };
    let head = exchange.await.map_err(broken)?;
    Ok(Answer { session, head, reused, connect, peer })
}

impl Answer {
    /// Gives the connection back for other requests; the body must have been read to its end.
    pub(crate) async fn release(self, connector: &Connector) {
        let idle = self.peer.options.idle_timeout;
        connector.release_http_session(self.session, &*self.peer, idle).await;
    }
}

/// The same head as HTTP/2 has it: the host in the target, and no `Host` (RFC 9113 §8.3.1).
fn for_h2(mut head: RequestHeader, tls: bool) -> pingora::Result<RequestHeader> {
    let host = head.remove_header(&header::HOST);
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host.as_ref().map_or(&b"localhost"[..], |host| host.as_bytes()))
        .path_and_query(path)
        .build();
    head.set_uri(uri.or_err(ErrorType::InternalError, "target for HTTP/2")?);
    head.set_version(Version::HTTP_2);
    Ok(head)
}
