//! What the hooks of one request hand to one another.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntGauge;

use super::{
    client::Origin,
    door::Link,
    route::Route,
    service::{Backend, Place},
};
use crate::{
    filter::{Now, Refusal, State},
    telemetry::MethodClass,
};

/// Who made the status that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Author {
    /// Nobody: the client went away first.
    #[default]
    Nobody,
    /// The backend.
    Upstream,
    /// The gateway itself: no route, no backend, a redirect.
    Gateway,
    /// A step of the chain.
    Filter(&'static str),
}

impl Author {
    /// The step of the chain, when it was one.
    pub fn filter(self) -> Option<&'static str> {
        match self {
            Self::Filter(name) => Some(name),
            Self::Nobody | Self::Upstream | Self::Gateway => None,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Nobody => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::Filter(name) => name,
        }
    }
}

/// Attempts at backends.
#[derive(Debug, Default)]
pub struct Attempts {
    /// How many were begun.
    pub count: u32,
    /// Backends that cannot be reached.
    pub tried: Vec<SocketAddr>,
    /// The backend of the running attempt.
    pub backend: Option<Arc<Backend>>,
    /// The place at it.
    pub place: Option<Place>,
    /// When the running attempt began.
    pub began: Option<Instant>,
    /// How long connecting took.
    pub connect: Option<Duration>,
    /// When the answer's head came.
    pub first_byte: Option<Instant>,
}

/// One request's data.
#[derive(Debug)]
pub struct Context {
    /// When its head had been read.
    pub start: Instant,
    /// The same for filters.
    pub now: Now,
    /// What filters see.
    pub state: State,
    /// The address at the other end of the connection.
    pub peer: IpAddr,
    /// Where it came from.
    pub origin: Origin,
    /// The connection that it came over.
    pub link: Option<Arc<Link>>,
    /// Its route, pinned.
    pub route: Option<Arc<Route>>,
    /// Its method, as a label.
    pub method: MethodClass,
    /// The path that the backend will see, when a rewrite changed it.
    pub upstream_path: Option<String>,
    /// Attempts at backends.
    pub attempts: Attempts,
    /// An answer that a hook decided on and could not send itself.
    pub refusal: Option<Refusal>,
    /// Who made the status.
    pub author: Author,
    /// What went wrong between us and the backend or the client, in one word.
    pub error: Option<String>,
    /// Counted while it lives.
    in_flight: IntGauge,
}

impl Context {
    pub(super) fn new(in_flight: IntGauge) -> Self {
        in_flight.inc();
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            start: Instant::now(),
            now: Now::read(),
            state: State::default(),
            peer: nowhere,
            origin: Origin { client: nowhere, trusted: false, secure: false },
            link: None,
            route: None,
            method: MethodClass::of(""),
            upstream_path: None,
            attempts: Attempts::default(),
            refusal: None,
            author: Author::Nobody,
            error: None,
            in_flight,
        }
    }

    /// What is left of the route's total time; `None` without a limit.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let total = self.route.as_ref()?.service()?.timeouts.total?;
        Some(total.0.saturating_sub(self.start.elapsed()))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
