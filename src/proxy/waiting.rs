//! Waiting on behalf of a client: in a queue, or between two attempts. It ends when the client leaves, so that nobody
//! waits for a place, and no backend works, for somebody who is gone.

use std::time::{Duration, Instant};

use http::header;
use pingora::{Error, ErrorType, proxy::Session};

use super::{context::Context, request::is_http2};
use crate::{
    downstream::ConnectionInfo,
    message::{replies, reply::Reply},
    proxy::kind::RequestKind,
    upstream::choice::SelectError,
};

/// The most of a body that is read while its request waits: what Pingora keeps for a further attempt (v1/common.rs), which
/// is how it then gets to the first one.
const MOST_KEPT: u64 = 64 << 10;

/// How often it is asked whether a client has hung up that is not read from.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for a place on the route and at the service; the answer, when there is none.
///
/// # Errors
/// The client has left.
pub(super) async fn take_permits(session: &mut Session, context: &mut Context) -> pingora::Result<Option<Reply>> {
    let (Some(route), Some(service)) = (context.route.clone(), context.service()) else { return Ok(None) };
    for (place, concurrency) in [route.concurrency.as_ref(), service.resilience.concurrency()].into_iter().enumerate() {
        let Some(concurrency) = concurrency else { continue };
        context.permits[place] = concurrency.try_enter();
        if context.permits[place].is_some() {
            continue;
        }
        let before = context.held;
        // Boxed: whoever finds a place at once must not carry the waiting around.
        let Some(permit) = Box::pin(unless_left(session, context, concurrency.enter())).await? else {
            return Ok(Some(replies::too_late(context.out_of_time())));
        };
        match permit {
            Ok(permit) => context.permits[place] = Some(permit),
            Err(busy) if place == 0 => return Ok(Some(SelectError::of_route(busy))),
            Err(busy) => return Ok(Some(SelectError::Overloaded(busy).reply())),
        }
        // The service's setting holds for what comes after the permit too.
        if place == 1 {
            context.attempts.waited = context.held.saturating_sub(before);
        }
    }
    Ok(None)
}

/// Waits for `what`, as long as the client is there; nothing when the time for the whole request ends first.
///
/// # Errors
/// The client has left.
pub(super) async fn unless_left<T>(
    session: &mut Session,
    context: &mut Context,
    what: impl Future<Output = T>,
) -> pingora::Result<Option<T>> {
    // What an attempt before this one had to keep to is over.
    if let Some(deadlines) = context.deadlines() {
        deadlines.reset();
    }
    // An upgraded client may speak its new protocol at once, and nothing of that may be read here.
    let (unread, begun) = (context.kind == RequestKind::Upgrade, Instant::now());
    let deadline = context.deadline;
    let late = async move {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    // What is read meanwhile is read ahead of its time: nothing is asked of the client that it could be late with.
    let limit = session.as_downstream().get_read_timeout();
    session.set_read_timeout(None);
    let outcome = tokio::select! {
        biased;
        done = what => Ok(Some(done)),
        () = late => Ok(None),
        gone = async { if unread { hung_up(session).await } else { left(session).await } } => Err(gone),
    };
    session.set_read_timeout(limit);
    context.held += begun.elapsed();
    outcome
}

/// Resolves when the client of an HTTP/1 connection goes away, and reads nothing of what it has sent.
async fn hung_up(session: &Session) -> Box<Error> {
    let info = ConnectionInfo::of(session).cloned();
    while !info.as_ref().is_some_and(|info| info.has_hung_up()) {
        tokio::time::sleep(PAUSE).await;
    }
    Error::explain(ErrorType::ConnectionClosed, "the client left").into_down()
}

/// Resolves when the client goes away. Over HTTP/1 that is seen at the end of its request, so a body is read; one that may
/// be too long to be kept is left alone.
pub(super) async fn left(session: &mut Session) -> Box<Error> {
    let length = session.req_header().headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let http2 = is_http2(session);
    let downstream = session.as_downstream_mut();
    let long = !downstream.is_body_done() && length.is_none_or(|length| length > MOST_KEPT);
    // Over HTTP/2 the end of a request can be told from the rest of its body.
    if long && !http2 {
        return hung_up(session).await;
    }
    downstream.enable_retry_buffering();
    while !long && !downstream.is_body_done() {
        match downstream.read_request_body().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => return error.into_down(),
        }
    }
    match downstream.read_body_or_idle(true).await {
        Err(error) => error.into_down(),
        // Nothing but the end can come.
        Ok(_) => Error::explain(ErrorType::ConnectionClosed, "the client left").into_down(),
    }
}
