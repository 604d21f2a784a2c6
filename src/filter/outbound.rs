//! Requests that a filter sends to another service while a client waits. How they are sent, over which connections, is not for
//! this room: whoever builds the filter hands in what does it.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};

use super::HttpPlace;

/// Addresses of a name, and when they were found.
pub(crate) type Addresses = (Vec<std::net::SocketAddr>, Duration);

/// Who is asked.
#[derive(Debug)]
pub struct OutboundTarget {
    /// Where it is.
    pub place: HttpPlace,
    /// The addresses of the host, the one that was reached last before the others.
    pub addresses: KnownAddresses,
}

/// The addresses of a name; what is known is no setting.
#[derive(Default)]
pub struct KnownAddresses(pub(crate) Mutex<Option<Addresses>>);

impl fmt::Debug for KnownAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownAddresses")
    }
}

impl From<HttpPlace> for OutboundTarget {
    fn from(place: HttpPlace) -> Self {
        Self { place, addresses: KnownAddresses::default() }
    }
}

/// What a service has answered.
#[derive(Debug)]
pub struct OutboundAnswer {
    /// The head of the answer.
    pub head: ResponseHeader,
    /// Its body; nothing when it is longer than was asked for.
    pub body: Option<Bytes>,
}

/// What sends requests of filters, over connections that it keeps.
#[async_trait]
pub trait Outbound: fmt::Debug + Send + Sync {
    /// Says that there will be requests: asked for while a filter is built.
    fn want(&self);

    /// Sends a request without a body, which may be sent twice, and reads the answer with at most `most` bytes of its body. No
    /// redirect is followed. It takes no longer than the target's time limit.
    ///
    /// # Errors
    /// Why there is no answer, in words that quote nothing of it.
    async fn ask(&self, target: &OutboundTarget, head: RequestHeader, most: usize) -> Result<OutboundAnswer, String>;
}
