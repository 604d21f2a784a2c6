//! Tollgate.
pub mod auth;
pub mod filter;
pub mod limit;
pub mod telemetry;
pub mod units;
