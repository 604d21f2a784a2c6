//! What one client may ask of a listener: `limits:` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    units::{Problems, Size, Span},
    yaml::Node,
};

/// `limits:` in the YAML: what one client may ask of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// All header fields together; 431 beyond. Default 32KiB.
    pub header_size: Size,
    /// Number of header fields; 431 beyond. Default 100, at most 250.
    pub headers: usize,
    /// The request target; 414 beyond. Default 8KiB.
    pub uri: Size,
    /// The whole of a head must have come within this time; 408 beyond. Default 10s.
    pub head: Span,
    /// An unused client connection is closed after this. Default 60s.
    pub keepalive: Span,
    /// Requests on one client connection before it is closed. Default 10000; 0 is no limit.
    pub requests_per_connection: u32,
    /// Silence in the middle of a request's body, or of an answer's delivery, before the connection is given up.
    /// Default 30s.
    pub stall: Span,
    /// Client connections in all; further ones are closed at once. Default 0: as many as there are file descriptors.
    pub connections: u32,
    /// Connections of one client address. Default 0: no limit.
    pub connections_per_address: u32,
    /// A request's body must have come within this time, all of it. Default: no limit.
    pub body: Option<Span>,
    /// Bytes per second that a body must bring on average: a request's once it has been on its way for `stall`, an
    /// answer's once the gateway has waited so long for its client to read. gRPC over HTTP/2 and upgraded connections are exempt: they
    /// may be silent. Default 64; 0 is no limit.
    pub body_rate: u32,
    /// Requests under way on one HTTP/2 connection. Default 100.
    pub h2_streams: u32,
    /// HTTP/2 requests that a client may have reset and that are not cleaned up yet, per connection; beyond, the
    /// connection is closed (CVE-2023-44487). Default 50.
    pub h2_resets: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_size: Size(32 << 10),
            headers: 100,
            uri: Size(8 << 10),
            head: Span(Duration::from_secs(10)),
            keepalive: Span(Duration::from_secs(60)),
            requests_per_connection: 10_000,
            stall: Span(Duration::from_secs(30)),
            connections: 0,
            connections_per_address: 0,
            body: None,
            body_rate: 64,
            h2_streams: 100,
            h2_resets: 50,
        }
    }
}

impl ClientLimits {
    /// How long the next read may take, `elapsed` after the head (less what the gateway took), when `seen` bytes have come;
    /// `None`: it is too late.
    pub(crate) fn next_read(&self, elapsed: Duration, seen: u64) -> Option<Duration> {
        let mut time = self.stall.0;
        if let Some(total) = self.body {
            time = time.min(total.0.checked_sub(elapsed).filter(|left| !left.is_zero())?);
        }
        if self.body_rate > 0 {
            // By this time, what has come is too little.
            let earned = Duration::from_millis(seen.saturating_mul(1000) / u64::from(self.body_rate));
            let due = self.stall.0.saturating_add(earned);
            time = time.min(due.checked_sub(elapsed).filter(|left| !left.is_zero())?);
        }
        Some(time)
    }

    /// How long the first read of a body may take.
    pub(crate) fn first_read(&self) -> Duration {
        self.body.map_or(self.stall.0, |body| body.0.min(self.stall.0))
    }

    /// Checks what a type alone cannot show; `node` is the `limits`.
    pub(crate) fn validate(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        // Pingora's own limits (v1/common.rs) are the ceiling: beyond them it answers before we see the request. They hold
        // for 256 fields, of which a few are ours, and for the target and the fields together.
        if !(1..=250).contains(&self.headers) {
            wrong("headers", format!("{} is not a number from 1 to 250", self.headers));
        }
        if !(256..=980_000).contains(&self.header_size.0) {
            wrong("header_size", format!("{} is not a size from 256 to 980000 bytes", self.header_size.0));
        }
        if !(16..=65_000).contains(&self.uri.0) {
            wrong("uri", format!("{} is not a size from 16 to 65000 bytes", self.uri.0));
        }
        if !(1..=10_000).contains(&self.h2_streams) {
            wrong("h2_streams", format!("{} is not a number from 1 to 10000", self.h2_streams));
        }
        if !(1..=10_000).contains(&self.h2_resets) {
            wrong("h2_resets", format!("{} is not a number from 1 to 10000", self.h2_resets));
        }
        if let Some(body) = self.body.filter(|body| body.0.as_millis() < 1000) {
            wrong("body", format!("{body} is too short: at least 1s"));
        }
        for (key, span) in [("head", self.head), ("keepalive", self.keepalive), ("stall", self.stall)] {
            if span.0.as_millis() < 1000 {
                wrong(key, format!("{span} is too short: at least 1s"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_shortest_limit_counts() {
        let mut limits = ClientLimits { stall: Span(10 * S), body: None, body_rate: 0, ..ClientLimits::default() };
        assert_eq!(limits.next_read(100 * S, 0), Some(10 * S));
        limits.body = Some(Span(15 * S));
        assert_eq!(limits.next_read(S, 0), Some(10 * S));
        assert_eq!(limits.next_read(12 * S, 0), Some(3 * S));
        assert_eq!(limits.next_read(15 * S, 0), None);
        limits.body = None;
        limits.body_rate = 100;
        assert_eq!(limits.next_read(5 * S, 0), Some(5 * S), "nothing in the first 10 seconds");
        assert_eq!(limits.next_read(12 * S, 500), Some(3 * S), "500 bytes are good for 5 seconds more");
        assert_eq!(limits.next_read(16 * S, 500), None);
        assert_eq!(limits.next_read(16 * S, u64::MAX), Some(10 * S));
    }
}
