//! A service: its backends, which of them are well, and which one is next.

pub(crate) mod backend;
pub(crate) mod backend_list;
pub(crate) mod balance;
pub(crate) mod checks;
pub(crate) mod choice;
pub(crate) mod concurrency;
pub(crate) mod discovery;
pub(crate) mod exchange;
pub(crate) mod failure_kind;
pub(crate) mod fetch;
pub(crate) mod health;
pub(crate) mod known_names;
mod lone_peer;
pub(crate) mod lookup;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod outbound;
pub(crate) mod peers;
pub(crate) mod pool;
mod pool_watch;
pub(crate) mod resilience;
pub(crate) mod response;
pub(crate) mod selector;
pub(crate) mod service;
pub(crate) mod service_limits;
pub(crate) mod settings;
pub(crate) mod signer;
mod sticky;
pub(crate) mod token;
pub(crate) mod trouble;
pub(crate) mod tunnel;
pub(crate) mod url;
pub(crate) mod watch;

pub(crate) use self::{
    backend::{Backend, BackendPermit},
    concurrency::{ConcurrencyLimit, Permit},
    failure_kind::FailureKind,
    metrics::{ServiceMetrics, UpstreamMetrics},
    resilience::AttemptOutcome,
    service::{Service, Surroundings},
};
