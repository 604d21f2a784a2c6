//! What is written down of a request when it has ended: counters, the chain's notes, the access log.

use pingora::{Error, proxy::Session};

use super::{context::Context, error};
use crate::{filter::RequestOutcome, proxy::access_line, runtime::Shared, upstream::AttemptOutcome};

/// Counts and logs a request that has ended, however it did.
pub(crate) fn record(shared: &Shared, session: &Session, error: Option<&Error>, context: &mut Context) {
    let late = context.late().is_some();
    context.at_service(|service, context| {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        context.attempts.give_up(service);
    });
    context.error = if late { Some("ReadTimedout".to_owned()) } else { error.and_then(error::word) };
    let metrics = &shared.metrics.requests;
    let written = context.http_status_before_grpc.or_else(|| session.response_written().map(|head| head.status));
    let written = written.map(|status| status.as_u16());
    let left = !late && error.is_some_and(error::client_left);
    if left {
        metrics.canceled.inc();
    }
    // 499: the client went away before there was a status to send (nginx's number for it).
    let status = written.unwrap_or(if left { 499 } else { 0 });
    let duration = context.start.elapsed();
    let sent = session.body_bytes_sent();
    metrics.sent.inc_by(sent as u64);
    metrics.received.inc_by(session.body_bytes_read() as u64);
    if let Some(route) = &context.route {
        let metrics = context.target.as_ref().map_or(&route.metrics, |target| &target.metrics);
        metrics.count(context.method, status);
        metrics.duration.observe(duration.as_secs_f64());
        route.chain.log(&context.state, &RequestOutcome { status, duration, sent });
    } else {
        metrics.unrouted(context.method, status, duration);
    }
    if let Some(log) = &*shared.access_log.load() {
        log.line(|out| access_line::write(out, &context.runtime.access, session, context, status, duration));
    }
}
