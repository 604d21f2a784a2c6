//! What kind of request it is.

use http::Version;
use pingora::http::RequestHeader;

use crate::message::grpc;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A request and its answer.
    #[default]
    Ordinary,
    /// A call of gRPC: both sides may be silent for as long as they like, and have ways to end it. There is none over
    /// HTTP/1: who says so there wants to be let off the limits for slow clients.
    Grpc,
    /// Perhaps another protocol, if the backend agrees.
    Upgrade,
}

impl RequestKind {
    /// Of a request with this `head`; `media`: which says what it carries.
    pub(super) fn of(head: &RequestHeader, upgrade: bool, media: bool) -> Self {
        if upgrade {
            Self::Upgrade
        } else if media && head.version == Version::HTTP_2 && grpc::is(&head.headers) {
            Self::Grpc
        } else {
            Self::Ordinary
        }
    }
}
