//! What a backend is chosen by, and what comes of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use pingora::http::RequestHeader;

use super::backend::{Backend, BackendPermit};
use crate::message::reply::Reply;

/// What choosing a backend may look at.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The client's address, for `consistent_hash: client_ip`.
    pub client: IpAddr,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The request's path, for `consistent_hash: path`.
    pub path: &'a str,
    /// Backends that this request has tried.
    pub tried: &'a [SocketAddr],
    /// The backend that this request still has a place at, and is about to leave.
    pub leaves: Option<SocketAddr>,
    /// The time of the attempt, since the process began.
    pub now: Duration,
}

impl<'a> Choice<'a> {
    /// What there is to look at of a request.
    pub(crate) fn new(head: &'a RequestHeader, client: IpAddr, tried: &'a [SocketAddr], now: Duration) -> Self {
        Self { client, headers: &head.headers, path: head.uri.path(), tried, leaves: None, now }
    }
}

/// The backend that an attempt goes to, with what it holds there.
#[derive(Debug)]
pub struct Chosen {
    /// The backend that was chosen.
    pub backend: Arc<Backend>,
    /// Its place among the requests under way there, given back on drop.
    pub(crate) place: BackendPermit,
    /// Its tickets, when it probes.
    pub tickets: ProbeTickets,
}

/// Why there is no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectError {
    /// No backend is healthy, or none is known.
    NoneHealthy,
    /// Those that are well have as much under way as they may have.
    Overloaded,
    /// A circuit breaker is open.
    CircuitOpen {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

impl SelectError {
    /// What the client is told of it: 503, and when to come back.
    pub(crate) fn reply(self, service: &str) -> Reply {
        let (detail, wait) = match self {
            Self::NoneHealthy => ("no backend of this service is available".to_owned(), None),
            Self::Overloaded => (format!("the service '{service}' is busy"), None),
            Self::CircuitOpen { retry_after } => {
                (format!("the circuit breaker of the service '{service}' is open"), Some(retry_after))
            }
        };
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(wait.unwrap_or(Duration::from_secs(1)))
    }
}

/// Tickets of an attempt that probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeTickets {
    pub(crate) service: Option<u64>,
    pub(crate) backend: Option<u64>,
}
