//! How a backend is connected to: addresses, names, time limits, TLS.

use std::net::SocketAddr;

use pingora::{prelude::HttpPeer, protocols::ALPN, upstreams::peer::PeerOptions};

use super::url::{BackendScheme, BackendUrl};
use crate::{
    tls::client::{Credentials, UpstreamTls},
    units::Span,
    upstream::settings::service::Timeouts,
};

/// Requests that share one HTTP/2 connection to a backend; what common servers allow.
const H2_STREAMS: usize = 100;

/// What a backend may send of one answer before it has been read on: enough for 20 Mbit/s over 100 ms. A connection has
/// room for more of them than there are streams.
const H2_WINDOW: u32 = 256 << 10;

/// What all connections of a service have in common.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(super) tls: UpstreamTls,
    pub(super) credentials: Credentials,
    pub(super) timeouts: Timeouts,
}

impl Peers {
    /// A prepared peer for one of the service's URLs.
    pub(crate) fn peer(&self, address: SocketAddr, url: &BackendUrl) -> HttpPeer {
        let encrypted = url.scheme == BackendScheme::Https;
        let sni = self.tls.server_name.clone().unwrap_or_else(|| url.host.clone());
        let mut peer = HttpPeer::new(address, encrypted, if encrypted { sni } else { String::new() });
        let mut options = PeerOptions::new();
        let some = |span: Span| (!span.0.is_zero()).then_some(span.0);
        options.connection_timeout = some(self.timeouts.connect);
        options.total_connection_timeout = some(self.timeouts.connect);
        options.read_timeout = some(self.timeouts.read);
        options.write_timeout = some(self.timeouts.write);
        options.idle_timeout = some(self.timeouts.keepalive);
        options.verify_cert = self.tls.verify;
        options.verify_hostname = self.tls.verify;
        options.max_h2_streams = H2_STREAMS;
        // What clients that do not read leave unread takes nothing away from the streams beside them: Pingora's windows
        // are of one size for a stream and for the whole connection.
        options.h2_stream_window_size = Some(H2_WINDOW);
        options.h2_connection_window_size = Some(H2_WINDOW * 128);
        match url.scheme {
            BackendScheme::H2c => options.set_http_version(2, 2),
            BackendScheme::Https if self.tls.http2 => options.alpn = ALPN::H2H1,
            BackendScheme::Https | BackendScheme::Http => {}
        }
        options.ca.clone_from(&self.credentials.authorities);
        peer.options = options;
        peer.client_cert_key.clone_from(&self.credentials.own);
        // The pool keys connections by address and name only: two services must not share one that was opened under
        // other terms.
        peer.group_key = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&self.tls, url.scheme as u8));
        peer
    }
}
