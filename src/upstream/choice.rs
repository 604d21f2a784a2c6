//! What a backend is chosen by, and what comes of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use pingora::http::RequestHeader;

use super::{
    backend::{Backend, BackendPermit},
    concurrency::Busy,
};
use crate::message::{reason::Reason, reply::Reply};

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

const UNAVAILABLE: &str = "the service is not available at the moment: try again after Retry-After";

const BUSY: &str = "the service is busy: try again after Retry-After";

/// Why there is no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectError {
    /// No backend is healthy.
    NoneHealthy,
    /// No backend is known: no name is resolved, or the file is empty.
    NoneKnown,
    /// Those that are well have as much under way as they may have.
    Overloaded(Busy),
    /// A circuit breaker is open.
    CircuitOpen {
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

impl SelectError {
    /// What the client is told of it: 503, and when to come back; the reason is the operator's.
    pub(crate) fn reply(self) -> Reply {
        let (detail, reason) = match self {
            Self::NoneHealthy => (UNAVAILABLE, Reason::NoHealthyBackend),
            Self::NoneKnown => (UNAVAILABLE, Reason::NoBackendKnown),
            Self::Overloaded(Busy::QueueFull) => (BUSY, Reason::ServiceQueueFull),
            Self::Overloaded(Busy::WaitOver) => (BUSY, Reason::ServiceQueueTimeout),
            Self::CircuitOpen { .. } => (UNAVAILABLE, Reason::BreakerOpen),
        };
        let wait = if let Self::CircuitOpen { retry_after } = self { retry_after } else { Duration::from_secs(1) };
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(wait).because(reason)
    }

    /// The same for a route that has as much under way as it may have.
    pub(crate) fn of_route(busy: Busy) -> Reply {
        let reason = match busy {
            Busy::QueueFull => Reason::RouteQueueFull,
            Busy::WaitOver => Reason::RouteQueueTimeout,
        };
        Self::Overloaded(busy).reply().because(reason)
    }
}

/// Tickets of an attempt that probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeTickets {
    pub(crate) service: Option<u64>,
    pub(crate) backend: Option<u64>,
}
