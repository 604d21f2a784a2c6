//! Tollgate, a programmable API gateway on Cloudflare's Pingora.

pub mod auth;
pub mod filter;
pub mod limit;
pub mod proxy;
pub mod telemetry;
pub mod units;
