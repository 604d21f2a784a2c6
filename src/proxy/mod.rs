//! Floor 6: the thin layer between Pingora and everything else.
//!
//! `gateway.rs` holds the hooks, each a delegation of a few lines; the other rooms hold one idea each.

pub(crate) mod access;
pub(crate) mod action;
pub(crate) mod arrival;
pub(crate) mod attempt;
pub(crate) mod context;
pub(crate) mod decide;
#[cfg(any(test, fuzzing))]
pub(crate) mod decoders;
pub(crate) mod failure;
pub(crate) mod finish;
pub(crate) mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod gateway;
pub(crate) mod hedge;
pub(crate) mod mirror;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod pattern;
pub(crate) mod readings;
pub(crate) mod respond;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod runtime;
pub(crate) mod shadow;
pub(crate) mod waiting;

pub(crate) use access::AccessConfig;
pub(crate) use action::{Action, Rewrite};
pub use decide::{Decision, decide};
pub(crate) use forward::Forward;
pub(crate) use gateway::Gateway;
pub(crate) use readings::PathsConfig;
pub(crate) use route::{Route, RouteConfig};
pub use router::{ListenerSet, Matcher, Router, Subject};
pub use runtime::{Runtime, Shared};
pub(crate) use shadow::Shadows;
