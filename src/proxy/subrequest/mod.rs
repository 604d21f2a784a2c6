//! Requests that the gateway sends beside the one that Pingora proxies: hedges and mirrored copies.

pub(crate) mod attempt;
mod deliver;
pub(crate) mod hedge;
pub(crate) mod mirror;
pub(crate) mod mirror_body;
