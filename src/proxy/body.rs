//! How fast a request's body must come: within a total time, at a least average rate, never silent for too long. Each
//! is enforced by the time that the next read may take, so that a client which sends a byte now and then gains nothing.

use std::sync::Arc;

use bytes::Bytes;
use http::{Version, header};
use pingora::{Error, http::RequestHeader, proxy::Session};

use super::context::Context;
use crate::{
    message::{replies, reply::Reply, source::ResponseSource},
    proxy::{error, kind::RequestKind, retry, subrequest::mirror},
    routing::route::Route,
    runtime::Shared,
};

/// Looks at the next part of a request's body on its way to the backend.
///
/// # Errors
/// It is refused: too slow, or a step of the chain objects.
pub(super) fn pass(
    shared: &Shared,
    session: &mut Session,
    body: &mut Option<Bytes>,
    end: bool,
    context: &mut Context,
) -> pingora::Result<()> {
    if let Some(deadlines) = context.deadlines() {
        deadlines.look_away();
    }
    if session.was_upgraded() {
        // Bytes of another protocol.
        return Ok(());
    }
    invite(session, context);
    if let Some(deadlines) = context.deadlines() {
        // The backend did not read: nothing was asked of the client.
        let blocked = deadlines.take_blocked();
        if !end {
            deadlines.hand_on();
        }
        context.held += blocked;
    }
    context.state.body_seen += body.as_ref().map_or(0, |chunk| chunk.len() as u64);
    if end {
        retry::sent(context);
    }
    if !end && let Err(reply) = keep(session, context) {
        return error::refuse_body(context, reply, ResponseSource::Gateway);
    }
    let refused = match &context.route {
        Some(route) if route.chain.wants_request_body() => route.chain.request_chunk(body, end, &mut context.state),
        _ => None,
    };
    if let Some(refusal) = refused {
        return error::refuse_body(context, *refusal.reply, ResponseSource::Filter(refusal.by));
    }
    mirror::take(shared, session.req_header(), body.as_ref(), end, context);
    Ok(())
}

/// Reads the body of a request that its route answers by itself, where a step of the chain has something to say of bodies.
///
/// # Errors
/// It is refused, or the client has left.
pub(super) async fn judge(
    shared: &Shared,
    session: &mut Session,
    by: ResponseSource,
    context: &mut Context,
) -> pingora::Result<()> {
    let is_asked = |route: &Arc<Route>| route.answers() && route.chain.wants_request_body();
    // A refusal stands whatever the body is.
    if by != ResponseSource::Gateway || !context.state.has_body || !context.route.as_ref().is_some_and(is_asked) {
        return Ok(());
    }
    if context.uninvited {
        session.as_downstream_mut().write_continue_response().await.map_err(Error::into_down)?;
    }
    invite(session, context);
    loop {
        let mut part = session.as_downstream_mut().read_request_body().await.map_err(Error::into_down)?;
        let end = part.is_none() || session.as_downstream_mut().is_body_done();
        pass(shared, session, &mut part, end, context)?;
        if end {
            // What it was asked to wait for has come: the connection serves on.
            session.req_header_mut().remove_header(&header::EXPECT);
            return Ok(());
        }
    }
}

/// The client is told to send its body, or sends it unasked: its time begins.
pub(super) fn invite(session: &mut Session, context: &mut Context) {
    if !std::mem::take(&mut context.uninvited) {
        return;
    }
    context.held = context.start.elapsed();
    if let Some(deadlines) = context.deadlines() {
        deadlines.allow_silence();
    }
    session.set_read_timeout(Some(context.runtime.limits.first_read()));
}

/// Invites the client to send its body, when the backend speaks HTTP/2: what such a backend says before its answer is lost
/// (Pingora's client has no interim answers), so nothing would ever invite it.
///
/// # Errors
/// The client cannot be told.
pub(super) async fn invite_for_http2(
    session: &mut Session,
    head: &mut RequestHeader,
    context: &mut Context,
) -> pingora::Result<()> {
    if head.version != Version::HTTP_2 || head.remove_header(&header::EXPECT).is_none() || !context.uninvited {
        return Ok(());
    }
    session.as_downstream_mut().write_continue_response().await.map_err(Error::into_down)?;
    invite(session, context);
    Ok(())
}

/// Sets the time for the next read of the body.
///
/// # Errors
/// 408, when the body has been too slow already.
fn keep(session: &mut Session, context: &Context) -> Result<(), Reply> {
    if context.kind != RequestKind::Ordinary {
        session.set_read_timeout(None);
        return Ok(());
    }
    match context
        .runtime
        .limits
        .next_read(context.start.elapsed().saturating_sub(context.held), context.state.body_seen)
    {
        Some(time) => {
            session.set_read_timeout(Some(time));
            Ok(())
        }
        None => Err(replies::too_slow().closing()),
    }
}
