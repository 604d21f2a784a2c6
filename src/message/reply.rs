//! An answer that the gateway makes itself: a refusal, an error, a redirect, a preflight.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{fields::number, reason::Reason};

/// An answer made here. It is written in one place (`proxy/reply.rs`), after the chain's response phase.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers beside those that belong to the body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: ReplyBody,
    /// Close the connection after the answer: what follows on it cannot be trusted.
    pub close: bool,
    /// Why it is a refusal or a failure, for the access log; the client is not told it.
    pub reason: Option<Reason>,
}

/// The body of a [`Reply`].
#[derive(Debug, Clone)]
pub enum ReplyBody {
    /// None.
    Empty,
    /// `application/problem+json` (RFC 9457); the request id is added when it is written.
    Problem {
        /// The problem's `type`; `about:blank` when `None`, and then the title is the status phrase.
        kind: Option<&'static str>,
        /// What this request did wrong, for a person.
        detail: Cow<'static, str>,
        /// Further members, already as `"name":value` JSON.
        members: Option<String>,
    },
    /// Bytes with their media type.
    Bytes(HeaderValue, Bytes),
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Empty, close: false, reason: None }
    }

    /// A problem: `detail` is for the person who reads the answer, and must hold no secret and no address of ours.
    pub fn problem(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let body = ReplyBody::Problem { kind: None, detail: detail.into(), members: None };
        Self { body, ..Self::empty(status) }
    }

    /// Names the problem's type (a URI) and further members.
    #[must_use]
    pub fn kind(mut self, uri: &'static str, extra: Option<String>) -> Self {
        if let ReplyBody::Problem { kind, members, .. } = &mut self.body {
            *kind = Some(uri);
            *members = extra;
        }
        self
    }

    /// Text, as `text/plain`.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self {
            body: ReplyBody::Bytes(HeaderValue::from_static("text/plain; charset=utf-8"), text.into()),
            ..Self::empty(status)
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: std::time::Duration) -> Self {
        self.header(header::RETRY_AFTER, number(whole_seconds(wait)))
    }

    /// Says why, in the access log's word.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Closes the connection afterwards.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// 401 with its challenge (RFC 9110 §11.6.1).
    pub fn unauthorized(challenge: HeaderValue, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::problem(StatusCode::UNAUTHORIZED, detail).header(header::WWW_AUTHENTICATE, challenge)
    }
}

/// Seconds rounded up, at least one: a client that waits that long is not refused again for coming early.
pub(crate) fn whole_seconds(wait: std::time::Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
