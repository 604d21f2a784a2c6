//! `[::]` takes IPv4 as well, unless the file says who takes that: then it does not, whatever part of IPv4 that is.

use std::net::{IpAddr, SocketAddr};

use crate::{
    config::Config,
    units::Problems,
    yaml::{Location, Node},
};

/// A listener at `[::]` that takes no IPv4, because another one has one address of it at the same port.
pub(super) fn keep_to_ipv6(config: &Config, root: &Node, found: &mut Problems) {
    let parsed = |address: &str| address.parse::<SocketAddr>().ok();
    let listeners = config
        .listeners
        .iter()
        .filter_map(|listener| Some((format!("{}.address", listener.place.path), parsed(&listener.address)?)));
    let listeners: Vec<(String, SocketAddr)> = listeners.collect();
    let admin = parsed(&config.admin.address).filter(|_| config.admin.enabled);
    let admin = admin.map(|address| ("the admin listener".to_owned(), address));
    for (path, address) in &listeners {
        if address.ip() != IpAddr::from([0u16; 8]) || address.port() == 0 {
            continue;
        }
        let of_ipv4 =
            |other: &&(String, SocketAddr)| other.1.port() == address.port() && other.1.ip().to_canonical().is_ipv4();
        let others = || listeners.iter().chain(&admin).filter(of_ipv4);
        // Whoever names all of IPv4 has meant it.
        if others().any(|(_, other)| other.ip().to_canonical().is_unspecified()) {
            continue;
        }
        let Some((other, at)) = others().next() else { continue };
        let message = format!(
            "takes no connections over IPv4, for {other} has {at} and with it all of IPv4 at this port: give one of the two another port"
        );
        let place = Location { path: path.clone(), ..root.at(path).place().clone() };
        found.push(place.problem(message));
    }
}
