//! What a filter sees of a request, and the little that filters leave for one another.

use std::{
    any::Any,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;

use crate::{
    auth::{Certificate, Identities},
    limit::Verdict,
};

/// The clock, read once per request and handed down: no filter reads it again.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time since the process began.
    pub since_start: Duration,
    /// Seconds since 1970.
    pub unix: u64,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self::read_at(Instant::now())
    }

    /// Reads the calendar's clock; the other one has just said `instant`.
    pub fn read_at(instant: Instant) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Self { since_start: Self::monotonic_at(instant), unix }
    }

    /// Reads the one that never goes back.
    pub fn monotonic() -> Duration {
        Self::monotonic_at(Instant::now())
    }

    /// What it said at `instant`.
    pub fn monotonic_at(instant: Instant) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        instant.saturating_duration_since(*START)
    }
}

/// One request on its way through the chain.
pub struct Exchange<'a> {
    /// The head, with its path already normalised.
    pub request: &'a RequestHeader,
    /// What is known of the request beyond its head.
    pub state: &'a mut State,
    /// The time of the request.
    pub now: Now,
}

impl<'a> Exchange<'a> {
    /// An exchange without a connection, as unit tests and the configuration's own `tests:` make it.
    pub fn new(request: &'a RequestHeader, state: &'a mut State, now: Now) -> Self {
        Self { request, state, now }
    }

    /// A header's value when there is exactly one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        single(&self.request.headers, name)?.to_str().ok()
    }
}

/// The value of `name` when it stands exactly once: two credentials are as good as none.
pub(crate) fn single(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

/// The name of a request in logs, problems and headers.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// Made here; written out only when somebody asks.
    Own(u128),
    /// The client's, checked by the `request_id` filter.
    Given(Arc<str>),
}

impl RequestId {
    /// A new one. Random, not secret: it names, it does not protect.
    pub fn fresh() -> Self {
        Self::Own(fastrand::u128(..))
    }

    /// Writes it to memory.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Own(number) => out.extend_from_slice(&hexadecimal(*number)),
            Self::Given(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(number) => f.write_str(std::str::from_utf8(&hexadecimal(*number)).unwrap_or_default()),
            Self::Given(text) => f.write_str(text),
        }
    }
}

/// All 32 digits, several times faster than the general formatting: every line of the access log has one.
fn hexadecimal(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
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
    /// The request's name.
    pub id: RequestId,
    /// Who sent it, once filters have found out: one for each kind of credential.
    pub identities: Identities,
    /// Limits that were applied, in order.
    pub limits: Vec<Applied>,
    /// Compress the answer at this level.
    pub compress: Option<u32>,
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
            id: RequestId::fresh(),
            identities: Identities::default(),
            limits: Vec::new(),
            compress: None,
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
