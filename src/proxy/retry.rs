//! Attempts at backends: where the next one goes, whether a failed one is repeated, and what the service learns.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{HeaderName, Method, StatusCode};
use pingora::{Error, ErrorType, http::ResponseHeader, proxy::Session};

use super::{context::Context, reply};
use crate::{
    clock::Now,
    proxy::attempts::{Attempts, FreeRepeat, Phase},
    upstream::{
        AttemptOutcome, FailureKind, Service, choice::Choice, failure_kind::local_cause,
        settings::resilience::RetryConfig,
    },
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A backend that breaks off an answer whose client was waited for longer than this is not blamed for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a request is repeated: as its route says, else as its service does.
pub(super) fn policy<'c>(context: &'c Context, service: &'c Service) -> &'c RetryConfig {
    context.route.as_ref().and_then(|route| route.retry.as_ref()).unwrap_or(service.retry())
}

/// The whole of the request has been sent: now the backend's time runs.
pub(crate) fn sent(context: &mut Context) {
    let bounded_here = context.attempts.is_sending();
    context.attempts.phase = Phase::Sent;
    if bounded_here {
        context.attempts.sent = Some(Instant::now());
    }
    let Attempts { tickets, backend, suspended, .. } = &mut context.attempts;
    if let (Some(tickets), Some(backend), Some(target), true) = (tickets, backend, &context.target, *suspended) {
        *suspended = false;
        target.service.resilience.resume(backend, tickets, Now::monotonic());
    }
    if bounded_here && let (Some(deadlines), Some(target)) = (context.deadlines(), &context.target) {
        deadlines.limit_silence(target.service.timeouts().read.0);
    }
}

/// How a failed attempt counts. What the client, or a time limit of the whole request, has brought about says nothing
/// about the backend.
fn blame(context: &Context, service: &Service, failure: FailureKind) -> AttemptOutcome {
    let unsent = failure != FailureKind::Connect && context.attempts.phase != Phase::Sent;
    let own = match failure {
        FailureKind::Connect => service.timeouts().connect.0,
        FailureKind::Timeout => service.timeouts().read.0,
        FailureKind::Reset | FailureKind::Status(_) => {
            // Whoever waits long for a client that does not read may give up (nginx's `send_timeout`).
            let unread = context.deadlines().is_some_and(|deadlines| deadlines.read_slowly() >= PATIENCE);
            return if unsent || context.attempts.first_byte.is_some() && unread {
                AttemptOutcome::Unknown
            } else {
                AttemptOutcome::Failed(failure)
            };
        }
    };
    let waited = context.attempts.waited_for_backend(failure == FailureKind::Connect);
    let over = context.remaining().is_some_and(|left| left.is_zero());
    let cut_short = over && (context.attempts.first_byte.is_some() || waited < own);
    if unsent || cut_short { AttemptOutcome::Unknown } else { AttemptOutcome::Failed(failure) }
}

/// After an attempt that was dropped because it has lasted too long.
pub(crate) fn cut_off(context: &mut Context, service: &Service) {
    // How another protocol's conversation ends says nothing about the backend.
    if context.written == Some(StatusCode::SWITCHING_PROTOCOLS) {
        return;
    }
    if context.attempts.first_byte.is_some() {
        context.attempts.reopen();
    }
    let outcome = blame(context, service, FailureKind::Timeout);
    context.attempts.record_outcome(service, outcome);
}

/// After a connection that did not come about: true when another attempt follows.
pub(crate) fn not_connected(session: &Session, context: &mut Context, service: &Service, error: &Error) -> bool {
    context.attempts.note_failed();
    // What this machine has run out of is no backend's doing.
    let outcome = match local_cause(error) {
        Some(_) => AttemptOutcome::Unknown,
        None => blame(context, service, FailureKind::Connect),
    };
    context.attempts.record_outcome(service, outcome);
    again(session, context, service, FailureKind::Connect)
}

/// After a connection for an upgrade that did not come about: true when that is because its backend speaks HTTP/2 alone,
/// which has no upgrades. That is not its fault, and there is another attempt for nothing.
pub(crate) fn no_http1(context: &mut Context, service: &Service, error: &Error) -> bool {
    let attempts = &mut context.attempts;
    let Some(backend) = attempts.backend.as_ref().filter(|backend| backend.agrees_on_http2()) else { return false };
    // What a server says that shares no protocol with us (RFC 7301 §3.2); every other failure is the backend's own.
    let refused =
        *error.etype() == ErrorType::TLSHandshakeFailure && error.to_string().contains("NoApplicationProtocol");
    if !refused || attempts.free != FreeRepeat::Unused {
        return false;
    }
    backend.speaks_http2_alone();
    attempts.record_outcome(service, AttemptOutcome::Unknown);
    attempts.place = None;
    attempts.free = FreeRepeat::Due;
    attempts.count = attempts.count.saturating_sub(1);
    true
}

/// After an attempt that was connected and broke off: true when another one follows. `reused`: the connection had been
/// kept from an earlier request.
pub(crate) fn broke(session: &Session, context: &mut Context, service: &Service, error: &Error, reused: bool) -> bool {
    if let Some(status) = context.attempts.discarded.take() {
        context.attempts.note_failed();
        context.attempts.record_outcome(service, AttemptOutcome::Answered(status));
        // That it is repeated, and where, was decided, and paid for, when its answer was discarded.
        return true;
    }
    let Some(failure) = FailureKind::of(error) else {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        return false;
    };
    // A kept connection that the backend closes says nothing about the backend: both may have closed at once. One such
    // attempt is repeated for nothing, and elsewhere: the backend may have closed because it is gone.
    let stale = reused && failure == FailureKind::Reset && context.attempts.first_byte.is_none();
    context.attempts.note_failed();
    if stale {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        return free_repeat(session, context) || again(session, context, service, failure);
    }
    if context.attempts.first_byte.is_some() {
        // It was booked as a success when its head came.
        context.attempts.reopen();
    }
    let outcome = blame(context, service, failure);
    context.attempts.record_outcome(service, outcome);
    again(session, context, service, failure)
}

/// True when an attempt that ran into a dead connection is repeated for nothing: the first time, if doing it twice does
/// no harm.
pub(crate) fn free_repeat(session: &Session, context: &mut Context) -> bool {
    let unused = context.attempts.free == FreeRepeat::Unused;
    let free = unused && idempotent(&session.req_header().method) && replayable(session, context);
    context.attempts.free = if free { FreeRepeat::Due } else { FreeRepeat::Used };
    if free {
        context.attempts.count = context.attempts.count.saturating_sub(1);
    }
    free
}

/// Looks at the status of an answer before the client does.
///
/// # Errors
/// Discards the answer: another attempt follows.
pub(crate) fn answered(
    session: &Session,
    context: &mut Context,
    service: &Service,
    head: &ResponseHeader,
) -> pingora::Result<()> {
    let status = head.status.as_u16();
    let repeats = status >= 400 && may_repeat(session, context, service, FailureKind::Status(status));
    // It may have opened a breaker, and then there is nowhere to go.
    context.attempts.record_head(service, status);
    if repeats && reserve(session, context, service) {
        context.attempts.discarded = Some(status);
        return Err(Error::explain(ErrorType::HTTPStatus(status), "another attempt follows").into_up());
    }
    Ok(())
}

/// Finds a backend for another attempt while there is still an answer to fall back on; true when there is one, and the
/// budget allows it.
fn reserve(session: &Session, context: &mut Context, service: &Service) -> bool {
    let (head, now) = (session.req_header(), Now::monotonic());
    let leaves = context.attempts.backend.as_ref().map(|backend| backend.address);
    let tried: Vec<SocketAddr> = context.attempts.tried.iter().copied().chain(leaves).collect();
    let choice = Choice { leaves, ..Choice::new(head, context.state.client, &tried, now) };
    let Ok(chosen) = service.choose(&choice) else { return false };
    if !service.resilience.may_retry(now) {
        service.resilience.give_back(&chosen.backend, chosen.tickets);
        return false;
    }
    context.attempts.reserved = Some(chosen);
    true
}

/// True when a failed attempt is repeated. Takes it out of the budget.
pub(crate) fn again(session: &Session, context: &Context, service: &Service, failure: FailureKind) -> bool {
    may_repeat(session, context, service, failure) && service.resilience.may_retry(Now::monotonic())
}

/// True when a failed attempt could be repeated, as far as the request and its settings go.
fn may_repeat(session: &Session, context: &Context, service: &Service, failure: FailureKind) -> bool {
    let policy = policy(context, service);
    let head = session.req_header();
    // Nothing of a request is sent before there is a connection.
    let harmless = failure == FailureKind::Connect
        || idempotent(&head.method)
        || policy.idempotency_key && head.headers.contains_key(IDEMPOTENCY_KEY);
    context.attempts.count < policy.max_attempts
        && policy.on.contains(&failure)
        && harmless
        && replayable(session, context)
        && context.remaining().is_none_or(|left| !left.is_zero())
}

/// Methods that do the same when they are done twice (RFC 9110 §9.2.2).
pub(crate) fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// True when the request can be sent once more: all of its body that was sent is still there (Pingora keeps 64 KiB), and
/// the client has seen nothing of an answer.
fn replayable(session: &Session, context: &Context) -> bool {
    let untouched = context.attempts.first_byte.is_none() && reply::is_open(session);
    untouched && !session.as_downstream().retry_buffer_truncated()
}
