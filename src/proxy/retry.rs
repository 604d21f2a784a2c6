//! Attempts at backends: where the next one goes, whether a failed one is repeated, and what the service learns.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use http::{HeaderName, Method};
use pingora::{
    Error, ErrorType,
    http::{RequestHeader, ResponseHeader},
    prelude::HttpPeer,
    proxy::Session,
};

use super::{context::Context, reply, waiting};
use crate::{
    clock::Now,
    message::{replies, reply::Reply},
    proxy::{
        attempts::{Attempts, FreeRepeat, Phase},
        kind::RequestKind,
    },
    runtime::Shared,
    upstream::{
        AttemptOutcome, FailureKind, Service,
        choice::{Choice, Chosen, SelectError},
        settings::resilience::RetryConfig,
    },
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How a request is repeated: as its route says, else as its service does.
fn policy<'c>(context: &'c Context, service: &'c Service) -> &'c RetryConfig {
    context.route.as_ref().and_then(|route| route.retry.as_ref()).unwrap_or(&service.retry)
}

/// Why there is no further attempt.
pub(crate) enum Stop {
    /// This is to be answered.
    Reply(Box<Reply>),
    /// The client has left.
    Left(Box<Error>),
}

impl Stop {
    fn reply(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

/// The peer of the next attempt; waits before it when it is not the first.
///
/// # Errors
/// Why there is no attempt to make.
pub(crate) async fn next(
    shared: &Shared,
    session: &mut Session,
    context: &mut Context,
    service: &Service,
) -> Result<Box<HttpPeer>, Stop> {
    context.attempts.count_once(service, context.now.since_start);
    // A repeat that is free replaces an attempt: it neither waits nor counts.
    if context.attempts.free == FreeRepeat::Due {
        context.attempts.free = FreeRepeat::Used;
    } else if context.attempts.count > 0 {
        let wait = policy(context, service).backoff.backoff().wait(context.attempts.count, fastrand::u64(..));
        let wait = context.remaining().map_or(wait, |left| wait.min(left));
        if !wait.is_zero() {
            let pause = waiting::unless_left(session, context, tokio::time::sleep(wait));
            Box::pin(pause).await.map_err(Stop::Left)?;
        }
        service.metrics.retries.inc();
    }
    let remaining = context.remaining();
    if remaining.is_some_and(|left| left.is_zero()) {
        return Err(Stop::reply(replies::too_late()));
    }
    let now = if context.attempts.count == 0 { context.now.since_start } else { Now::monotonic() };
    let chosen = match service.choose(&choice(session.req_header(), context.state.client, &context.attempts.tried, now))
    {
        Err(SelectError::Overloaded) => {
            Box::pin(wait_for_room(session, context, service, now)).await.map_err(Stop::Left)?
        }
        chosen => chosen,
    };
    let chosen = chosen.map_err(|none| Stop::reply(none.reply(&service.name)))?;
    let upgrade = context.kind == RequestKind::Upgrade;
    let mut peer = chosen.backend.peer(if upgrade { None } else { remaining }, upgrade);
    // A request without a body is one small write: no timer for that.
    let empty = session.is_body_empty();
    if empty {
        peer.options.write_timeout = None;
    }
    context.attempts.begin(chosen);
    bound(empty, context, service, &mut peer).map_err(|none| {
        context.attempts.withdraw();
        Stop::reply(none.reply(&service.name))
    })?;
    Ok(match shared.tunnels.get() {
        Some(tunnels) if upgrade && empty => tunnels.peer(peer),
        _ => peer,
    })
}

/// Limits the waiting for the backend: by Pingora's timer for a request without a body, and on the client's side for one
/// that is still being sent, or that may turn into a tunnel.
///
/// # Errors
/// The attempt would be a probe, and there are enough whose requests are still being sent.
fn bound(empty: bool, context: &mut Context, service: &Service, peer: &mut HttpPeer) -> Result<(), SelectError> {
    // The body comes from its beginning, for each attempt.
    context.state.body_seen = 0;
    context.copy.begin_again();
    let (upgrade, body) = (context.kind == RequestKind::Upgrade, !empty);
    let bounded_here = upgrade || body;
    let Attempts { leave, backend, suspended, .. } = &mut context.attempts;
    if let (Some(leave), Some(backend), true) = (leave, backend, body) {
        *suspended = service.resilience.suspend(backend, leave, Now::monotonic())?;
    }
    context.attempts.phase = Phase::Sending { bounded_here };
    let Some(patience) = context.patience() else { return Ok(()) };
    patience.reset();
    if !bounded_here {
        return Ok(());
    }
    peer.options.read_timeout = None;
    if upgrade {
        // Until the backend agrees, its ordinary patience counts.
        patience.limit_silence(service.timeouts.read.0);
    } else {
        patience.end_by(context.deadline);
        if context.kind == RequestKind::Grpc {
            patience.limit_silence(service.timeouts.idle.0);
        }
        if context.uninvited {
            // Until the backend asks for the body, it is the backend that is waited for.
            patience.limit_silence(service.timeouts.read.0);
        }
    }
    Ok(())
}

/// The whole of the request has been sent: now the backend's time runs.
pub(crate) fn sent(context: &mut Context) {
    let bounded_here = context.attempts.is_sending();
    context.attempts.phase = Phase::Sent;
    if bounded_here {
        context.attempts.sent = Some(Instant::now());
    }
    let Attempts { leave, backend, suspended, .. } = &mut context.attempts;
    if let (Some(leave), Some(backend), Some(target), true) = (leave, backend, &context.target, *suspended) {
        *suspended = false;
        target.service.resilience.resume(backend, leave, Now::monotonic());
    }
    if bounded_here && let (Some(patience), Some(target)) = (context.patience(), &context.target) {
        patience.limit_silence(target.service.timeouts.read.0);
    }
}

/// How a failed attempt counts. What the client, or a time limit of the whole request, has brought about says nothing
/// about the backend.
fn blame(context: &Context, service: &Service, trouble: FailureKind) -> AttemptOutcome {
    let unsent = trouble != FailureKind::Connect && context.attempts.phase != Phase::Sent;
    let own = match trouble {
        FailureKind::Connect => service.timeouts.connect.0,
        FailureKind::Timeout => service.timeouts.read.0,
        FailureKind::Reset | FailureKind::Status(_) => {
            return if unsent { AttemptOutcome::Unknown } else { AttemptOutcome::Failed(trouble) };
        }
    };
    let waited = context.attempts.began.map_or(Duration::ZERO, |began| began.elapsed());
    let over = context.remaining().is_some_and(|left| left.is_zero());
    let cut_short = over && (context.attempts.first_byte.is_some() || waited < own);
    if unsent || cut_short { AttemptOutcome::Unknown } else { AttemptOutcome::Failed(trouble) }
}

/// What a backend is chosen by.
fn choice<'c>(head: &'c RequestHeader, client: IpAddr, tried: &'c [SocketAddr], now: Duration) -> Choice<'c> {
    Choice { client, headers: &head.headers, path: head.uri.path(), tried, now }
}

/// A backend for the request, when all are full for the moment.
async fn wait_for_room(
    session: &mut Session,
    context: &mut Context,
    service: &Service,
    now: Duration,
) -> pingora::Result<Result<Chosen, SelectError>> {
    // Copies: the session is busy with looking after the client.
    let (head, tried, mut waited) =
        (session.req_header().clone(), context.attempts.tried.clone(), context.attempts.waited);
    let choice = choice(&head, context.state.client, &tried, now);
    let chosen = waiting::unless_left(session, context, service.wait_for_room(choice, &mut waited)).await;
    context.attempts.waited = waited;
    chosen
}

/// After a connection that did not come about: true when another attempt follows.
pub(crate) fn not_connected(session: &Session, context: &mut Context, service: &Service) -> bool {
    context.attempts.note_failed();
    let outcome = blame(context, service, FailureKind::Connect);
    context.attempts.record_outcome(service, outcome);
    again(session, context, service, FailureKind::Connect)
}

/// After an attempt that was connected and broke off: true when another one follows. `reused`: the connection had been
/// kept from an earlier request.
pub(crate) fn broke(session: &Session, context: &mut Context, service: &Service, error: &Error, reused: bool) -> bool {
    if let Some(status) = context.attempts.discarded.take() {
        context.attempts.note_failed();
        context.attempts.record_outcome(service, AttemptOutcome::Answered(status));
        // That it is repeated was decided, and paid for, when its answer was discarded.
        return true;
    }
    let Some(trouble) = FailureKind::of(error) else {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        return false;
    };
    // A kept connection that the backend closes says nothing about the backend: both may have closed at once. One such
    // attempt is repeated for nothing, and elsewhere: the backend may have closed because it is gone.
    let stale = reused && trouble == FailureKind::Reset && context.attempts.first_byte.is_none();
    context.attempts.note_failed();
    if stale {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        return free_repeat(session, context) || again(session, context, service, trouble);
    }
    if context.attempts.first_byte.is_some() {
        // It was booked as a success when its head came.
        context.attempts.reopen();
    }
    let outcome = blame(context, service, trouble);
    context.attempts.record_outcome(service, outcome);
    again(session, context, service, trouble)
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
    if status >= 400 && again(session, context, service, FailureKind::Status(status)) {
        context.attempts.discarded = Some(status);
        return Err(Error::explain(ErrorType::HTTPStatus(status), "another attempt follows").into_up());
    }
    context.attempts.record_outcome(service, AttemptOutcome::Answered(status));
    Ok(())
}

/// True when a failed attempt is repeated. Takes it out of the budget.
pub(crate) fn again(session: &Session, context: &Context, service: &Service, trouble: FailureKind) -> bool {
    let policy = policy(context, service);
    let head = session.req_header();
    // Nothing of a request is sent before there is a connection.
    let harmless = trouble == FailureKind::Connect
        || idempotent(&head.method)
        || policy.idempotency_key && head.headers.contains_key(IDEMPOTENCY_KEY);
    context.attempts.count < policy.max_attempts
        && policy.on.contains(&trouble)
        && harmless
        && replayable(session, context)
        && context.remaining().is_none_or(|left| !left.is_zero())
        && service.resilience.may_retry(Now::monotonic())
}

/// Methods that do the same when they are done twice (RFC 9110 §9.2.2).
pub(crate) fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// True when the request can be sent once more: all of its body that was sent is still there (Pingora keeps 64 KiB), and
/// the client has seen nothing of an answer.
fn replayable(session: &Session, context: &Context) -> bool {
    let untouched = context.attempts.first_byte.is_none() && reply::is_open(session);
    untouched && !session.as_downstream().retry_buffer_truncated() && context.kind != RequestKind::Upgrade
}
