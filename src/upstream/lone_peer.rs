//! The peer of a request that goes to no service's backend.

use std::{net::SocketAddr, time::Duration};

use pingora::{prelude::HttpPeer, upstreams::peer::PeerOptions};

use crate::filter::HttpPlace;

/// A peer at one of the addresses of `place`; its connection is kept for `kept` without a request.
pub(super) fn peer(address: SocketAddr, place: &HttpPlace, kept: Option<Duration>) -> Box<HttpPeer> {
    let name = if place.tls { place.host.clone() } else { String::new() };
    let mut peer = HttpPeer::new(address, place.tls, name);
    let mut options = PeerOptions::new();
    let limit = Some(place.timeout);
    (options.connection_timeout, options.total_connection_timeout) = (limit, limit);
    (options.read_timeout, options.write_timeout) = (limit, limit);
    options.idle_timeout = kept;
    options.ca.clone_from(&place.authorities);
    peer.options = options;
    // The pool knows connections by address and name only: nobody else may have one that trusts these authorities.
    peer.group_key = place.stamp;
    Box::new(peer)
}
