//! What is written down of a request when it has ended: counters, the chain's notes, the access log.

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType, http::RequestHeader, proxy::Session};

use super::{context::Context, error, failure};
use crate::{
    filter::RequestOutcome,
    message::{reason::Reason, source::ResponseSource},
    proxy::{
        access_line::{self, Ended},
        cached::arrival,
        kept_head::KeptHead,
    },
    runtime::Shared,
    upstream::AttemptOutcome,
};

/// Counts and logs a request that has ended, however it did.
pub(crate) fn record(shared: &Shared, session: &Session, error: Option<&Error>, context: &mut Context) {
    if let Some(deadlines) = context.deadlines() {
        deadlines.watch(false);
    }
    let ended = Ended {
        head: session.req_header(),
        written: session.response_written().map(|head| head.status),
        received: session.body_bytes_read() as u64,
        sent: session.body_bytes_sent() as u64,
        left: error.is_some_and(failure::client_left) && !context.is_malformed(),
    };
    if let (None, Some(error)) = (context.reason, error) {
        context.reason = Some(failure::reason(error, context));
    }
    context.error = error.and_then(error::word);
    if error.is_none() {
        // Not every end of a body is told to hooks.
        arrival::complete(shared, session.req_header(), context);
    }
    write_down(shared, &ended, context);
}

/// The same for one that was answered without a session; `error`: why not all of the answer has been written.
pub(super) fn record_direct(shared: &Shared, head: &RequestHeader, error: Option<&Error>, context: &mut Context) {
    context.error = error.map(|error| error.etype().as_str().to_owned());
    let (written, sent) = (context.written, context.sent);
    let left = error.is_some_and(|error| error.esource() != &ErrorSource::Upstream);
    write_down(shared, &Ended { head, written, received: 0, sent, left }, context);
}

/// The same for a request that was dropped in the middle; `left`: because its client has gone.
pub(super) fn record_dropped(context: &mut Context, left: bool) {
    let Some(Ok(head)) = context.kept.take().map(KeptHead::restore) else { return };
    let (written, received, sent) = (context.written, context.state.body_seen, context.sent);
    context.error = left.then(|| ErrorType::ConnectionClosed.as_str().to_owned());
    let shared = context.shared.clone();
    write_down(&shared, &Ended { head: &head, written, received, sent, left }, context);
}

fn write_down(shared: &Shared, ended: &Ended<'_>, context: &mut Context) {
    context.recorded = true;
    let late = context.late().is_some();
    context.at_service(|service, context| {
        context.attempts.record_outcome(service, AttemptOutcome::Unknown);
        context.attempts.give_up(service);
    });
    if late {
        context.error = Some("ReadTimedout".to_owned());
    }
    // That it ends is this gateway's doing, and neither the client's nor the backend's.
    let over = context.is_over();
    if over {
        (context.reason, context.error) = (Some(Reason::CertificateEnded), None);
    }
    let cut = shared.is_cut() && !over && (ended.left || context.reason == Some(Reason::Shutdown));
    let metrics = &shared.metrics.requests;
    // An interim answer is none.
    let is_answer = |status: &StatusCode| !status.is_informational() || *status == StatusCode::SWITCHING_PROTOCOLS;
    let written = context.http_status_before_grpc.or(ended.written).filter(is_answer);
    if !late && !cut && !over && !context.is_malformed() && (ended.left || written.is_none()) {
        metrics.canceled.inc();
    }
    // 499: nobody was there to be sent a status (nginx's number for it).
    let malformed = context.is_malformed();
    let unread = if malformed { 400 } else { 499 };
    // Of a malformed stream of HTTP/2 the codec has told the client.
    let status = written.map_or(if cut { 503 } else { unread }, |status| status.as_u16());
    if written.is_none() {
        let by_client = (ResponseSource::Nobody, Some(Reason::ClientClosed));
        (context.answered_by, context.reason) =
            if malformed { (ResponseSource::Gateway, Some(Reason::Malformed)) } else { by_client };
    }
    if cut {
        (context.answered_by, context.reason) = (ResponseSource::Gateway, Some(Reason::Shutdown));
    }
    let duration = context.start.elapsed();
    if let Some(label) = context.cached.as_ref().and_then(|cached| cached.label()) {
        shared.metrics.cache.count(label);
    }
    metrics.sent.inc_by(ended.sent);
    metrics.received.inc_by(ended.received);
    if let Some(route) = &context.route {
        let metrics = context.target.as_ref().map_or(&route.metrics, |target| &target.metrics);
        metrics.count(context.method, status);
        metrics.duration.observe(duration.as_secs_f64());
        route.chain.log(
            &context.state,
            &RequestOutcome { status, duration, sent: usize::try_from(ended.sent).unwrap_or(usize::MAX) },
        );
    } else {
        metrics.unrouted(context.method, status, duration);
    }
    if let Some(log) = &*shared.access_log.load() {
        log.line(|out| access_line::write(out, &context.runtime.access, ended, context, status, duration));
    }
}
