//! From an error of Pingora's to the answer that the client gets.

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};

use crate::message::{
    replies::{too_late, too_slow},
    reply::Reply,
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
