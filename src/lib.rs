//! Tollgate, a programmable API gateway on Cloudflare's Pingora.

pub mod admin;
pub mod auth;
pub mod config;
pub mod filter;
pub mod limit;
pub mod proxy;
mod server;
pub mod telemetry;
pub mod units;

pub use filter::{Configure, Exchange, Filter, Flow, Registry, Reply};
pub use server::run;
