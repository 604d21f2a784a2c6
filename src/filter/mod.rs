//! The steps of a route's chain, in the order of its YAML.
//!
//! A [`Filter`] is one step, built once from its settings ([`Configure`]) and shared by every request of its route.
//! The [`Chain`] runs them; the [`Registry`] knows their names. A new built-in is one new file in
//! `builtin/` and one line in its `mod.rs`.

pub(crate) mod builtin;
mod chain;
mod configure;
pub(crate) mod contract;
mod entry;
mod env;
mod exchange;
pub(crate) mod http_place;
mod key_set;
mod metrics;
mod outbound;
mod password_checks;
mod registry;
mod subject;

pub use self::builtin::headers::{HeaderEdits, HeaderEditsConfig};
pub use self::configure::{Configure, Needs};
pub use self::contract::{Background, Body, Fault, Filter, Flow, RequestOutcome};
pub use crate::clock::Now;
pub use crate::message::reason::Reason;
pub use crate::message::reply::{Reply, ReplyBody};
pub use crate::message::request_id::RequestId;
pub use chain::{Chain, OnFault, Refusal, Step, StepMetrics};
pub use env::{Env, Invalid, LimitNames, Member, Members};
pub use exchange::{Applied, Exchange, State};
pub use http_place::HttpPlace;
pub use key_set::{KeySet, KeySetSource, KeySets, KeySetsDraft};
pub use metrics::{FilterMetrics, SharedCounts};
pub use outbound::{Outbound, OutboundAnswer, OutboundTarget};
pub use password_checks::PasswordChecks;
pub use registry::Registry;
