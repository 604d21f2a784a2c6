//! What an attempt at a backend can come to, as retries, breakers and ejection name it.

use std::{borrow::Cow, error::Error as StdError, fmt, io, str::FromStr};

use nix::errno::Errno;
use pingora::{Error, ErrorSource, ErrorType};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// How an attempt failed, as `retry.on` and the breaker name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The connection was refused, or did not stand in time: nothing of the request was sent.
    Connect,
    /// The backend did not answer within `timeouts.read`.
    Timeout,
    /// The connection broke before the answer's head had come.
    Reset,
    /// The backend answered with this status.
    Status(u16),
}

/// What this machine, or this process, has run out of, when that is why there is no connection: descriptors, ports, memory.
pub(crate) fn local_cause(error: &Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let local = [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM];
            return Some(error)
                .filter(|error| error.raw_os_error().is_some_and(|e| local.contains(&Errno::from_raw(e))));
        }
        // Pingora's have their cause in a field of their own.
        next = match error.downcast_ref::<Box<Error>>().map(|error| &**error).or_else(|| error.downcast_ref()) {
            Some(Error { cause, .. }) => cause.as_deref().map(|cause| cause as _),
            None => error.source(),
        };
    }
    None
}

impl FailureKind {
    /// What an error on the backend's side means; `None` for errors of others.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        use ErrorType as E;
        if local_cause(error).is_some() {
            return None;
        }
        match (error.esource(), error.etype()) {
            (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout) => Some(Self::Timeout),
            (
                ErrorSource::Upstream,
                E::ConnectTimedout
                | E::ConnectRefused
                | E::ConnectNoRoute
                | E::ConnectError
                | E::SocketError
                | E::BindError
                | E::TLSHandshakeFailure
                | E::TLSHandshakeTimedout
                | E::InvalidCert,
            ) => Some(Self::Connect),
            (ErrorSource::Upstream, _) => Some(Self::Reset),
            _ => None,
        }
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Status(_) => "status",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            other => f.write_str(other.label()),
        }
    }
}

impl FromStr for FailureKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "connect" => Ok(Self::Connect),
            "timeout" => Ok(Self::Timeout),
            "reset" => Ok(Self::Reset),
            _ => match text.parse() {
                Ok(status @ 400..=599) => Ok(Self::Status(status)),
                _ => Err(format!("unknown value '{text}' (known: connect, timeout, reset, a status from 400 to 599)")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for FailureKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for FailureKind {
    fn schema_name() -> Cow<'static, str> {
        "Trouble".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "how an attempt fails: connect, timeout, reset, or a status",
            "anyOf": [
                { "enum": ["connect", "timeout", "reset"] },
                { "type": "integer", "minimum": 400, "maximum": 599 }
            ]
        })
    }
}

/// What is behind an error of connecting, without Pingora's own words around it.
pub(crate) fn cause(error: &Error) -> String {
    if let ErrorType::CustomCode(what, code) = error.etype() {
        return format!("{what} {code}");
    }
    let text = error.to_string();
    let cause = text.split("cause: ").nth(1).unwrap_or(&text);
    cause.split(", SNI: ").next().unwrap_or(cause).trim().to_owned()
}

/// The engine's word for an error, and its cause when it has one that says more.
pub(crate) fn summary(error: &Error) -> String {
    match error.etype() {
        ErrorType::CustomCode(..) => cause(error),
        // Its cause says the same once more.
        ErrorType::ConnectRefused => ErrorType::ConnectRefused.as_str().to_owned(),
        kind if error.to_string().contains("cause: ") => format!("{}: {}", kind.as_str(), cause(error)),
        kind => kind.as_str().to_owned(),
    }
}

/// The cause for a line that may not be written at all.
pub(crate) struct Cause<'a>(pub(crate) &'a Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cause(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_no_failure_of_a_backend() {
        let because = |errno: Errno| {
            let cause = io::Error::from_raw_os_error(errno as i32);
            Error::because(ErrorType::SocketError, "socket", cause).into_up()
        };
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL, Errno::ENOBUFS, Errno::ENOMEM] {
            let error = because(errno);
            assert_eq!((FailureKind::of(&error), local_cause(&error).is_some()), (None, true), "{errno}");
            let wrapped = Error::because(ErrorType::InternalError, "connect", error).into_up();
            assert_eq!(FailureKind::of(&wrapped), None, "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ECONNRESET] {
            assert_eq!(FailureKind::of(&because(errno)), Some(FailureKind::Connect), "{errno}");
        }
        assert!(local_cause(&Error::explain(ErrorType::ConnectTimedout, "none")).is_none());
    }
}
