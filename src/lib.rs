//! Tollgate, a programmable API gateway on Cloudflare's Pingora.

pub mod auth;
pub mod limit;
