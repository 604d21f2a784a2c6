//! Who the client is, when load balancers may stand in between, and what the backend is told about it.
//!
//! Only a peer on `trusted_proxies` is believed: then the right-most address of `X-Forwarded-For` (or `Forwarded`) that
//! is not itself a trusted proxy is the client. From everybody else these fields are dropped, underscore spellings
//! included (some backends read `X_Forwarded_For` as the same field). Ours are appended.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};
use pingora::{ErrorType, OrErr as _, http::RequestHeader};

use super::{edit::FieldsMut, fields, reserved::ReservedHeaders};
use crate::units::Cidr;

/// Fields that say where a request came from.
pub(crate) const FORWARDED: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];

/// Those of them that say who the client is, or that the gateway says itself: they differ from one client to the next, and say
/// nothing of what is asked for.
const OF_THE_CLIENT: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"];

/// What a trusted proxy has said of the request beside who the client is, and backends believe: names and values.
pub(crate) fn told(headers: &HeaderMap) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = Vec::new();
    for field in FORWARDED.iter().filter(|field| !OF_THE_CLIENT.contains(field)) {
        all.push(field.as_bytes());
        all.extend(headers.get_all(*field).iter().map(HeaderValue::as_bytes));
    }
    all
}

/// Those of them that are added to what a trusted proxy has said.
static TOLD: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-forwarded-host")];

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Proxies whose word is taken.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(pub Vec<Cidr>);

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: IpAddr,
    /// The peer is a trusted proxy.
    pub trusted: bool,
    /// The client speaks TLS.
    pub secure: bool,
}

impl TrustedProxies {
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Finds the client of a request that `peer` sent.
    pub fn origin(&self, peer: IpAddr, tls: bool, headers: &HeaderMap) -> Origin {
        let peer = peer.to_canonical();
        if self.0.is_empty() || !self.trusts(peer) {
            return Origin { client: peer, trusted: false, secure: tls };
        }
        let proto = last(headers, "x-forwarded-proto");
        let secure = proto.map_or(tls, |proto| proto.eq_ignore_ascii_case(b"https"));
        let mut client = peer;
        let mut chain = hops(headers, "x-forwarded-for", Some);
        if chain.is_empty() {
            chain = hops(headers, "forwarded", forwarded_for);
        }
        for hop in chain.into_iter().rev() {
            // What cannot be read was not written by a proxy of ours: everything left of it is hearsay.
            let Some(address) = std::str::from_utf8(hop).ok().and_then(address) else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        Origin { client, trusted: true, secure }
    }
}

fn last<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    fields::items(headers.get_all(name).iter().next_back()?.as_bytes()).last()
}

/// The items of a list field over all its lines, from left to right, each by itself: what cannot be read makes none of
/// its neighbours unreadable.
fn hops<'h>(headers: &'h HeaderMap, name: &str, item: fn(&'h [u8]) -> Option<&'h [u8]>) -> Vec<&'h [u8]> {
    let items = headers.get_all(name).iter().flat_map(|line| fields::items(line.as_bytes()));
    items.map(|text| item(text).unwrap_or(b"?")).collect()
}

/// `for=` of one element of `Forwarded` (RFC 7239 §4).
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        name.eq_ignore_ascii_case(b"for").then(|| value.strip_suffix(b"\"").unwrap_or(value))
    })
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Drops what the client may not say, before anything looks at it: `trusted`, if it is a proxy whose word is taken.
pub(crate) fn drop_hearsay(head: &mut RequestHeader, trusted: bool, reserved: &ReservedHeaders) {
    // Empty, and so without an allocation, for nearly every request.
    let unwanted: Vec<HeaderName> =
        head.headers.keys().filter(|name| unwanted(name.as_str(), trusted, reserved)).cloned().collect();
    for name in &unwanted {
        head.remove_header(name);
    }
}

