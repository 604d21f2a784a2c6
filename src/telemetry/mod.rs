//! Floor 2: what happened, for people and machines. Metrics, the access log and diagnostics; handles only, no policy.

mod access;
mod diagnostics;
mod metrics;
mod process;

pub use access::{AccessLog, Output};
pub use diagnostics::{LogConfig, LogFormat};
pub use metrics::{MethodClass, Metrics, RouteMetrics, ServiceMetrics};
pub use process::resident_bytes;
