//! The access log: its settings, and its way to a file. What a line says is written where requests are known
//! (`proxy/access_line.rs`).

pub(crate) mod config;
pub(crate) mod metrics;
pub(crate) mod writer;
