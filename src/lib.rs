//! Tollgate.
pub mod telemetry;
pub mod units;
