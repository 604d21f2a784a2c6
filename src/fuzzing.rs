//! What `fuzz/` checks of paths, targets, fields and configurations; compiled for fuzzing alone.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    message::{fields, forwarded::TrustedProxies, hop_by_hop, path, target},
    routing::{
        decoders::{below, nginx, servlet, windows},
        readings::{EncodedSlashes, agree},
        router::{Matcher, Pick, RouteInput, Router},
    },
};

pub use crate::downstream::fuzzing::{chunks, head, proxy_protocol};

/// No backend reads a path that is let through as one of another route.
pub fn paths(text: &str) {
    let patterns = ["/*", "/admin/*"];
    let matcher = |text: &str| Matcher { paths: text.parse().into_iter().collect(), ..Matcher::default() };
    let router = Router::new(patterns.iter().map(|text| (matcher(text), *text)).collect());
    let Ok(reading) = path::read(text) else { return };
    assert_eq!(path::normalise(&reading.path).as_deref(), Ok(&*reading.path), "normalised once is normalised");
    let headers = HeaderMap::new();
    let subject = RouteInput { host: "h", path: &reading.path, method: &Method::GET, headers: &headers, listener: 0 };
    let Pick::Route(route, pattern) = router.pick(&subject) else { return };
    if reading.suspect && agree(&router, &subject, route, pattern, EncodedSlashes::SameRoute).is_err() {
        return;
    }
    let sent = reading.sent.as_deref().unwrap_or(&reading.path);
    for read in [nginx(sent), servlet(sent), windows(sent)].into_iter().flatten() {
        assert_eq!(below(&read, "/admin"), *route == "/admin/*", "{text} is sent as {sent} and read as {read}");
    }
}

/// A target that is accepted can be parsed by whoever comes after us.
pub fn targets(bytes: &[u8]) {
    let space = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
    if bytes.iter().any(space) {
        return;
    }
    match target::read(b"GET", bytes) {
        Some(target::RequestTarget::Origin) => {
            assert!(http::uri::PathAndQuery::try_from(bytes).is_ok(), "{bytes:?}");
        }
        Some(target::RequestTarget::Absolute { host, rest, .. }) => {
            assert!(target::is_host(host));
            assert!(rest.is_empty() || rest[0] == b'/' || rest[0] == b'?');
        }
        _ => {}
    }
}

/// Lists are read alike by everybody who asks, and forwarded addresses never panic.
pub fn fields(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        for name in [header::CONNECTION, header::FORWARDED, HeaderName::from_static("x-forwarded-for")] {
            headers.append(name, value.clone());
        }
    }
    for name in hop_by_hop::nominated(&headers) {
        assert!(fields::has(&headers, &header::CONNECTION, |item| item.eq_ignore_ascii_case(name.as_str().as_bytes())));
    }
    let trusted = TrustedProxies("10.0.0.0/8".parse().into_iter().collect());
    for peer in [[10, 0, 0, 1], [192, 0, 2, 1]] {
        trusted.origin(peer.into(), false, &headers);
    }
}
