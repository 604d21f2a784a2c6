//! What a service learns of connections, and of failures, from attempts that Pingora has no part in.

use crate::{
    message::reason::Reason,
    proxy::failure,
    upstream::{
        AttemptOutcome, Backend, FailureKind, Service,
        exchange::{Answer, Failure},
        failure_kind,
    },
};

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
