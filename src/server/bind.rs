//! Finding out before anything starts whether every address can be bound. Pingora tries for 30 seconds and then lives on
//! without a listener (`services/listening.rs`).

use std::{io, net::SocketAddr};

use crate::config::Plan;

/// Binds every address once and lets go of it again.
///
/// # Errors
/// One line per address that cannot be bound.
pub(super) fn try_all(plan: &Plan) -> Result<(), String> {
    let addresses = plan.listeners.iter().map(|listener| &listener.address).chain(&plan.admin);
    let mut failures = Vec::new();
    for address in addresses {
        let Ok(parsed) = address.parse::<SocketAddr>() else { continue };
        if let Err(e) = std::net::TcpListener::bind(parsed) {
            let hint = match e.kind() {
                io::ErrorKind::AddrInUse => "another process has it (use -u to take over from a running gateway)",
                io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)",
                io::ErrorKind::AddrNotAvailable => "this machine has no such address",
                _ => "",
            };
            failures.push(format!(
                "cannot listen on {address}: {}",
                if hint.is_empty() { e.to_string() } else { hint.to_owned() }
            ));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}
