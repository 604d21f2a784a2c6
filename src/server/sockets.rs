//! The listening sockets: all of them are there before anything else happens, or the process says which are not, and
//! ends. Pingora would try for 30 seconds and then live on without a listener (`services/listening.rs`).

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::config::Plan;

/// A listening socket, with the address of the file that it stands for.
pub(super) type Bound = (SocketAddr, TcpListener);

/// The same sockets once more, for a successor. To be emptied when the process stops listening: a socket is closed with
/// its last copy.
pub(super) type Held = Arc<Mutex<Vec<Bound>>>;

/// The length of the queue of a listening socket, as Pingora makes it.
const BACKLOG: i32 = 65535;

/// One socket for every address of `plan`, its listeners first and in order: from `handed`, or bound now. What was
/// handed and is not asked for is closed.
///
/// # Errors
/// One line per address that cannot be had.
pub(super) fn all(plan: &Plan, mut handed: Vec<Bound>) -> Result<Vec<Bound>, String> {
    let listeners = plan.listeners.iter().chain(&plan.admin);
    let addresses: Vec<SocketAddr> = listeners.flat_map(|listener| listener.address.parse()).collect();
    let known: Vec<SocketAddr> = handed.iter().map(|(address, _)| *address).collect();
    let (mut bound, mut failures) = (Vec::new(), Vec::new());
    for address in &addresses {
        let alone = keeps_to_ipv6(*address, &addresses);
        let given = handed.iter().position(|(known, _)| known == address).map(|at| handed.swap_remove(at).1);
        let socket = match given {
            Some(socket) => fits(&socket, *address, alone).map(|()| socket),
            None => {
                bind(*address, alone).map_err(|e| reason(&e, known.iter().find(|known| overlap(**known, *address))))
            }
        };
        match socket {
            Ok(socket) => bound.push((*address, socket)),
            Err(reason) => failures.push(format!("cannot listen on {address}: {reason}")),
        }
    }
    if failures.is_empty() { Ok(bound) } else { Err(failures.join("\n")) }
}

/// A second descriptor for each socket, kept for a successor.
///
/// # Errors
/// This process may open no more files.
pub(super) fn copies(bound: &[Bound]) -> io::Result<Vec<Bound>> {
    bound.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?))).collect()
}

/// `[::]` takes IPv4 as well, unless the file says who takes that.
fn keeps_to_ipv6(address: SocketAddr, all: &[SocketAddr]) -> bool {
    is_any_ipv6(address)
        && all.iter().any(|other| other.ip().to_canonical().is_ipv4() && other.port() == address.port())
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn bind(address: SocketAddr, alone: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for connections of the process before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if is_any_ipv6(address) {
        sockopt::set_ipv6_v6only(&socket, alone)?;
    }
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// True when one of them is part of the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && (one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Why an address cannot be had; `before` is what the running process listens on that it overlaps with.
fn reason(e: &io::Error, before: Option<&SocketAddr>) -> String {
    match (e.kind(), before) {
        (io::ErrorKind::AddrInUse, Some(before)) => {
            format!("the running process has {before}, and an upgrade cannot change it into this: restart instead")
        }
        (kind, _) => other_reason(kind, e),
    }
}

fn other_reason(kind: io::ErrorKind, e: &io::Error) -> String {
    match kind {
        io::ErrorKind::AddrInUse => "another process has it (use -u to take over from a running gateway)".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => e.to_string(),
    }
}

/// What a predecessor handed over is believed only as far as it can be seen.
fn fits(socket: &TcpListener, address: SocketAddr, alone: bool) -> Result<(), String> {
    let seen = |e: &dyn std::fmt::Display| format!("the socket that was handed over cannot be used: {e}");
    let local = socket.local_addr().map_err(|e| seen(&e))?;
    if local.ip() != address.ip() || address.port() != 0 && local.port() != address.port() {
        return Err(format!("the socket that was handed over is that of {local}"));
    }
    if !sockopt::socket_acceptconn(socket).map_err(|e| seen(&e))? {
        return Err("the socket that was handed over does not listen".to_owned());
    }
    // It is decided before a socket is bound.
    if is_any_ipv6(address) && sockopt::ipv6_v6only(socket).map_err(|e| seen(&e))? != alone {
        return Err("an upgrade cannot change whether it takes IPv4 as well: restart instead".to_owned());
    }
    socket.set_nonblocking(true).map_err(|e| seen(&e))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_ipv6_wildcard_leaves_ipv4_to_whoever_has_it() {
        let all: Vec<SocketAddr> =
            ["[::]:80", "0.0.0.0:80", "[::]:81", "127.0.0.1:82", "[::1]:82"].map(|text| text.parse().unwrap()).into();
        let alone: Vec<bool> = all.iter().map(|address| keeps_to_ipv6(*address, &all)).collect();
        assert_eq!(alone, [true, false, false, false, false]);
    }

    #[test]
    fn a_handed_socket_is_looked_at() {
        let socket = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let own = socket.local_addr().unwrap();
        assert_eq!(fits(&socket, own, false), Ok(()));
        assert!(fits(&socket, "127.0.0.1:1".parse().unwrap(), false).unwrap_err().contains("is that of 127.0.0.1"));
        let any = bind("[::]:0".parse().unwrap(), true).unwrap();
        let own = any.local_addr().unwrap();
        assert_eq!(fits(&any, own, true), Ok(()));
        assert!(fits(&any, own, false).unwrap_err().contains("restart instead"));
    }
}
