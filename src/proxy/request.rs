//! A request that has just come: what its connection allows, whose it is, and which of its wishes are for this hop.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Version, header};
use pingora::{http::RequestHeader, proxy::Session};

use super::{context::Context, keep_alive};
use crate::{
    downstream::ConnectionInfo,
    message::{fields, forwarded, method_class::MethodClass, upgrade},
    proxy::kind::RequestKind,
    runtime::{Runtime, Shared},
};

/// Fields that say what a request wants of this hop; most requests have few of them.
static FIELDS: [HeaderName; 5] =
    [header::CONNECTION, header::UPGRADE, header::CONTENT_TYPE, header::COOKIE, header::EXPECT];

/// Meets a request that Pingora has a session for.
pub(crate) fn receive(shared: &Shared, session: &mut Session, context: &mut Context) {
    let info = ConnectionInfo::of(session).cloned();
    let (body, upgrade) = (!session.is_body_empty(), session.is_upgrade_req());
    let closes = meet(shared, session.req_header_mut(), info, body, upgrade, context);
    if closes {
        keep_alive::end(session);
    }
    bound(session, context);
}

/// Finds out whose a request with this `head` is, and what it wants of this hop; true when the connection ends after it.
/// `body`: it has one. `upgrade`: it asks for another protocol.
pub(crate) fn meet(
    shared: &Shared,
    head: &mut RequestHeader,
    info: Option<Arc<ConnectionInfo>>,
    body: bool,
    upgrade: bool,
    context: &mut Context,
) -> bool {
    let Runtime { limits, trusted, .. } = &*context.runtime;
    // HTTP/1.0 closes unless asked not to (RFC 9112 §9.3): that is what the session has decided by now.
    // Pingora's looks at the first line of `Connection` only.
    let [connection, upgrades, media, cookie, expect] = fields::present(&head.headers, &FIELDS);
    let mut closes = connection && closes(head) || shared.draining();
    if upgrades {
        upgrade::ignore_what_is_none(head);
    }
    let upgrade = upgrade && head.headers.contains_key(header::UPGRADE);
    context.kind = RequestKind::of(head, upgrade, media);
    let timed = context.kind == RequestKind::Ordinary;
    context.uninvited = timed && expect && !is_old(head) && body && expects(head);
    context.state.has_body = body;
    let secure = info.as_ref().is_some_and(|info| info.secure);
    if let Some(info) = &info {
        context.peer = info.address();
        // One that has ended since the handshake is none, and the next request needs another connection.
        let shown = info.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        context.state.certificate = shown.filter(|shown| shown.is_valid(context.now.unix)).cloned();
        closes |= shown.is_some() && context.state.certificate.is_none();
        context.state.listener = info.listener;
        let rate = if timed { limits.body_rate } else { 0 };
        info.deadlines.limit_writes(Some(limits.stall.0), rate);
    }
    if cookie {
        join_cookies(head);
    }
    context.version = head.version;
    context.method = MethodClass::of(head.method.as_str());
    context.origin = trusted.origin(context.peer, secure, &head.headers);
    context.state.client = context.origin.client;
    forwarded::drop_hearsay(head, context.origin.trusted, &context.runtime.reserved);
    context.state.secure = context.origin.secure;
    context.info = info;
    closes
}

/// Time limits of the client's connection, for a request that has been met.
pub(crate) fn bound(session: &mut Session, context: &Context) {
    let limits = &context.runtime.limits;
    keep_alive::serve_on(session, limits.keepalive.0.as_secs().max(1));
    let old = is_old(session.req_header());
    session.set_ignore_info_resp(old);
    let timed = context.kind == RequestKind::Ordinary;
    session.set_read_timeout((timed && !context.uninvited).then_some(limits.first_read()));
    session.set_write_timeout((context.kind != RequestKind::Grpc).then_some(limits.stall.0));
    session.set_total_drain_timeout(Some(limits.stall.0));
}

/// Takes a request for another protocol for an ordinary one, as any server may (RFC 9110 §7.8).
pub(crate) fn ignore_upgrade(session: &mut Session, context: &mut Context) {
    session.req_header_mut().remove_header(&header::UPGRADE);
    context.kind = RequestKind::Ordinary;
    let limits = &context.runtime.limits;
    if let Some(info) = &context.info {
        info.deadlines.limit_writes(Some(limits.stall.0), limits.body_rate);
    }
}

/// From now on only silence in both directions ends the connection.
pub(crate) fn open_tunnel(session: &mut Session, context: &Context) {
    session.set_read_timeout(None);
    session.set_write_timeout(None);
    if let (Some(info), Some(service)) = (&context.info, context.service()) {
        info.deadlines.limit_writes(None, 0);
        info.deadlines.end_by(None);
        info.deadlines.limit_silence(service.timeouts().idle.0);
        info.switch_protocols();
    }
}

/// True for a request over HTTP/2.
pub(crate) fn is_http2(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_2
}

/// HTTP/2 clients may send a cookie in several fields; whoever speaks HTTP/1.1 knows one only (RFC 9113 §8.2.3).
fn join_cookies(head: &mut RequestHeader) {
    let mut crumbs = head.headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let all = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    // A line without any would leave a space at an end.
    let all: Vec<&[u8]> = all.filter(|crumb| !crumb.is_empty()).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
        && let Err(e) = head.insert_header(header::COOKIE, joined)
    {
        log::debug!("joining cookies: {e}");
    }
}

/// True for a client that speaks HTTP/1.0: it knows neither chunks nor interim answers (RFC 9112 §7.1, RFC 9110 §15.2).
pub(crate) fn is_old(head: &RequestHeader) -> bool {
    head.version == Version::HTTP_10
}

/// True when a client wants to be told that it may send the body (RFC 9110 §10.1.1).
fn expects(head: &RequestHeader) -> bool {
    fields::has(&head.headers, &header::EXPECT, |what| what.eq_ignore_ascii_case(b"100-continue"))
}

/// True when a client closes after this request.
fn closes(head: &RequestHeader) -> bool {
    fields::has(&head.headers, &header::CONNECTION, |name| name.eq_ignore_ascii_case(b"close"))
}
