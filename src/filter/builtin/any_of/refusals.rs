//! What members of an `any_of` that do not accept a request have to say, and the one answer that the client gets.

use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use crate::{
    auth::Identities,
    filter::{Fault, Flow, State},
    message::{reason::Reason, reply::Reply},
};

/// A client that comes back then may find the service well.
const SOON: Duration = Duration::from_secs(1);

/// One of them.
struct Refused {
    place: usize,
    reply: Box<Reply>,
    /// Who it was that may not do this, if anybody.
    found: Identities,
}

impl Refused {
    /// The client has shown something, and it is not good enough.
    fn is_wrong(&self) -> bool {
        self.reply.reason != Some(Reason::CredentialsMissing)
    }

    /// How much the answer helps the client, the most helpful first: to try again; that it is known and may not do this; where
    /// to go; what is wrong with what it has shown; what it could show.
    fn rank(&self) -> u8 {
        match self.reply.status {
            status if status.is_server_error() => 0,
            status if status.is_redirection() => 2,
            _ if !self.is_wrong() && self.reply.status != StatusCode::UNAUTHORIZED => 5,
            StatusCode::UNAUTHORIZED if self.is_wrong() => 3,
            StatusCode::UNAUTHORIZED => 4,
            _ => 1,
        }
    }
}

/// Those that there are so far.
#[derive(Default)]
pub(super) struct Refusals {
    all: Vec<Refused>,
    fault: Option<Fault>,
    /// A service that is asked is down, and its filter lets such requests pass: nobody is anonymous because of that.
    pub(super) unanswered: bool,
}

impl Refusals {
    pub(super) fn note(&mut self, place: usize, reply: Box<Reply>, found: Identities) {
        self.all.push(Refused { place, reply, found });
    }

    /// A member could not decide.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Something was shown that is not good, or may not be.
    pub(super) fn any_wrong(&self) -> bool {
        self.fault.is_some() || self.unanswered || self.all.iter().any(Refused::is_wrong)
    }

    pub(super) fn is_wrong(&self, place: usize) -> bool {
        self.all.iter().any(|refused| refused.place == place && refused.is_wrong())
    }

    /// Forgets the others: another member has accepted what they read, and only this is wrong.
    pub(super) fn keep_only(&mut self, place: usize) {
        self.all.retain(|refused| refused.place == place);
    }

    /// The challenges of all of them, in order.
    pub(super) fn challenges(&self) -> Vec<HeaderValue> {
        let headers = self.all.iter().flat_map(|refused| &refused.reply.headers);
        headers.filter(|(name, _)| *name == header::WWW_AUTHENTICATE).map(|(_, value)| value.clone()).collect()
    }

    /// The answer for the client.
    ///
    /// # Errors
    /// A member could not decide, which may have let the request pass.
    pub(super) fn flow(mut self, state: &mut State) -> Result<Flow, Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let challenges = self.challenges();
        if self.unanswered && self.all.iter().all(|refused| !refused.is_wrong()) {
            let detail = "a service that this request depends on is not available";
            let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SOON);
            return Ok(reply.because(Reason::AuthServiceFailed).into());
        }
        // The first of the best, for `min_by_key` keeps it.
        let Some(best) = self.all.into_iter().min_by_key(Refused::rank) else {
            // Every member lets nobody pass without a word: an optional token alone.
            let reply = Reply::problem(StatusCode::FORBIDDEN, "this is for clients that say who they are");
            return Ok(reply.because(Reason::CredentialsMissing).into());
        };
        // Noted even when it may not pass: the log names it.
        best.found.iter().for_each(|identity| state.identities.note(identity.clone()));
        let mut reply = best.reply;
        if reply.status == StatusCode::UNAUTHORIZED {
            reply.headers.retain(|(name, _)| *name != header::WWW_AUTHENTICATE);
            reply.headers.extend(challenges.into_iter().map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        }
        Ok(Flow::Reply(reply))
    }
}
