//! Floor 6: the thin layer between Pingora and everything else.
//!
//! `gateway.rs` holds the hooks, each a delegation of a few lines; the other rooms hold one idea each.

pub(crate) mod access;
pub(crate) mod arrival;
pub(crate) mod attempt;
pub(crate) mod context;
pub(crate) mod failure;
pub(crate) mod finish;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod gateway;
pub(crate) mod hedge;
pub(crate) mod mirror;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub(crate) mod respond;
pub(crate) mod waiting;

pub(crate) use access::AccessConfig;
pub(crate) use gateway::Gateway;
