//! `access_log:` of the configuration.

use schemars::JsonSchema;
use serde::Deserialize;

use super::writer::Output;
use crate::{units::Size, yaml::Spanned};

/// `access_log:` in the YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Write it at all. Default true.
    pub enabled: bool,
    /// `stdout` (default), `stderr` or `{ file: PATH }`.
    pub output: Spanned<Output>,
    /// `json` (default) or `common`.
    pub format: AccessFormat,
    /// Log the query too. Default false.
    pub query: bool,
    /// Bytes that may wait to be written; lines beyond are dropped and counted. Default 4MiB.
    pub queue: Size,
}

impl Default for AccessConfig {
    fn default() -> Self {
        let output = Spanned { value: Output::Stdout, place: crate::yaml::Location::default() };
        Self { enabled: true, output, format: AccessFormat::Json, query: false, queue: Size(4 << 20) }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The Common Log Format of Apache and nginx.
    Common,
}
