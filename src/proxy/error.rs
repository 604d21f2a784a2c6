//! From an error of Pingora's to the answer that the client gets.

use http::StatusCode;
use pingora::{
    Error, ErrorSource, ErrorType,
    proxy::{FailToProxy, Session},
};

use crate::{
    message::{
        replies::{self, malformed, too_late, too_slow},
        reply::Reply,
        source::ResponseSource,
    },
    proxy::{
        context::Context,
        reply::{self, respond},
        upstream_request::Unsendable,
    },
};

/// What to tell the client; `None` when it is gone.
pub(crate) fn reply_for(error: &Error) -> Option<Reply> {
    use ErrorType as E;
    let kind = error.etype();
    if let E::HTTPStatus(status) = kind {
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Some(Reply::problem(status, "the request was refused").closing());
    }
    let (status, detail) = match error.esource() {
        ErrorSource::Downstream => match kind {
            E::ReadTimedout => return Some(too_slow().closing()),
            E::WriteError | E::ReadError | E::ConnectionClosed | E::WriteTimedout => return None,
            _ => (StatusCode::BAD_REQUEST, "the request could not be read"),
        },
        ErrorSource::Upstream if is_timeout(kind) => return Some(too_late().closing()),
        ErrorSource::Upstream => (StatusCode::BAD_GATEWAY, "the service could not be reached or broke off"),
        ErrorSource::Internal | ErrorSource::Unset => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the gateway could not handle this request")
        }
    };
    Some(Reply::problem(status, detail).closing())
}

/// The error in one word, for the access log; `None` for refusals, whose author is named there anyway.
pub(crate) fn word(error: &Error) -> Option<String> {
    (!matches!(error.etype(), ErrorType::HTTPStatus(_))).then(|| error.etype().as_str().to_owned())
}

/// True when the fault is ours.
pub(crate) fn is_internal(error: &Error) -> bool {
    word(error).is_some() && matches!(error.esource(), ErrorSource::Internal | ErrorSource::Unset)
}

/// True when the client, and nobody else, ended the exchange.
pub(crate) fn client_left(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream && reply_for(error).is_none()
}

fn is_timeout(kind: &ErrorType) -> bool {
    use ErrorType as E;
    matches!(kind, E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout)
}

/// Ends a hook that can only fail, with an answer for `fail_to_proxy` to send.
pub(super) fn refuse<T>(context: &mut Context, reply: Reply, by: ResponseSource) -> pingora::Result<T> {
    let status = reply.status.as_u16();
    context.refusal = Some((Box::new(reply), by));
    Error::e_explain(ErrorType::HTTPStatus(status), "refused")
}

/// Ends a hook in the middle of a request's body, with an answer. It is the client's side that has to end: what goes wrong
/// with sending is no reason for Pingora not to wait for an answer (`proxy_h2.rs`).
pub(super) fn refuse_body<T>(context: &mut Context, reply: Reply, by: ResponseSource) -> pingora::Result<T> {
    refuse(context, reply, by).map_err(Error::into_down)
}

/// Ends a hook whose request cannot go to a backend.
pub(super) fn unsendable<T>(context: &mut Context, why: Unsendable) -> pingora::Result<T> {
    match why {
        Unsendable::Refused(refusal) => refuse(context, *refusal.reply, ResponseSource::Filter(refusal.by)),
        Unsendable::Broken(error) => Err(error),
    }
}

/// Answers a request that could not be served, if there is still somebody to answer.
pub(super) async fn answer(session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
    if let Some(deadlines) = context.deadlines() {
        deadlines.watch(false);
    }
    if is_internal(error) {
        log::error!("request {}: {error}", context.state.id);
    }
    let refusal = context.refusal.take();
    let (reply, by) = match refusal {
        Some((reply, by)) => (Some(*reply), by),
        None => match context.info.as_ref().and_then(|info| info.fault()) {
            Some(reason) => (Some(malformed(reason)), ResponseSource::Gateway),
            // The time was over before the client had sent its request, though it had most of that for itself.
            None if context.late().is_some() && context.is_slow() => {
                (Some(replies::too_slow()), ResponseSource::Gateway)
            }
            None if context.late().is_some() => (Some(replies::too_late()), ResponseSource::Gateway),
            None => (reply_for(error), ResponseSource::Gateway),
        },
    };
    let mut error_code = 0;
    if let Some(reply) = reply
        && reply::is_open(session)
    {
        error_code = reply.status.as_u16();
        // A refusal made here may leave a body half read.
        if let Err(e) = respond(session, context, reply.closing(), by).await {
            log::debug!("answer not delivered: {e}");
        }
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}
