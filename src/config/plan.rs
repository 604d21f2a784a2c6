//! What is decided once, at start: the engine, the listeners and the process. Files are read, no socket is opened.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{
    Config, PingoraConfig, ShutdownConfig,
    private::{self, Account},
};
use crate::{
    admin::AdminConfig,
    downstream::{Listener, ListenerConfig},
    telemetry::LogConfig,
    tls::server::TlsFront,
    units::Problems,
    yaml::{Location, Node, Short, Spanned},
};

/// What is decided once, at start: the rest is in the `Runtime`.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engine.
    pub pingora: PingoraConfig,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// The admin listener; `None` when it is switched off.
    pub admin: Option<Listener>,
    /// Diagnostics.
    pub log: LogConfig,
    /// How the process leaves.
    pub shutdown: ShutdownConfig,
}

/// Each has its own bit where routes say which ones they are for.
const MAX_LISTENERS: usize = 30;

/// The addresses of all listeners, each of which is one listener's alone.
fn addresses(config: &Config, root: &Node, problems: &mut Problems) {
    let mut taken: Vec<(SocketAddr, &Location)> = Vec::new();
    let admin_place = root.at("admin.address").place();
    let mut claim = |address: &str, place, problems: &mut Problems| match address.parse::<SocketAddr>() {
        Ok(address) => {
            if let Some((_, first)) = taken.iter().find(|(other, _)| collides(*other, address)) {
                problems.push(Location::problem(place, format!("{address} is taken already (by {})", first.path)));
            }
            taken.push((address, place));
        }
        Err(_) => problems.push(place.problem(format!(
            "'{address}' is not an address with a port: write it like 127.0.0.1:8080 or \"[::]:80\""
        ))),
    };
    let addresses: Vec<(&str, Location)> = config
        .listeners
        .iter()
        .map(|listener| {
            let path = format!("{}.address", listener.place.path);
            (listener.address.as_str(), Location { path: path.clone(), ..root.at(&path).place().clone() })
        })
        .collect();
    for (address, place) in &addresses {
        claim(address, place, problems);
    }
    names(&config.listeners, root, problems);
    if config.admin.enabled {
        claim(&config.admin.address, admin_place, problems);
    }
    if config.listeners.is_empty() && root.get("listeners").is_none() {
        problems.push(root.place().problem("key 'listeners' is missing: nobody could connect"));
    }
    if config.listeners.len() > MAX_LISTENERS {
        let message =
            format!("{} listeners are more than the {MAX_LISTENERS} that there may be", config.listeners.len());
        problems.push(root.at("listeners").place().problem(message));
    }
    admin_is_private(&config.admin, admin_place, problems);
}

pub(super) fn plan(config: &Config, root: &Node, problems: &mut Problems) -> Plan {
    addresses(config, root, problems);
    config.limits.validate(root.at("limits"), problems);
    let ports =
        config.listeners.iter().filter_map(|listener| Some(listener.address.parse::<SocketAddr>().ok()?.port()));
    let ports: Vec<u16> = ports.collect();
    let mut pingora = config.pingora.clone();
    pingora.complete(&ports, root.at("pingora"), problems);
    let access = &config.access_log;
    if let (true, Err(message)) = (access.enabled, pingora.can_log_to(&access.output)) {
        problems.push(access.output.place.problem(message));
    }
    if !config.log.is_valid() {
        let message =
            format!("'{}' is not a log level or filter: write it like info or warn,tollgate=debug", config.log.level);
        problems.push(root.at("log.level").place().problem(message));
    }
    Plan {
        listeners: fronts(config, pingora.later().as_ref(), root, problems),
        pingora,
        admin: config.admin.enabled.then(|| Listener::plain(&config.admin.address)),
        log: config.log.clone(),
        shutdown: config.shutdown,
    }
}

/// A name stands for one listener.
fn names(listeners: &[Spanned<Short<ListenerConfig>>], root: &Node, problems: &mut Problems) {
    for (number, listener) in listeners.iter().enumerate() {
        let Some(name) = &listener.name else { continue };
        let first = listeners[..number].iter().find(|other| other.name.as_ref() == Some(name));
        let message = match first {
            _ if name.is_empty() => "a name must not be empty".to_owned(),
            Some(first) => format!("'{name}' is the name of {} already", first.place.path),
            None => continue,
        };
        problems.push(root.at(&format!("{}.name", listener.place.path)).place().problem(message));
    }
}

/// Files that are read again when they have changed, by the user that the process has become then.
fn watched(config: &Config, root: &Node, account: &Account, problems: &mut Problems) {
    let mut check = |node: &Node, key: &str, file: Option<String>| {
        if let Some(Err(message)) = file.map(|file| private::can_read(Path::new(&file), account)) {
            problems.push(node.at(key).place().problem(message));
        }
    };
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        for certificate in &tls.certificates {
            let node = root.at(&certificate.place.path);
            check(node, "cert", certificate.cert.path().ok());
            check(node, "key", certificate.key.path().ok());
        }
        let node = root.at(&listener.place.path);
        check(node, "tls.mtls.ca", tls.mtls.as_ref().and_then(|mtls| mtls.ca.path().ok()));
    }
    for (name, service) in &config.services {
        let node = root.at("services").get(name).unwrap_or(root);
        check(node, "discovery.file", service.discovery.file.clone());
    }
}

/// Listeners with their certificates read, for a process that becomes `later`.
fn fronts(config: &Config, later: Option<&Account>, root: &Node, problems: &mut Problems) -> Vec<Listener> {
    if let Some(account) = later {
        watched(config, root, account, problems);
    }
    let groups = later.map(Account::groups).unwrap_or_default();
    config.listeners.iter().filter_map(|listener| front(listener, root, &groups, problems)).collect()
}

/// A listener with its certificates read.
fn front(
    config: &Spanned<Short<ListenerConfig>>,
    root: &Node,
    groups: &[u32],
    problems: &mut Problems,
) -> Option<Listener> {
    let node = root.at(&config.place.path);
    if config.h2c && config.tls.is_some() {
        let message = "h2c is HTTP/2 without TLS: with 'tls', HTTP/2 is agreed on by 'alpn'";
        problems.push(node.at("h2c").place().problem(message));
    }
    if config.proxy_protocol && root.get("trusted_proxies").is_none() {
        let message = "nobody is believed: name the balancers' networks under 'trusted_proxies'";
        problems.push(node.at("proxy_protocol").place().problem(message));
    }
    let tls = match &config.tls {
        Some(tls) => Some(TlsFront::build(tls, node.at("tls"), groups, problems)?),
        None => None,
    };
    let ListenerConfig { address, h2c, proxy_protocol, name, .. } = config.value.0.clone();
    let name = name.as_deref().unwrap_or(&address).into();
    Some(Listener { address, name, tls, h2c, proxy_protocol })
}

/// Two listeners cannot share a port on one address; an unspecified address is all of them. IPv4 in the clothes of IPv6
/// is IPv4.
fn collides(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let all = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port()
        && a.port() != 0
        && (one == other || (all(one) || all(other)) && one.is_ipv4() == other.is_ipv4())
}

/// `/metrics` shows every backend's address; whoever wants that on a network says so.
fn admin_is_private(admin: &AdminConfig, place: &Location, problems: &mut Problems) {
    let open = admin.address.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback());
    if admin.enabled && open && !admin.allow_remote {
        let message = format!(
            "'{}' can be reached from outside: use 127.0.0.1, or say 'allow_remote: true' and firewall it",
            admin.address
        );
        problems.push(place.problem(message));
    }
}
