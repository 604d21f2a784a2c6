//! What a service learns of connections, and of failures, from attempts that Pingora has no part in.

use bytes::Bytes;
use pingora::{connectors::http::Connector, http::RequestHeader};

use crate::{
    clock::Now,
    message::reason::Reason,
    proxy::failure,
    upstream::{
        AttemptOutcome, Backend, FailureKind, Service,
        choice::Chosen,
        exchange::{self, Answer, Failure},
        failure_kind,
    },
};

/// Sends a request that no client waits for, once, within the time that the service allows for a whole request. What it
/// teaches about the backend is recorded.
pub(crate) async fn send_alone(
    connector: &Connector,
    service: &Service,
    chosen: Chosen,
    mut head: RequestHeader,
    body: Bytes,
) -> Option<Answer> {
    if service.sign(&mut head, &chosen.backend).is_err() {
        service.resilience.give_back(&chosen.backend, chosen.tickets);
        return None;
    }
    let begun = Now::monotonic();
    let peer = chosen.backend.peer(None, false);
    let sent = tokio::time::timeout(service.timeouts().whole(), exchange::try_send(connector, peer, head, body)).await;
    let outcome = match &sent {
        Ok(Ok(answer)) => AttemptOutcome::Answered(answer.head.status.as_u16()),
        Ok(Err(failure)) => failure.outcome(false),
        // A time limit of ours says nothing about the backend.
        Err(_) => AttemptOutcome::Unknown,
    };
    if let Ok(result) = &sent {
        note(service, &chosen.backend, result, None);
    }
    let now = Now::monotonic();
    let elapsed = Some(now.saturating_sub(begun));
    service.resilience.record_outcome(&chosen.backend, chosen.tickets, now, elapsed, outcome);
    sent.ok()?.ok()
}

/// Counts why an attempt failed, and notes whether its backend can be connected to. `over`: the time for the whole request
/// was, and whose.
pub(super) fn note(service: &Service, backend: &Backend, result: &Result<Answer, Failure>, over: Option<Reason>) {
    let failure = match result {
        Ok(answer) if answer.reused => return,
        Ok(_) => return service.note_connecting(backend, None, &""),
        Err(failure) => failure,
    };
    let reason = failure::of_attempt(&failure.error, over);
    service.metrics.failure(reason);
    // What we have run out of, resources or time, says nothing about the backend.
    let ours = matches!(reason, Reason::TotalTimeout | Reason::GrpcDeadline | Reason::LocalResources);
    if failure.connect.is_none() && !ours {
        service.note_connecting(backend, Some(reason), &failure_kind::Cause(&failure.error));
    } else if failure.connect.is_some() && !failure.reused {
        service.note_connecting(backend, None, &"");
    }
}

impl Failure {
    pub(super) fn failure(&self) -> FailureKind {
        FailureKind::of(&self.error).unwrap_or(FailureKind::Reset)
    }

    /// A kept connection that the backend closed says nothing about the backend.
    pub(super) fn is_stale(&self) -> bool {
        self.reused && self.failure() == FailureKind::Reset
    }

    /// What the service learns of it; nothing when it is the time of the whole request that was over (`late`).
    pub(super) fn outcome(&self, late: bool) -> AttemptOutcome {
        let local = FailureKind::of(&self.error).is_none();
        let blameless = local || self.is_stale() || late && self.failure() == FailureKind::Timeout;
        if blameless { AttemptOutcome::Unknown } else { AttemptOutcome::Failed(self.failure()) }
    }
}
