//! Redis, which gateways share: the connection, and limits that are counted there.
//!
//! No request waits for a store that does not answer: calls have a short time limit, after a few failures in a row there are none,
//! and whether it is back is found out in the background ([`RedisStore`]). What then counts is said per limit ([`SharedLimiter`]).

mod cell;
mod config;
mod connection;
mod digest;
mod failure;
mod metrics;
mod missed;
mod policy;
mod redis;
mod set_member;
mod settings;
mod share;
mod shared_answers;
mod shared_limiter;
mod shared_nonces;
mod shared_set;
mod state;
mod telling;

pub(crate) use self::failure::Complaints;
pub use self::{
    config::RedisConfig,
    metrics::StoreMetrics,
    policy::{OnStoreDown, SharedLimits, SharedSettings, SyncMode},
    redis::RedisStore,
    settings::{NO_PASSWORD, REDIS_URL, RedisSettings},
    shared_answers::{Found, NoAnswer, Purges, SharedAnswers},
    shared_limiter::SharedLimiter,
    shared_nonces::SharedNonces,
    shared_set::SharedSet,
    state::StoreState,
};
