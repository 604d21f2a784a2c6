//! What connections ask of the floor above: they know neither configurations nor logs.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

use pingora::http::RequestHeader;
use tokio::{io::AsyncWrite, sync::watch};

use super::{ConnectionInfo, h1::head::HeaderNames, limits::ClientLimits};
use crate::message::{reason::Reason, request_id::RequestId};

/// Who answers for the listeners.
pub(crate) trait Host: Send + Sync + 'static {
    /// What a client may ask of a listener, as of now.
    fn limits(&self) -> ClientLimits;

    /// How names of fields are handed on.
    fn header_names(&self) -> HeaderNames;

    /// True for a proxy whose word about the client is taken.
    fn trusts(&self, peer: IpAddr) -> bool;

    /// Tells when the process ends what is under way.
    fn cut(&self) -> watch::Receiver<bool>;

    /// Whether it does: looked at when something is read.
    fn cut_flag(&self) -> Arc<AtomicBool>;

    /// A head was refused that never became a request: it is to be counted and logged.
    fn rejected(&self, rejection: &Rejection<'_>);

    /// A connection was closed before its first request, for this reason; to be counted.
    fn turned_away(&self, reason: &'static str);
}

/// Who answers requests that no backend is asked for.
pub(crate) trait DirectAnswers: Send + Sync + 'static {
    /// Answers a request over HTTP/1 that has no body, when no backend is to be asked; else false, and what has been found
    /// out waits in `info` for the hooks (`ConnectionInfo::leave_found`).
    fn answer<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        info: &'a Arc<ConnectionInfo>,
        connection: &'a mut (dyn AsyncWrite + Send + Unpin),
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

/// A head that never became a request.
#[derive(Debug)]
pub(crate) struct Rejection<'a> {
    /// The name that it got.
    pub(crate) id: &'a RequestId,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// The status that it was answered.
    pub(crate) status: u16,
    /// What is wrong with it.
    pub(crate) detail: &'a str,
    /// The same in a word, for the access log.
    pub(crate) reason: Option<Reason>,
}
