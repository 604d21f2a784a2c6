//! What happened, for people and machines: how metrics are made, the access log, diagnostics. Handles only, no policy; what
//! a room counts stands in that room.

pub(crate) mod access_log;
pub(crate) mod diagnostics;
pub(crate) mod process;
pub(crate) mod registry;

pub use self::access_log::writer::{AccessLog, Output};
pub use diagnostics::{LogConfig, LogFormat};
pub use process::ProcessMetrics;
pub use registry::Lazy;
