//! The hooks that Pingora calls. `gateway.rs` lists them, in Pingora's order, each a delegation of a few lines; the other
//! files hold what one of them does.

pub(crate) mod access_line;
pub(crate) mod attempts;
pub(crate) mod body;
mod cached;
pub(crate) mod compression;
mod context;
pub(crate) mod direct;
mod error;
mod failure;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod keep_alive;
mod kept_head;
pub(crate) mod kind;
pub(crate) mod logging;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod retry;
pub(crate) mod subrequest;
pub(crate) mod tracked;
pub(crate) mod upstream_peer;
pub(crate) mod upstream_request;
pub(crate) mod waiting;

pub(crate) use gateway::Gateway;
