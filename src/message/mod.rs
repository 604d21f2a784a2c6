//! HTTP messages: how a head is read and a body framed, what fields, targets and paths mean, and the replies that the
//! gateway makes itself. Bytes, `http` types and Pingora's two header types; no session, no connection, no clock.

pub(crate) mod byte_class;
pub(crate) mod chunked;
pub(crate) mod coding_terms;
pub(crate) mod components;
pub(crate) mod content_coding;
pub(crate) mod edit;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod framing;
pub(crate) mod grpc;
pub(crate) mod hop_by_hop;
pub(crate) mod hops;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod method_class;
pub mod path;
pub(crate) mod reason;
pub(crate) mod replies;
pub(crate) mod reply;
pub(crate) mod reply_wire;
pub(crate) mod request_head;
pub(crate) mod request_id;
pub mod reserved;
pub(crate) mod source;
pub(crate) mod target;
pub(crate) mod upgrade;
pub(crate) mod violation;
