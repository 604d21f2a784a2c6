//! TODO-DOC

pub(crate) mod chunked;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod grpc;
pub(crate) mod hops;
pub(crate) mod path;
pub(crate) mod reply;
pub(crate) mod request_head;
pub(crate) mod reserved;
pub(crate) mod target;
