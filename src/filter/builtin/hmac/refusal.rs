//! What a client is told whose signature is not taken.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::message::{reason::Reason, reply::Reply};

/// Why a request is refused.
pub(super) struct SignatureRefusal(pub(super) Reason, pub(super) &'static str);

impl SignatureRefusal {
    /// The answer.
    pub(super) fn reply(self) -> Reply {
        let Self(reason, detail) = self;
        let reply = match reason {
            Reason::NoncesFull | Reason::NonceStoreDown => {
                Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(Duration::from_secs(1))
            }
            // There is no registered scheme for it; 401 needs a challenge all the same (RFC 9110 §15.5.2).
            _ => Reply::unauthorized(HeaderValue::from_static("Signature"), detail),
        };
        reply.because(reason)
    }
}
