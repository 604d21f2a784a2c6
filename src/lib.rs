//! Tollgate: a programmable API gateway and reverse proxy on Cloudflare's Pingora.
//!
//! As a binary it is run by one YAML file (see the README). As a library it lets you build a gateway with filters of
//! your own: implement [`Filter`] and [`Configure`], add it to a [`Registry`], hand that to [`run`]
//! (`examples/custom_filter.rs` is one). [`limit`] and [`auth`] are usable alone.
//!
//! # Invariants
//! 1. Mechanism is static, policy is dynamic: routing, balancing, retries and time limits are typed fields of a route
//!    or service, driven from fixed hooks; auth, limits, CORS, headers and every custom step are an ordered, per-route
//!    list of [`Filter`]s, in the order of the YAML (`filter/chain.rs` tests it).
//! 2. Domain modules (`limit`, `auth`, `resilience`) know no Pingora, no HTTP server, and read no clock (`tests/layers.rs`).
//! 3. One path from YAML to traffic: text -> [`config::Config`] -> build -> `Runtime`. `-t`, start, upgrade and
//!    the configuration's own `tests:` all take it (`tests/it/process.rs`, `tests/it/config_errors.rs`).
//! 4. A `Runtime` is never edited, only replaced; a request keeps the `Arc<Route>` it began with. What must outlive it
//!    lives in [`Shared`].
//! 5. Every answer that the gateway makes itself goes through one function, which also runs the chain's response phase
//!    (`tests/it/filters.rs`).
//! 6. No global handle, no `init()` registry. Background tasks end with their owner.
//! 7. No lock is held across `.await`; nothing on the request path blocks or waits for a disk.
//! 8. A secret never appears in `Debug`, an error, a log or a URL.
//! 9. Building opens no socket: `-t` runs while no backend is up.
//! 10. Every key of the YAML has an effect (`tests/leaves.rs`).
//!
//! # Floors
//! A module uses lower floors only; `tests/layers.rs` fails on any other import.
//! `server` 9, [`config`] 8, [`admin`] 7, `proxy` 6, [`filter`] 5, [`limit`], [`auth`] and [`resilience`] 3, [`telemetry`] 2,
//! [`units`] 1.

pub mod admin;
pub mod auth;
mod clock;
pub mod config;
pub(crate) mod downstream;
pub mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod limit;
pub mod message;
pub mod proxy;
pub mod resilience;
pub mod routing;
pub mod runtime;
mod server;
pub mod telemetry;
pub(crate) mod tls;
pub mod units;
pub(crate) mod upstream;
mod yaml;

pub use self::{
    filter::{Configure, Exchange, Fault, Filter, Flow, Registry},
    message::reply::Reply,
};
pub use server::run;
