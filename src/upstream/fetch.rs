//! A small document from somewhere else, for the gateway itself: no redirect is followed, and its size and the time that it
//! takes are bounded. Connections are not kept; it is fetched every few minutes at most.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use pingora::{
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
};

use super::{
    exchange::{self, Answer},
    failure_kind::summary,
    lone_peer::peer,
};
use crate::{cache::directives::ResponseDirectives, filter::HttpPlace};

/// So many addresses of a name are tried.
const MOST_ADDRESSES: usize = 4;

/// What was fetched.
#[derive(Debug)]
pub(crate) struct Document {
    /// The bytes.
    pub(crate) body: Bytes,
    /// `max-age`, when the answer says so; nothing for one that must not be kept.
    pub(crate) max_age: Option<Duration>,
}

/// Fetches the document at `place`, which may have `most` bytes.
///
/// # Errors
/// Why there is none, in words that quote nothing of the answer.
pub(crate) async fn fetch(connector: &Connector, place: &HttpPlace, most: usize) -> Result<Document, String> {
    tokio::time::timeout(place.timeout, attempt(connector, place, most))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", place.timeout)))
}

async fn attempt(connector: &Connector, place: &HttpPlace, most: usize) -> Result<Document, String> {
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let found = found.map_err(|e| format!("'{}' cannot be resolved: {e}", place.host))?;
    let mut last = format!("'{}' has no address", place.host);
    for address in found.take(MOST_ADDRESSES) {
        match exchange::send(connector, peer(address, place, None), head(place)?, Bytes::new()).await {
            Ok(answer) => return read(answer, most).await,
            Err(e) => last = summary(&e),
        }
    }
    Err(last)
}

fn head(place: &HttpPlace) -> Result<RequestHeader, String> {
    let build = || {
        let mut head = RequestHeader::build("GET", place.target.as_bytes(), None)?;
        head.insert_header(header::HOST, place.authority())?;
        head.insert_header(header::ACCEPT, "application/jwk-set+json, application/json")?;
        head.insert_header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))?;
        pingora::Result::Ok(head)
    };
    build().map_err(|e: Box<pingora::Error>| e.to_string())
}

/// How long the answer may be kept: an age of nothing for one that asks not to be kept at all.
fn max_age(head: &ResponseHeader) -> Option<Duration> {
    let said = ResponseDirectives::of_cache_control(&head.headers);
    let seconds = if said.no_store || said.no_cache.is_some() { Some(0) } else { said.max_age };
    seconds.map(Duration::from_secs)
}

async fn read(mut answer: Answer, most: usize) -> Result<Document, String> {
    let status = answer.head.status;
    if status.is_redirection() {
        return Err(format!("the answer is {}, and redirects are not followed", status.as_u16()));
    }
    if status != StatusCode::OK {
        return Err(format!("the answer is {}", status.as_u16()));
    }
    let max_age = max_age(&answer.head);
    let mut body = BytesMut::new();
    while let Some(part) = answer.session.read_response_body().await.map_err(|e| summary(&e))? {
        if body.len() + part.len() > most {
            return Err(format!("the answer has more than {most} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(Document { body: body.freeze(), max_age })
}
