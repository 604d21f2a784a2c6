//! What a log line tells of a request's head, kept without copying it: a request that is dropped in the middle takes its
//! head along.

use http::{HeaderName, HeaderValue, Method, Uri, Version, header};
use pingora::http::RequestHeader;

use crate::message::grpc;

/// Fields that log lines name.
static FIELDS: [HeaderName; 4] =
    [header::HOST, header::USER_AGENT, header::REFERER, HeaderName::from_static("traceparent")];

/// Parts of a head.
#[derive(Debug)]
pub(crate) struct KeptHead {
    method: Method,
    uri: Uri,
    version: Version,
    /// It says that it is a call of gRPC.
    grpc: bool,
    fields: [Option<HeaderValue>; FIELDS.len()],
}

impl KeptHead {
    /// Those of `head`.
    pub(super) fn of(head: &RequestHeader) -> Self {
        let fields = FIELDS.each_ref().map(|name| head.headers.get(name).cloned());
        let grpc = grpc::is(&head.headers);
        Self { method: head.method.clone(), uri: head.uri.clone(), version: head.version, grpc, fields }
    }

    /// It says that it is a call of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Its answer has no body.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// A head with these parts.
    ///
    /// # Errors
    /// It cannot be put together.
    pub(super) fn restore(self) -> pingora::Result<RequestHeader> {
        let mut head = RequestHeader::build(self.method, b"/", None)?;
        head.set_uri(self.uri);
        head.set_version(self.version);
        for (name, value) in FIELDS.iter().zip(self.fields) {
            if let Some(value) = value {
                head.insert_header(name, value)?;
            }
        }
        Ok(head)
    }
}
