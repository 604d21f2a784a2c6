//! How fast a request's body must come: within a total time, at a least average rate, never silent for too long. Each
//! is enforced by the time that the next read may take, so that a client which sends a byte now and then gains nothing.

use std::time::Duration;

use bytes::Bytes;
use http::{Version, header};
use pingora::{Error, http::RequestHeader, proxy::Session};

use super::context::Context;
use crate::{
    downstream::limits::ClientLimits,
    message::{replies, reply::Reply, source::ResponseSource},
    proxy::{error, kind::RequestKind, retry, subrequest::mirror},
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
    if let Some(patience) = context.patience() {
        patience.look_away();
    }
    if session.was_upgraded() {
        // Bytes of another protocol.
        return Ok(());
    }
    invite(session, context);
    if let Some(patience) = context.patience() {
        // The backend did not read: nothing was asked of the client.
        let blocked = patience.take_blocked();
        if !end {
            patience.hand_on();
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

/// The client is told to send its body, or sends it unasked: its time begins.
pub(super) fn invite(session: &mut Session, context: &mut Context) {
    if !std::mem::take(&mut context.uninvited) {
        return;
    }
    context.held = context.start.elapsed();
    if let Some(patience) = context.patience() {
        patience.allow_silence();
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
    match patience(
        &context.runtime.limits,
        context.start.elapsed().saturating_sub(context.held),
        context.state.body_seen,
    ) {
        Some(time) => {
            session.set_read_timeout(Some(time));
            Ok(())
        }
        None => Err(replies::too_slow().closing()),
    }
}

/// How long the next read may take, `elapsed` after the head (less what the gateway took), when `seen` bytes have come;
/// `None`: it is too late.
fn patience(limits: &ClientLimits, elapsed: Duration, seen: u64) -> Option<Duration> {
    let mut patience = limits.stall.0;
    if let Some(total) = limits.body {
        patience = patience.min(total.0.checked_sub(elapsed).filter(|left| !left.is_zero())?);
    }
    if limits.body_rate > 0 {
        // By this time, what has come is too little.
        let earned = Duration::from_millis(seen.saturating_mul(1000) / u64::from(limits.body_rate));
        let due = limits.stall.0.saturating_add(earned);
        patience = patience.min(due.checked_sub(elapsed).filter(|left| !left.is_zero())?);
    }
    Some(patience)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_shortest_limit_counts() {
        let mut limits = ClientLimits { stall: Span(10 * S), body: None, body_rate: 0, ..ClientLimits::default() };
        assert_eq!(patience(&limits, 100 * S, 0), Some(10 * S));
        limits.body = Some(Span(15 * S));
        assert_eq!(patience(&limits, S, 0), Some(10 * S));
        assert_eq!(patience(&limits, 12 * S, 0), Some(3 * S));
        assert_eq!(patience(&limits, 15 * S, 0), None);
        limits.body = None;
        limits.body_rate = 100;
        assert_eq!(patience(&limits, 5 * S, 0), Some(5 * S), "nothing in the first 10 seconds");
        assert_eq!(patience(&limits, 12 * S, 500), Some(3 * S), "500 bytes are good for 5 seconds more");
        assert_eq!(patience(&limits, 16 * S, 500), None);
        assert_eq!(patience(&limits, 16 * S, u64::MAX), Some(10 * S));
    }
}
