//! One backend: where it is, how it does, and what is under way there.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use http::HeaderValue;
use pingora::{prelude::HttpPeer, protocols::ALPN};
use tokio::sync::Notify;

use super::{
    checks::Checks,
    trouble::Trouble,
    url::{BackendScheme, BackendUrl},
};
use crate::{
    message::reason::Reason,
    resilience::{Breaker, Ewma, Health, Note},
    units::{CountPermit, Counter},
    upstream::token::Token,
};

/// How long a latency sample counts for `p2c_ewma`.
pub(crate) const LATENCY_MEMORY: Duration = Duration::from_secs(10);

/// One address that answers for a service.
#[derive(Debug)]
pub struct Backend {
    /// `host:port` as in the YAML, for logs and metrics; with the address when a name has several.
    pub name: String,
    /// The address to connect to.
    pub address: SocketAddr,
    /// What the sticky cookie calls it.
    pub(crate) token: Option<Token>,
    /// The URL that it was made from.
    pub(crate) url: BackendUrl,
    /// The URL in the YAML, or in the file, that led to it.
    pub(crate) source: BackendUrl,
    pub(crate) weight: usize,
    /// A prepared peer: cloned per attempt, so that nothing is parsed or resolved then.
    pub(crate) peer: HttpPeer,
    /// What active health checks say.
    pub(crate) checks: Checks,
    /// It has refused to speak HTTP/1.1 over TLS, without which there are no upgrades.
    pub(crate) http2_alone: AtomicBool,
    /// Why it cannot be connected to, if it cannot.
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) in_flight: Arc<AtomicUsize>,
    /// Failures in a row, and the ejections that followed from them.
    pub(crate) conduct: Arc<Health>,
    /// Why and when it was ejected last.
    pub(crate) ejection: Arc<Note>,
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) latency: Arc<Ewma>,
    /// When it last came back, in nanoseconds since the process began; 0: it was there from the beginning.
    pub(crate) returned: AtomicU64,
}

/// Whether a backend may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `up`, `down` by its checks, or `ejected`.
    pub state: &'static str,
    /// Since when, and why; `None` when it has been so from the beginning.
    pub changed: Option<(Duration, String)>,
}

impl Backend {
    /// True when health checks say so, or when there are none.
    pub fn healthy(&self) -> bool {
        self.checks.healthy()
    }

    /// The value of `Host` for a request that has none: the URL that led to this backend.
    pub(crate) fn host(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.source.authority()).ok()
    }

    /// True when it is spoken to over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme == BackendScheme::Https
    }

    /// True while it is passed over for its failures.
    pub fn ejected(&self, now: Duration) -> bool {
        self.conduct.ejected(now)
    }

    /// How it is, and why.
    pub fn standing(&self, now: Duration) -> Standing {
        let checked = self.checks.changed().get();
        if !self.healthy() {
            return Standing { state: "down", changed: checked };
        }
        let ejected = self.ejection.get();
        if self.ejected(now) {
            return Standing { state: "ejected", changed: ejected };
        }
        // A check that found it well ends an ejection too.
        let end = self.conduct.until();
        let back = ejected.filter(|_| !end.is_zero()).map(|_| (end, "its ejection is over".to_owned()));
        Standing { state: "up", changed: checked.max(back) }
    }

    /// Why it could not be connected to when that was tried last, if it could not.
    pub fn connect_failure(&self) -> Option<Reason> {
        self.trouble.reason()
    }

    /// Its own breaker, when each backend has one.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_deref()
    }

    /// Requests under way at this backend.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// True when the protocol may be changed within a connection to it: not where HTTP/2 is spoken from the first byte.
    pub(crate) fn can_switch_protocols(&self) -> bool {
        self.url.scheme != BackendScheme::H2c && !self.http2_alone.load(Relaxed)
    }

    /// It has refused HTTP/1.1.
    pub(crate) fn speaks_http2_alone(&self) {
        self.http2_alone.store(true, Relaxed);
    }

    /// True when it may choose HTTP/2.
    pub(crate) fn agrees_on_http2(&self) -> bool {
        self.peer.options.alpn == ALPN::H2H1
    }

    /// True when a request may go there; `most` are allowed under way (0: any number).
    pub(crate) fn usable(&self, now: Duration, most: u32) -> bool {
        self.healthy()
            && !self.ejected(now)
            && self.has_room(most)
            && self.breaker.as_ref().is_none_or(|breaker| breaker.would_admit(now))
    }

    pub(crate) fn has_room(&self, most: u32) -> bool {
        most == 0 || self.in_flight() < usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Health checks have found it well, or not.
    pub(crate) fn set_healthy(&self, healthy: bool, now: Duration) {
        self.checks.set_healthy(healthy);
        if healthy {
            self.conduct.restore();
            self.has_returned(now);
        }
    }

    /// It is new, or healthy again: `slow_start` begins.
    pub(crate) fn has_returned(&self, now: Duration) {
        self.returned.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1), Relaxed);
    }

    /// When it last came back, by health check or from ejection; `None` when it was never away.
    pub(crate) fn returned(&self) -> Option<Duration> {
        let returned = Duration::from_nanos(self.returned.load(Relaxed));
        Some(returned.max(self.conduct.until())).filter(|at| !at.is_zero())
    }

    /// A peer to connect to; `remaining` caps the waiting when the whole request has a time limit. For an `upgrade`
    /// nothing limits reads but the silence of both sides.
    pub fn peer(&self, remaining: Option<Duration>, upgrade: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(self.peer.clone());
        if upgrade {
            // Only HTTP/1 can be upgraded, and a time limit on reads would stay on for the tunnel.
            peer.options.alpn = ALPN::H1;
            peer.options.read_timeout = None;
            peer.options.write_timeout = None;
        }
        if let Some(limit) = remaining {
            let cap = |timeout: &mut Option<Duration>| *timeout = Some(timeout.map_or(limit, |own| own.min(limit)));
            cap(&mut peer.options.total_connection_timeout);
            cap(&mut peer.options.connection_timeout);
            if !upgrade {
                cap(&mut peer.options.read_timeout);
                cap(&mut peer.options.write_timeout);
            }
        }
        peer
    }
}

/// A request among those under way at a backend.
pub(crate) type BackendPermit = CountPermit<UnderWay>;

/// What is under way at a backend, for one request.
#[derive(Debug)]
pub(crate) struct UnderWay {
    count: Arc<AtomicUsize>,
    /// Whom to tell that there is room, when somebody may wait for it.
    freed: Option<Arc<Notify>>,
}

impl UnderWay {
    /// A permit at `backend`.
    pub(crate) fn at(backend: &Backend, freed: Option<Arc<Notify>>) -> BackendPermit {
        CountPermit::take(Self { count: backend.in_flight.clone(), freed })
    }
}

impl Counter for UnderWay {
    fn count(&self) -> &AtomicUsize {
        &self.count
    }

    fn given_back(&self, _: usize) {
        if let Some(freed) = &self.freed {
            // Whoever waits looks at the count after it has said so, and we the other way round.
            fence(SeqCst);
            freed.notify_one();
        }
    }
}
