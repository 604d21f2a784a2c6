//! What happened, for people and machines. Metrics, the access log and diagnostics; handles only, no policy.

pub(crate) mod access_log;
pub(crate) mod connections;
pub(crate) mod diagnostics;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod service;

pub use self::access_log::writer::{AccessLog, Output};
pub use connections::ConnectionMetrics;
pub use diagnostics::{LogConfig, LogFormat};
pub use metrics::{Lazy, MethodClass, Metrics, RouteMetrics};
pub use process::resident_bytes;
pub use service::ServiceMetrics;
