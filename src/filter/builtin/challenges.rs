//! What steps have to say to a client whom they let pass without a credential, should a later step want to know who it is.

use http::{HeaderValue, StatusCode, header};

use crate::{filter::State, message::reply::Reply};

/// The challenges of steps that have found no credential.
#[derive(Debug, Clone, Default)]
struct Challenges(Vec<HeaderValue>);

/// Notes that a client could have shown who it is in this way.
pub(super) fn note(state: &mut State, challenge: HeaderValue) {
    state.extensions.get_or_insert_default::<Challenges>().0.push(challenge);
}

/// The answer to a client that is not known: 401 with what was noted, or 403, for a 401 must say what would help (RFC 9110
/// §15.5.2).
pub(super) fn unauthorized(state: &State, detail: &'static str) -> Reply {
    let all = state.extensions.get::<Challenges>().map_or(&[][..], |challenges| &challenges.0);
    let status = if all.is_empty() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    let reply = Reply::problem(status, detail);
    all.iter().fold(reply, |reply, challenge| reply.header(header::WWW_AUTHENTICATE, challenge.clone()))
}