/// Adds what we know, on the copy that goes to the backend. `known` is the peer's address as text, if somebody has it.
pub(crate) fn tell_backend(
    fields: &mut dyn FieldsMut,
    authority: Option<&Authority>,
    peer: IpAddr,
    known: Option<HeaderValue>,
    origin: Origin,
) -> pingora::Result<()> {
    let peer = peer.to_canonical();
    let address = known.unwrap_or_else(|| text(peer));
    // Nearly always the same address three times: then it is written out once and shared.
    let real = if origin.client == peer { address.clone() } else { text(origin.client) };
    let [has_for, has_host] = fields::present(fields.all(), &TOLD);
    let before = if has_for { joined(fields.all(), &TOLD[0]) } else { None };
    match before {
        Some(before) => {
            let list = [&readable(&before)[..], b", ", address.as_bytes()].concat();
            let list = HeaderValue::try_from(list);
            fields.insert(TOLD[0].clone(), list.or_err(ErrorType::InvalidHTTPHeader, "a list of forwarders")?)?;
        }
        None => fields.insert(TOLD[0].clone(), address)?,
    }
    fields.insert(X_REAL_IP, real)?;
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if origin.secure { "https" } else { "http" }))?;
    if !has_host && let Some(host) = host_value(fields.all(), authority) {
        fields.insert(TOLD[1].clone(), host)?;
    }
    Ok(())
}

/// An address as a field's value.
pub(crate) fn text(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// The value of `Host`, or what HTTP/2 has in its place.
fn host_value(fields: &HeaderMap, authority: Option<&Authority>) -> Option<HeaderValue> {
    let host = fields.get(header::HOST).cloned();
    host.or_else(|| HeaderValue::try_from(authority?.as_str()).ok())
}

/// All lines of a list field as one, byte by byte.
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    headers.get(name)?;
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    Some(lines.join(&b", "[..]))
}

/// A list with `unknown` (RFC 7239 §6) in the place of each item that has a byte beyond ASCII: a backend that gives such
/// a line up would take another client for the one that sent the request than we do.
fn readable(list: &[u8]) -> Cow<'_, [u8]> {
    if list.is_ascii() {
        return Cow::Borrowed(list);
    }
    let items: Vec<&[u8]> = fields::items(list).map(|item| if item.is_ascii() { item } else { b"unknown" }).collect();
    Cow::Owned(items.join(&b", "[..]))
}

fn unwanted(name: &str, trusted: bool, reserved: &ReservedHeaders) -> bool {
    if reserved.has(name) {
        return true;
    }
    if name.bytes().any(|byte| byte == b'_') {
        return FORWARDED.contains(&name.replace('_', "-").as_str());
    }
    // The first letters decide for nearly every field.
    matches!(name.as_bytes().first(), Some(b'f' | b'x')) && !trusted && FORWARDED.contains(&name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &'static str)]) -> String {
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        trusted.origin(peer.parse().unwrap(), false, &headers).client.to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("192.0.2.1", &[("x-forwarded-for", "203.0.113.9")]), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn the_right_most_untrusted_address_wins() {
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2")]), "203.0.113.9");
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(client("10.0.0.1", &lines), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "\u{e9}, 203.0.113.9, 10.0.0.2")]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, \u{e9}, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "203.0.113.9:4711")]), "203.0.113.9");
    }

    #[test]
    fn forwarded_is_read_when_the_other_is_absent() {
        let line = [("forwarded", r#"for=6.6.6.6, for="[2606:4700::1]:80";proto=https, for=10.0.0.2"#)];
        assert_eq!(client("10.0.0.1", &line), "2606:4700::1");
        let line = [("forwarded", "for=\"\u{e9}\", for=203.0.113.9;by=\"\u{e9}\"")];
        assert_eq!(client("10.0.0.1", &line), "203.0.113.9");
    }

    #[test]
    fn underscore_spellings_are_dropped() {
        let reserved = ReservedHeaders::new([]);
        let unwanted = |name, trusted| unwanted(name, trusted, &reserved);
        assert!(unwanted("x_forwarded_for", true) && unwanted("x-forwarded_proto", false));
        assert!(unwanted("x_consumer_id", true) && unwanted("x-consumer-id", true));
        assert!(unwanted("x-real-ip", false) && !unwanted("x-real-ip", true));
        assert!(!unwanted("x-custom_field", false) && !unwanted("user-agent", false));
    }
}
