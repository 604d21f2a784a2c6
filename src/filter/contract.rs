//! What a filter is, and what Tollgate asks of it while requests pass.

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{Exchange, Reply, State};
use crate::auth::Method;

/// One step of a route's chain.
///
/// `request` and `upstream` run in listed order; `response` and `log` in reverse, and only for steps whose `request`
/// ran. `Debug` shows the settings in force (a secret shows as `[redacted]`). Every method has a default that does nothing, so a filter writes down only what it is about.
#[async_trait]
pub trait Filter: fmt::Debug + Send + Sync + 'static {
    /// Judges the request: let it go on, or answer it. A refusal is an answer ([`Flow::Reply`]), not an error.
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let _ = exchange;
        Ok(Flow::Next)
    }

    /// The fields by which this step tells backends who the client is. No client may send them, on any route: what a
    /// backend believes on one path it believes on all. Asked once, when the configuration is built.
    fn tells_backends(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    /// Names that this step may tell backends, as far as its settings have them, each with the field that it is told by. Asked
    /// once, when the configuration is built.
    fn known_names(&self) -> Vec<(HeaderName, String)> {
        Vec::new()
    }

    /// The fields in which a client shows this step who it is; nothing for a step that does not ask. Such a step notes an identity
    /// when it lets a request pass that shows one. Asked once, when the configuration is built.
    fn credentials(&self) -> Option<Vec<HeaderName>> {
        None
    }

    /// Whether this step, asked about a request with these fields, reads `name`, which is one of its `credentials`. What it takes
    /// from another of them it does not look for in this one.
    fn reads(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let _ = (headers, name);
        true
    }

    /// The kinds of credentials of which a chain may have one such step: what it knows of a client is told later, and a second one
    /// would speak for the first. Asked once, when the configuration is built.
    fn sole_methods(&self) -> Vec<Method> {
        Vec::new()
    }

    /// Edits the head that the backend will see; once per attempt, on a fresh copy.
    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        let _ = (head, state);
        Ok(())
    }

    /// Edits the head of the answer; also of answers that the gateway makes itself.
    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        let _ = (head, state);
        Ok(())
    }

    /// Learns how it ended. Must not block.
    fn log(&self, state: &State, outcome: &RequestOutcome) {
        let _ = (state, outcome);
    }

    /// What keeps the step's data up to date while its route serves: begun once, ended when the route is gone or has been
    /// built anew. It runs beside requests and must not block.
    fn background(&self) -> Option<Background> {
        None
    }

    /// Which bodies this step wants to see. Asked once, when the chain is built.
    fn body(&self) -> Body {
        Body::Skip
    }

    /// Sees, changes or stops the request's body, chunk by chunk.
    fn request_body(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Result<Flow, Fault> {
        let _ = (chunk, end, state);
        Ok(Flow::Next)
    }

    /// Sees or changes the answer's body, chunk by chunk.
    fn response_body(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Result<(), Fault> {
        let _ = (chunk, end, state);
        Ok(())
    }
}

/// Work that goes on in the background.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a step decided.
#[derive(Debug)]
pub enum Flow {
    /// Go on with the next step.
    Next,
    /// Answer now. Boxed: the way on is the common one.
    Reply(Box<Reply>),
}

impl From<Reply> for Flow {
    fn from(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

/// A step could not do its work (its store is down, say). What then happens is the step's `on_fault`.
#[derive(Debug)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Which bodies a filter wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Neither.
    Skip,
    /// The request's.
    Request,
    /// The answer's.
    Response,
    /// Both.
    Both,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct RequestOutcome {
    /// Status sent to the client; 499 when it went away before one was sent.
    pub status: u16,
    /// Whole time.
    pub duration: std::time::Duration,
    /// Bytes of the answer's body.
    pub sent: usize,
}
