//! Floor 2: what happened, for people and machines. Metrics, the access log and diagnostics; handles only, no policy.

mod access;
mod connections;
mod diagnostics;
mod metrics;
mod process;
mod service;

pub use access::{AccessLog, Output};
pub use connections::ConnectionMetrics;
pub use diagnostics::{LogConfig, LogFormat};
pub use metrics::{Lazy, MethodClass, Metrics, RouteMetrics};
pub use process::resident_bytes;
pub use service::ServiceMetrics;
