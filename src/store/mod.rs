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
mod policy;
mod redis;
mod settings;
mod share;
mod shared_limiter;

pub use self::{
    config::RedisConfig,
    metrics::StoreMetrics,
    policy::{OnStoreDown, SharedLimits, SyncMode},
    redis::{RedisStore, StoreState},
    settings::{NO_PASSWORD, RedisSettings},
    shared_limiter::SharedLimiter,
};
