//! Diagnostics: `log` and `env_logger`, as text or as one JSON object a line, to stderr.
//!
//! `RUST_LOG` wins over `LOG_LEVEL`, which wins over the YAML's `log.level`.

use std::io::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;

/// `log:` in the YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or a filter such as `warn,tollgate=debug`. Default `info`
    /// for the gateway and `warn` for its libraries.
    pub level: String,
    /// `text` (default) or `json`.
    pub format: LogFormat,
}

/// How a diagnostic line looks.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `2026-11-21T10:00:00Z INFO tollgate: message`
    #[default]
    Text,
    /// `{"time":"...","level":"INFO","target":"tollgate","message":"..."}`
    Json,
}

/// What Pingora logs as errors about clients that went away, and while a successor waits for its sockets, is neither an
/// error nor news: the access log tells of the former, our own lines of the latter.
const DEFAULT: &str = "warn,tollgate=info,pingora_proxy=off,pingora_core::server::transfer_fd=off";

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: DEFAULT.into(), format: LogFormat::Text }
    }
}

impl LogConfig {
    /// The filter that is in force, after the environment had its say.
    pub fn filter(&self) -> String {
        let from = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        from("RUST_LOG").or_else(|| from("LOG_LEVEL")).unwrap_or_else(|| self.level.clone())
    }

    /// True when `level` is a level, or a list of levels and `target=level`. (A bare word that is no level would be
    /// taken for a target, and a slip of the finger would switch the log off.)
    pub fn is_valid(&self) -> bool {
        let is_level = |text: &str| text.trim().parse::<log::LevelFilter>().is_ok();
        self.level.split(',').all(|item| match item.split_once('=') {
            Some((target, level)) => !target.trim().is_empty() && is_level(level),
            None => is_level(item),
        })
    }

    /// Installs the logger. A second call has no effect: the first logger stays.
    pub fn install(&self) {
        let mut builder = env_logger::Builder::new();
        builder.parse_filters(&self.filter());
        if self.format == LogFormat::Json {
            builder.format(|out, record| {
                let line = serde_json::json!({
                    "time": out.timestamp_millis().to_string(),
                    "level": record.level().as_str(),
                    "target": record.target(),
                    "message": record.args().to_string(),
                });
                writeln!(out, "{line}")
            });
        } else {
            builder.format_timestamp_millis();
        }
        let _ = builder.try_init();
    }
}
