//! Requests for another protocol on the same connection (RFC 9110 §7.8): what asks for one, and who may say so.

use http::{HeaderMap, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{fields, violation::Violation};

/// What asks for an upgrade, as it is met in a head.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct UpgradeFields {
    /// `Connection` names it.
    named: bool,
    /// There is an `Upgrade` field.
    protocol: bool,
    /// It names something else than WebSocket.
    other: bool,
}

impl UpgradeFields {
    /// An item of `Connection`.
    pub(crate) fn option(&mut self, option: &[u8]) {
        self.named |= option.eq_ignore_ascii_case(NAME);
    }

    /// A line of `Upgrade`.
    pub(crate) fn protocols(&mut self, line: &[u8]) {
        // Pingora passes on no list and no second line.
        self.other |= self.protocol || !is_websocket(line);
        self.protocol = true;
    }

    /// True when they ask for one. `Connection: upgrade` alone is what many an nginx before us sends with every request; one
    /// to HTTP/2 is ignored, and curl sends it along with bodies.
    pub(crate) fn ask(self) -> bool {
        self.named && self.protocol && !self.other
    }
}

const NAME: &[u8] = b"upgrade";

/// True for a line of `Upgrade` that asks for WebSocket and nothing else.
fn is_websocket(line: &[u8]) -> bool {
    line.trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// True when there is one line of `Upgrade`, and it says that.
fn is_websocket_alone(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::UPGRADE).iter();
    lines.next().is_some_and(|line| is_websocket(line.as_bytes())) && lines.next().is_none()
}

/// Takes away an `Upgrade` that `Connection` does not name: it is not this hop's, and Pingora would take the request for one
/// that ends in a tunnel, with other time limits. And one to another protocol than WebSocket: Pingora passes none on, and
/// one to HTTP/2 is obsolete (RFC 9113 §3.1): requests in a tunnel would pass every filter.
pub(crate) fn ignore_what_is_none(head: &mut RequestHeader) {
    let named = fields::has(&head.headers, &header::CONNECTION, |name| name.eq_ignore_ascii_case(NAME));
    let websocket = is_websocket_alone(&head.headers);
    if !named || !websocket {
        head.remove_header(&header::UPGRADE);
        head.remove_header("http2-settings");
    }
}

/// Checks that a backend switches protocols only when it was `asked` to, and to the one that it was asked for (RFC 9110
/// §7.8).
pub(crate) fn check_switch(head: &ResponseHeader, asked: bool) -> Result<(), Violation> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    if !asked {
        return Err("the backend switches protocols and was not asked to");
    }
    let websocket = is_websocket_alone(&head.headers);
    // What follows is no body (RFC 9110 §8.6, RFC 9112 §6.1).
    let framed = head.headers.contains_key(header::TRANSFER_ENCODING);
    if websocket && !framed { Ok(()) } else { Err("the backend switches to another protocol than it was asked for") }
}

/// True for answers that say which protocol: 101, and 426, which must (RFC 9110 §15.5.22).
pub(crate) fn is_said_by(status: StatusCode) -> bool {
    matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::*;

    #[test]
    fn both_readings_of_a_head_take_the_same_for_an_upgrade() {
        for (upgrade, stays) in [
            (&b"websocket"[..], true),
            (b"WebSocket ", true),
            (b"x, websocket", false),
            (b"x", false),
            (b"h2c", false),
            (b"websocket, H2C", false),
            // Bytes beyond ASCII hide nothing.
            (b"h2c, \xff", false),
        ] {
            let mut head = RequestHeader::build("GET", b"/", None).unwrap();
            head.append_header("Connection", "close").unwrap();
            head.append_header("Connection", HeaderValue::from_bytes(b"\xff, Upgrade").unwrap()).unwrap();
            head.insert_header("Upgrade", HeaderValue::from_bytes(upgrade).unwrap()).unwrap();
            ignore_what_is_none(&mut head);
            assert_eq!(head.headers.contains_key("upgrade"), stays, "{upgrade:?}");
            let mut seen = UpgradeFields::default();
            seen.option(b"Upgrade");
            seen.protocols(upgrade);
            assert_eq!(seen.ask(), stays, "{upgrade:?}");
        }
    }
}
