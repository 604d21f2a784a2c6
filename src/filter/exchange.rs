//! What a filter sees of a request, and the little that filters leave for one another.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::Uri;
use pingora::http::RequestHeader;

use crate::{
    auth::{Certificate, Identities},
    clock::Now,
    limit::Verdict,
    message::{coding_terms::CodingTerms, fields::single, request_id::RequestId},
};

/// One request on its way through the chain.
pub struct Exchange<'a> {
    /// The head, with its path already normalised.
    pub request: &'a RequestHeader,
    /// What is known of the request beyond its head.
    pub state: &'a mut State,
    /// The time: that of the request, or when a filter before this one had waited for something.
    pub now: Now,
}

impl<'a> Exchange<'a> {
    /// An exchange without a connection, as unit tests and the configuration's own `tests:` make it.
    pub fn new(request: &'a RequestHeader, state: &'a mut State, now: Now) -> Self {
        Self { request, state, now }
    }

    /// The target as the client wrote it; the request's own has its path normalised.
    pub fn target(&self) -> &Uri {
        self.state.original.as_ref().unwrap_or(&self.request.uri)
    }

    /// A header's value when there is exactly one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        single(&self.request.headers, name)?.to_str().ok()
    }
}

/// A rate limit that was applied, for the headers of the answer and for the log.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The limit's name in `RateLimit` headers.
    pub policy: Arc<str>,
    /// What it decided.
    pub verdict: Verdict,
}

/// What is known of a request beyond its head. Narrow on purpose; a filter's own data goes into `extensions`.
#[derive(Debug)]
pub struct State {
    /// The client, as trusted proxies tell it.
    pub client: IpAddr,
    /// The request came over TLS, or a trusted proxy says that it did.
    pub secure: bool,
    /// The listener that accepted the connection, by its place in the file.
    pub listener: usize,
    /// The client's certificate, when it showed one and it was verified.
    pub certificate: Option<Arc<Certificate>>,
    /// The target as the client wrote it, when the head's has been normalised: what a signature covers.
    pub original: Option<Uri>,
    /// The request's name.
    pub id: RequestId,
    /// Who sent it, once filters have found out: one for each kind of credential.
    pub identities: Identities,
    /// Limits that were applied, in order.
    pub limits: Vec<Applied>,
    /// Compress the answer like this.
    pub compress: Option<Arc<CodingTerms>>,
    /// The request has a body, as far as its framing says: over HTTP/2 no field need tell.
    pub has_body: bool,
    /// Bytes of the request's body seen so far in this attempt; for another attempt the body comes once more.
    pub body_seen: u64,
    /// Typed data of filters.
    pub extensions: http::Extensions,
    /// Things that must live as long as the request does.
    held: Vec<Box<dyn Any + Send + Sync>>,
    /// How many steps of the chain have begun.
    pub(crate) entered: usize,
}

impl State {
    /// The state of a request from `client`.
    pub fn new(client: IpAddr) -> Self {
        Self {
            client,
            secure: false,
            listener: 0,
            certificate: None,
            original: None,
            id: RequestId::fresh(),
            identities: Identities::default(),
            limits: Vec::new(),
            compress: None,
            has_body: false,
            body_seen: 0,
            extensions: http::Extensions::new(),
            held: Vec::new(),
            entered: 0,
        }
    }

    /// Keeps `guard` until the request has ended, however it ends.
    pub fn hold(&mut self, guard: Box<dyn Any + Send + Sync>) {
        self.held.push(guard);
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}
