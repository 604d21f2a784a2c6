//! Why an exchange failed: in the access log's word, from Pingora's error and from what is known of the request.

use http::StatusCode;
use pingora::{Error, ErrorSource, ErrorType};

use super::context::Context;
use crate::{
    downstream::Lateness, message::reason::Reason, proxy::kind::RequestKind, upstream::failure_kind::local_cause,
};

/// Why it failed.
pub(super) fn reason(error: &Error, context: &Context) -> Reason {
    if context.late().is_some() || context.is_over() {
        return late(context);
    }
    if context.is_malformed() {
        return Reason::Malformed;
    }
    if client_left(error) {
        return if context.shared.is_cut() { Reason::Shutdown } else { Reason::ClientClosed };
    }
    if *error.esource() != ErrorSource::Downstream && local_cause(error).is_some() {
        return Reason::LocalResources;
    }
    match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(_)) => Reason::Refused,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Reason::RequestTimeout,
        (ErrorSource::Downstream, _) => Reason::Malformed,
        (ErrorSource::Upstream, kind) => {
            let over = context.remaining().is_some_and(|left| left.is_zero());
            of_backend(kind, error, over.then(|| context.out_of_time()))
        }
        (ErrorSource::Internal | ErrorSource::Unset, _) => Reason::Internal,
    }
}

/// The same for an exchange that has lasted too long.
pub(super) fn late(context: &Context) -> Reason {
    let began = context.attempts.first_byte.is_some();
    let tunnel = context.written == Some(StatusCode::SWITCHING_PROTOCOLS) || context.kind == RequestKind::Grpc;
    match context.late() {
        _ if context.is_over() => Reason::CertificateEnded,
        Some(Lateness::Unread) => Reason::WriteTimeout,
        // The time was over before the client had sent its request, though it had most of that for itself.
        _ if context.is_slow() && !began => Reason::RequestTimeout,
        Some(Lateness::Silence) if tunnel => Reason::IdleTimeout,
        Some(Lateness::Silence) => Reason::ReadTimeout,
        Some(Lateness::Deadline) | None => context.out_of_time(),
    }
}

/// Why an attempt failed that the gateway made by itself; `over`: the time for the whole request was, and whose.
pub(super) fn of_attempt(error: &Error, over: Option<Reason>) -> Reason {
    if local_cause(error).is_some() { Reason::LocalResources } else { of_backend(error.etype(), error, over) }
}

fn of_backend(kind: &ErrorType, error: &Error, over: Option<Reason>) -> Reason {
    use ErrorType as E;
    let timed = matches!(kind, E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout);
    if let Some(over) = over.filter(|_| timed) {
        return over;
    }
    match kind {
        E::ReadTimedout => Reason::ReadTimeout,
        E::WriteTimedout => Reason::WriteTimeout,
        // What an answer's chunks cannot be read by has no type of its own.
        E::InvalidHTTPHeader | E::InvalidH2 | E::Custom(_) | E::CustomCode(..) => Reason::MalformedResponse,
        // What is wrong with HTTP/2 is found, and not told, by this side.
        E::H2Error | E::ReadError if error.to_string().contains("error detected") => Reason::MalformedResponse,
        _ => connecting(kind, error).unwrap_or(Reason::ConnectionReset),
    }
}

/// Why a connection did not come about, when that is what happened.
fn connecting(kind: &ErrorType, error: &Error) -> Option<Reason> {
    use ErrorType as E;
    Some(match kind {
        E::ConnectTimedout | E::TLSHandshakeTimedout => Reason::ConnectTimeout,
        E::ConnectRefused => Reason::ConnectRefused,
        E::ConnectNoRoute | E::ConnectError | E::SocketError | E::BindError | E::ConnectProxyFailure => {
            Reason::ConnectFailed
        }
        E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError | E::TLSWantX509Lookup => tls(error),
        _ => return None,
    })
}

/// What rustls says, in one of our words: its text is all that Pingora hands on.
fn tls(error: &Error) -> Reason {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["certificate not valid for name", "NotValidForName"]) {
        Reason::TlsName
    } else if says(&["certificate expired", "certificate not valid yet", "Expired", "NotValidYet"]) {
        Reason::TlsExpired
    } else if says(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
        Reason::TlsUntrusted
    } else if says(&["corrupt message"]) {
        Reason::TlsPlain
    } else {
        Reason::TlsFailed
    }
}

/// True when the client, and nobody else, ended the exchange.
pub(super) fn client_left(error: &Error) -> bool {
    use ErrorType as E;
    *error.esource() == ErrorSource::Downstream
        && matches!(error.etype(), E::WriteError | E::ReadError | E::ConnectionClosed | E::WriteTimedout)
}
