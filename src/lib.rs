//! Tollgate, a programmable API gateway on Cloudflare's Pingora.

pub mod limit;
