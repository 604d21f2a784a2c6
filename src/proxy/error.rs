//! From an error of Pingora's to the answer that the client gets.

use http::{StatusCode, header};
use pingora::{
    Error, ErrorSource, ErrorType,
    http::ResponseHeader,
    proxy::{FailToProxy, Session},
};

use crate::{
    message::{
        fields,
        reason::Reason,
        replies::{malformed, shutting_down, too_late, too_slow},
        reply::Reply,
        source::ResponseSource,
    },
    proxy::{
        cached::arrival,
        context::Context,
        failure, keep_alive,
        reply::{self, respond},
        upstream_request::Unsendable,
    },
    upstream::failure_kind,
};

/// What to tell the client; `None` when it is gone.
fn reply_for(reason: Reason) -> Option<Reply> {
    Some(match reason {
        Reason::ClientClosed => return None,
        Reason::Shutdown => shutting_down(),
        Reason::RequestTimeout => too_slow(),
        Reason::Malformed => malformed("the request could not be read"),
        Reason::ReadTimeout
        | Reason::WriteTimeout
        | Reason::ConnectTimeout
        | Reason::IdleTimeout
        | Reason::TotalTimeout
        | Reason::GrpcDeadline => too_late(reason),
        Reason::LocalResources => {
            Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway has run out of something: try again")
                .retry_after(std::time::Duration::from_secs(1))
                .because(reason)
        }
        Reason::Internal | Reason::Refused => {
            Reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "the gateway could not handle this request")
                .because(reason)
        }
        _ => Reply::problem(StatusCode::BAD_GATEWAY, "the service could not be reached or broke off").because(reason),
    })
}

/// The error in a word, for the access log; of a handshake with its cause; `None` for refusals, whose author is named there anyway.
pub(crate) fn word(error: &Error) -> Option<String> {
    let kind = error.etype();
    let tls = matches!(kind, ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert);
    match kind {
        ErrorType::HTTPStatus(_) => None,
        _ if tls => Some(format!("{}: {}", kind.as_str(), failure_kind::cause(error))),
        _ => Some(kind.as_str().to_owned()),
    }
}

/// True when the fault is ours.
pub(crate) fn is_internal(error: &Error) -> bool {
    word(error).is_some() && matches!(error.esource(), ErrorSource::Internal | ErrorSource::Unset)
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
        Unsendable::Unsignable(reply) => refuse(context, *reply, ResponseSource::Gateway),
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
    if reply::is_open(session)
        && !failure::client_left(error)
        && let Some(served) = arrival::in_place_of_nothing(session.req_header(), context)
    {
        let error_code = served.head.status.as_u16();
        let stays = has_been_read(session);
        if !stays {
            keep_alive::end(session);
        }
        let given = reply::give(session, context, served).await;
        after(given, stays, session, context);
        return FailToProxy { error_code, can_reuse_downstream: false };
    }
    let (reply, by) = match context.refusal.take() {
        Some((reply, by)) => (Some(*reply), by),
        None => match context.info.as_ref().and_then(|info| info.fault()) {
            Some(fault) => (Some(malformed(fault)), ResponseSource::Gateway),
            None => (reply_for(failure::reason(error, context)), ResponseSource::Gateway),
        },
    };
    if let Some(reply) = &reply
        && !reply::is_open(session)
    {
        // It comes too late for its client, not for the log.
        context.reason = reply.reason;
    }
    let mut error_code = 0;
    if let Some(reply) = reply
        && reply::is_open(session)
    {
        error_code = reply.status.as_u16();
        // Nothing of the request is left on the connection: it serves the next one.
        let stays = matches!(error_code, 502..=504) && has_been_read(session);
        let reply = if stays { reply } else { reply.closing() };
        let given = respond(session, context, reply, by).await;
        after(given, true, session, context);
    }
    FailToProxy { error_code, can_reuse_downstream: false }
}

/// Keeps a connection open whose answer has gone out, if it `stays`.
fn after(given: pingora::Result<()>, stays: bool, session: &Session, context: &Context) {
    match given {
        // Not one that its own answer has closed: it may have had its last request.
        Ok(()) if stays && says_keep_alive(session) => {
            if let Some(info) = &context.info {
                info.keep_open();
            }
        }
        Ok(()) => {}
        Err(e) => log::debug!("answer not delivered: {e}"),
    }
}

/// True when the answer has not told the client that the connection ends (RFC 9112 §9.6).
fn says_keep_alive(session: &Session) -> bool {
    let closes = |head: &ResponseHeader| fields::has(&head.headers, &header::CONNECTION, |word| word == b"close");
    keep_alive::serves_on(session) && !session.response_written().is_none_or(closes)
}

/// True when the whole of the request has been read.
fn has_been_read(session: &mut Session) -> bool {
    session.is_body_empty() || session.as_downstream_mut().is_body_done()
}
