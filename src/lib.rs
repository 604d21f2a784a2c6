//! Tollgate: a programmable API gateway and reverse proxy on Cloudflare's Pingora.
//!
//! As a binary it is run by one YAML file (see the README). As a library it lets you build a gateway with filters of
//! your own: implement [`Filter`] and [`Configure`], add it to a [`Registry`], hand that to [`run`]
//! (`examples/custom_filter.rs` is one). [`limit`] and [`auth`] are usable alone.
//!
//! `ARCHITECTURE.md` tells how it is built, and which test holds what.

pub mod admin;
pub mod auth;
pub mod cache;
pub mod clock;
pub mod config;
pub(crate) mod downstream;
pub mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod message;
pub mod proxy;
pub mod resilience;
pub mod routing;
pub mod runtime;
mod server;
pub mod store;
pub mod telemetry;
pub(crate) mod tls;
pub mod units;
pub(crate) mod upstream;
mod yaml;

pub use tollgate_limit as limit;

pub use self::{
    filter::{Configure, Exchange, Fault, Filter, Flow, Registry},
    message::{reason::Reason, reply::Reply},
};
pub use server::run;
