//! The backend of the next attempt: chosen, waited for, and bounded in time.

use std::time::Duration;

use pingora::{Error, prelude::HttpPeer, proxy::Session};

use super::{context::Context, request, retry::policy, waiting};
use crate::{
    clock::Now,
    downstream::StreamDeadlines,
    message::{replies, reply::Reply},
    proxy::{
        attempts::{Attempts, FreeRepeat, Phase},
        kind::RequestKind,
    },
    runtime::Shared,
    upstream::{
        Service,
        choice::{Choice, Chosen, SelectError},
    },
};

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
    let free = context.attempts.free == FreeRepeat::Due;
    let again = !free && context.attempts.count > 0;
    if free {
        context.attempts.free = FreeRepeat::Used;
    } else if again {
        let wait = policy(context, service).backoff.backoff().wait(context.attempts.count, fastrand::u64(..));
        let wait = context.remaining().map_or(wait, |left| wait.min(left));
        if !wait.is_zero() {
            let pause = waiting::unless_left(session, context, tokio::time::sleep(wait));
            Box::pin(pause).await.map_err(Stop::Left)?;
        }
    }
    let peer = begin(shared, session, context, service).await?;
    if again {
        service.metrics.retries.inc();
    }
    Ok(peer)
}

/// Begins an attempt at a backend that will have it.
async fn begin(
    shared: &Shared,
    session: &mut Session,
    context: &mut Context,
    service: &Service,
) -> Result<Box<HttpPeer>, Stop> {
    loop {
        if context.remaining().is_some_and(|left| left.is_zero()) {
            return Err(Stop::reply(replies::too_late(context.out_of_time())));
        }
        let chosen = match context.attempts.reserved.take() {
            Some(chosen) => chosen,
            None => select(session, context, service).await?,
        };
        let (backend, of_service) = (chosen.backend.address, chosen.tickets.service.is_some());
        match connect(shared, session, context, service, chosen) {
            Ok(peer) => return Ok(peer),
            // Its own breaker is half-open and has no room for another body: others may be well.
            Err(_) if !of_service && !context.attempts.tried.contains(&backend) => context.attempts.tried.push(backend),
            Err(none) => return Err(Stop::reply(none.reply())),
        }
    }
}

/// A backend for the next attempt.
async fn select(session: &mut Session, context: &mut Context, service: &Service) -> Result<Chosen, Stop> {
    // Read once for requests that have come this far without waiting.
    let fresh = context.attempts.count == 0 && context.held.is_zero();
    let now = if fresh { context.now.since_start } else { Now::monotonic() };
    let choice = Choice::new(session.req_header(), context.state.client, &context.attempts.tried, now);
    let chosen = match service.choose(&choice) {
        Err(SelectError::Overloaded(_)) => {
            let waited = Box::pin(wait_for_room(session, context, service, now)).await;
            waited.map_err(Stop::Left)?.ok_or_else(|| Stop::reply(replies::too_late(context.out_of_time())))?
        }
        chosen => chosen,
    };
    chosen.map_err(|none| Stop::reply(none.reply()))
}

/// The peer of an attempt at the backend that was chosen.
///
/// # Errors
/// The attempt would be a probe, and there are enough whose requests are still being sent.
fn connect(
    shared: &Shared,
    session: &mut Session,
    context: &mut Context,
    service: &Service,
    chosen: Chosen,
) -> Result<Box<HttpPeer>, SelectError> {
    let remaining = context.remaining();
    if context.kind == RequestKind::Upgrade && !chosen.backend.can_switch_protocols() {
        request::ignore_upgrade(session, context);
    }
    let upgrade = context.kind == RequestKind::Upgrade;
    let mut peer = chosen.backend.peer(remaining, upgrade);
    // A request without a body is one small write: no timer for that.
    let empty = session.is_body_empty();
    if empty {
        peer.options.write_timeout = None;
    }
    context.attempts.begin(chosen);
    bound(empty, context, service, &mut peer).inspect_err(|_| context.attempts.withdraw())?;
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
    let Attempts { tickets, backend, suspended, .. } = &mut context.attempts;
    if let (Some(tickets), Some(backend), true) = (tickets, backend, body) {
        *suspended = service.resilience.suspend(backend, tickets, Now::monotonic())?;
    }
    context.attempts.phase = Phase::Sending { bounded_here };
    let blocked = context.deadlines().map_or(Duration::ZERO, StreamDeadlines::take_blocked);
    context.held += blocked;
    let Some(deadlines) = context.deadlines() else { return Ok(()) };
    deadlines.reset();
    if !bounded_here {
        deadlines.end_by(context.last_call());
        return Ok(());
    }
    deadlines.end_by(context.deadline);
    peer.options.read_timeout = None;
    if upgrade {
        // Until the backend agrees, its ordinary patience counts.
        deadlines.limit_silence(service.timeouts().read.0);
    } else {
        if context.kind == RequestKind::Grpc {
            deadlines.limit_silence(service.timeouts().idle.0);
        }
        if context.uninvited {
            // Until the backend asks for the body, it is the backend that is waited for.
            deadlines.limit_silence(service.timeouts().read.0);
        }
    }
    Ok(())
}

/// There is a connection: from now on an exchange with a body, or one that may become a tunnel, is bounded as a whole.
pub(super) fn connected(context: &mut Context) {
    if !context.attempts.is_sending() {
        return;
    }
    if let (Some(deadlines), Some(target)) = (context.deadlines(), &context.target) {
        deadlines.limit_unread(target.service.timeouts().unread());
        deadlines.watch(true);
    }
}

/// A backend for the request, when all are full for the moment.
async fn wait_for_room(
    session: &mut Session,
    context: &mut Context,
    service: &Service,
    now: Duration,
) -> pingora::Result<Option<Result<Chosen, SelectError>>> {
    // Copies: the session is busy with looking after the client.
    let (head, tried, mut waited) =
        (session.req_header().clone(), context.attempts.tried.clone(), context.attempts.waited);
    let choice = Choice::new(&head, context.state.client, &tried, now);
    let chosen = waiting::unless_left(session, context, service.wait_for_room(choice, &mut waited)).await;
    context.attempts.waited = waited;
    chosen
}
