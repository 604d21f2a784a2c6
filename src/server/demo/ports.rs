//! Who listens where, and the file that says so.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

const YAML: &str = include_str!("../../../conf/demo.yaml");

/// The ports in that file.
pub(super) const GATEWAY: u16 = 8080;
const ADMIN: u16 = 9090;
const BACKENDS: [u16; 3] = [8081, 8082, 8083];

/// Who listens where, on loopback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) admin: u16,
    pub(super) backends: [u16; 3],
}

impl Ports {
    /// Those of the gateway on `port`; the backends are where the file has them.
    pub(super) fn of(port: u16) -> io::Result<Self> {
        let (gateway, admin) = match port {
            0 => {
                // Both at once, so that they are two.
                let free = [bind(0)?, bind(0)?];
                (free[0].local_addr()?.port(), free[1].local_addr()?.port())
            }
            GATEWAY => (GATEWAY, ADMIN),
            other => (other, other.checked_add(1).unwrap_or(ADMIN)),
        };
        Ok(Self { gateway, admin, backends: BACKENDS })
    }

    /// The same, with sockets for the backends: beside another gateway than the usual one on any free ports.
    pub(super) fn with_backends(port: u16) -> Result<(Self, [TcpListener; 3]), String> {
        let ports = Self::of(port).map_err(|e| format!("the demo finds no free port: {e}"))?;
        let needed = |port: u16| {
            bind(port).map_err(|e| match e.kind() {
                io::ErrorKind::AddrInUse => {
                    format!(
                        "the demo needs 127.0.0.1:{port}, which another process has: choose another port with --port"
                    )
                }
                _ => format!("the demo needs 127.0.0.1:{port}: {e}"),
            })
        };
        // Bound by the gateway later: whoever has them now is told of in words of the demo.
        drop((needed(ports.gateway)?, needed(ports.admin)?));
        let wanted = if port == GATEWAY { BACKENDS } else { [0; 3] };
        let sockets = [needed(wanted[0])?, needed(wanted[1])?, needed(wanted[2])?];
        let mut backends = wanted;
        for (port, socket) in backends.iter_mut().zip(&sockets) {
            *port = socket.local_addr().map_err(|e| e.to_string())?.port();
        }
        Ok((Self { backends, ..ports }, sockets))
    }

    /// The file with these ports.
    pub(super) fn yaml(self, access_log: bool) -> String {
        let before = [GATEWAY, ADMIN, BACKENDS[0], BACKENDS[1], BACKENDS[2]];
        let after = [self.gateway, self.admin, self.backends[0], self.backends[1], self.backends[2]];
        // In one pass: a port of ours may be another one's of the file.
        let mut text = String::new();
        for (i, part) in YAML.split("127.0.0.1:").enumerate() {
            if i > 0 {
                text.push_str("127.0.0.1:");
            }
            let known = before.iter().zip(after).find(|(old, _)| part.starts_with(&old.to_string()));
            match known {
                Some((old, new)) if i > 0 => text.push_str(&part.replacen(&old.to_string(), &new.to_string(), 1)),
                _ => text.push_str(part),
            }
        }
        if access_log { text.replace("access_log: { enabled: false }", "access_log: { enabled: true }") } else { text }
    }
}

pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_file_is_exchanged_once() {
        let ports = Ports { gateway: 8082, admin: 8081, backends: [9090, 8080, 1] };
        let text = ports.yaml(true);
        for line in [
            "- address: \"127.0.0.1:8082\"",
            "address: \"127.0.0.1:8081\"",
            "127.0.0.1:9090\", \"http://127.0.0.1:8080",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(text.contains("access_log: { enabled: true }") && !text.contains("8083\""));
        let same = Ports { gateway: GATEWAY, admin: ADMIN, backends: BACKENDS };
        assert_eq!(same.yaml(false), YAML);
    }
}
