//! A backend's answer on its way to the client, whichever way it was fetched.

use std::time::Instant;

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::{Error, ErrorType, http::ResponseHeader, proxy::Session};

use super::{compression, context::Context, keep_alive, request};
use crate::{
    cache::targeted::TOLLGATE_CACHE_CONTROL,
    downstream::h1::head::HeaderNames,
    message::{edit::forget_spelling, grpc, hop_by_hop, source::ResponseSource},
    proxy::{cached::arrival, kind::RequestKind},
    runtime::Shared,
    upstream::response::verify,
};

/// Looks at the head of the final answer as the backend sent it.
///
/// # Errors
/// It is none that could be handed on.
pub(super) fn begin(head: &mut ResponseHeader, context: &Context) -> pingora::Result<()> {
    verify(head, context.kind == RequestKind::Upgrade)?;
    rename(head, context)
}

/// Sees to it that the names of its fields are written as `header_names` says.
///
/// # Errors
/// Its reason phrase cannot be kept.
pub(super) fn rename(head: &mut ResponseHeader, context: &Context) -> pingora::Result<()> {
    match context.runtime.header_names {
        HeaderNames::Canonical => forget_spelling(head),
        HeaderNames::AsSent => Ok(()),
    }
}

/// Says how long what follows the head may take: the rest of the request, and the body of an upgrade that was not granted.
fn bound_body(context: &Context) {
    let Some(deadlines) = context.deadlines() else { return };
    deadlines.end_by(context.deadline);
    let Some(target) = &context.target else { return };
    let (timeouts, limits) = (target.service.timeouts(), &context.runtime.limits);
    // It has begun to answer before it has read everything: that may take as long as reading by a client may.
    if deadlines.is_watched() && context.attempts.is_sending() {
        deadlines.limit_unread(timeouts.unread().map(|own| own.max(limits.stall.0)));
    }
    // An upgrade that was asked for and not granted is an ordinary exchange from here on.
    if context.kind == RequestKind::Upgrade {
        deadlines.limit_silence(timeouts.read.0);
        deadlines.limit_writes(Some(limits.stall.0), limits.body_rate);
    }
}

/// Takes over the head of the final answer.
///
/// # Errors
/// A field cannot be set.
pub(super) fn head(
    shared: &Shared,
    session: &mut Session,
    head: &mut ResponseHeader,
    context: &mut Context,
) -> pingora::Result<()> {
    (context.answered_by, context.written) = (ResponseSource::Upstream, Some(head.status));
    // Read once, when the attempt was booked a moment ago.
    context.attempts.first_byte = context.attempts.settled.or_else(|| Some(Instant::now()));
    if shared.draining() {
        keep_alive::end(session);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        request::open_tunnel(session, context);
    } else {
        bound_body(context);
    }
    if context.kind == RequestKind::Grpc {
        context.grpc_status = grpc::said(&head.headers);
    }
    hop_by_hop::strip_response(head);
    if request::is_old(session.req_header()) && head.remove_header(&header::TRANSFER_ENCODING).is_some() {
        // It would take chunks for the body: there, the end of the connection is the end of the body.
        keep_alive::end(session);
    }
    if let (Some(target), Some(backend)) = (&context.target, &context.attempts.backend)
        && let Some(cookie) = target.service.set_cookie(backend, &session.req_header().headers, context.origin.secure)
    {
        head.append_header(header::SET_COOKIE, cookie)?;
    }
    if let Some(route) = &context.route {
        route.chain.response(head, &mut context.state);
    }
    // It is said to this gateway, on routes without a cache too.
    if head.headers.contains_key(TOLLGATE_CACHE_CONTROL) {
        head.remove_header(&TOLLGATE_CACHE_CONTROL);
    }
    if let Some(cached) = &context.cached {
        cached.say(head)?;
        if cached.serves() {
            // Its body does not come this way.
            context.answered_by = ResponseSource::Cache;
            let terms = context.state.compress.take();
            return terms.map_or(Ok(()), |terms| compression::instead(session.req_header(), head, &terms, context));
        }
    }
    let compressed = match context.state.compress.take() {
        Some(terms) => compression::begin(session, head, terms)?,
        None => false,
    };
    if context.cached.is_some() {
        let changed = context.route.as_ref().is_some_and(|route| route.chain.wants_response_body());
        // Of two attempts there is one way to the client, which writes each part before it reads the next.
        let hedged = context.target.as_ref().is_some_and(|target| target.service.resilience.hedges());
        arrival::begun(head, !compressed && !changed && !hedged, context);
    }
    Ok(())
}

/// Looks at the next part of its body.
///
/// # Errors
/// The time for the whole answer is over.
pub(super) fn body(
    session: &mut Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> pingora::Result<()> {
    context.sent += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
    if session.was_upgraded() {
        return Ok(());
    }
    if context.remaining().is_some_and(|left| left.is_zero()) && !end {
        return Err(Error::explain(ErrorType::ReadTimedout, "total time is over").into_up());
    }
    if let Some(route) = &context.route
        && route.chain.wants_response_body()
    {
        route.chain.response_chunk(body, end, &mut context.state);
    }
    Ok(())
}
