//! Diagnostics: `log` and `env_logger`, as text or as one JSON object a line, to stderr.
//!
//! `RUST_LOG` wins over `LOG_LEVEL`, which wins over the YAML's `log.level`.

use std::io::Write as _;

use log::LevelFilter;
use schemars::JsonSchema;
use serde::Deserialize;

/// `log:` in the YAML.
#[derive(Debug, Clone, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or a filter such as `warn,tollgate=debug`. Default `info`
    /// for the gateway and `warn` for its libraries. What clients can make libraries say without end is left out up to
    /// `info`, unless the filter names it (`info,rustls=warn`). `debug` and `trace` alone are the gateway's own; libraries
    /// have to be named (`debug,pingora_proxy=debug`), for what they say there holds credentials.
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

const DEFAULT: &str = "warn,tollgate=info";

/// What Pingora logs as errors about clients that went away, and while a successor waits for its sockets, is neither an
/// error nor news: the access log tells of the former, our own lines of the latter. Neither is it that two threads reached
/// for the same kept connection (one opens another). And no client may write a line per connection into the log, as
/// rustls lets it by a name that is an address.
const QUIET: &str = "pingora_proxy=off,pingora_core::server::transfer_fd=off,pingora_core::connectors=off,rustls=error";

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: DEFAULT.into(), format: LogFormat::Text }
    }
}

/// The filter `asked` for, without noise unless that is what was asked for by its name. `debug` and `trace` are the
/// gateway's own: what its libraries say there are requests and answers as they pass, with credentials in them.
fn hushed(asked: &str) -> String {
    let mut wants_noise = false;
    let items = asked.split(',').map(str::trim).map(|item| match item.parse::<LevelFilter>() {
        Ok(level @ (LevelFilter::Debug | LevelFilter::Trace)) => {
            wants_noise = true;
            format!("info,tollgate={level}")
        }
        Ok(LevelFilter::Off) => {
            wants_noise = true;
            item.to_owned()
        }
        _ => item.to_owned(),
    });
    let filter = items.collect::<Vec<_>>().join(",");
    if wants_noise { filter } else { format!("{QUIET},{filter}") }
}

fn is_level(text: &str) -> bool {
    text.trim().parse::<log::LevelFilter>().is_ok()
}

/// True for a level, or a list of levels and `target=level`. (A bare word that is no level would be taken for a target,
/// and a slip of the finger would switch the log off.)
fn is_filter(text: &str) -> bool {
    text.split(',').all(|item| match item.split_once('=') {
        Some((target, level)) => !target.trim().is_empty() && is_level(level),
        None => is_level(item),
    })
}

impl LogConfig {
    /// The filter that is in force, after the environment had its say.
    pub fn filter(&self) -> String {
        let from = |name| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
            if is_filter(&value) {
                return Some(value);
            }
            let mut errors = std::io::stderr().lock();
            let _ = writeln!(errors, "{name}: not a log level or filter such as info or warn,tollgate=debug; ignored");
            None
        };
        let asked = from("RUST_LOG").or_else(|| from("LOG_LEVEL")).unwrap_or_else(|| self.level.clone());
        hushed(&asked)
    }

    /// True when `level` is a level or a filter.
    pub fn is_valid(&self) -> bool {
        is_filter(&self.level)
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

#[cfg(test)]
mod tests {
    use log::Level::{Debug, Error, Info, Warn};

    use super::*;

    #[test]
    fn noise_is_there_for_those_who_ask() {
        let enabled = |asked: &str, target: &str, level| {
            let logger = env_logger::Builder::new().parse_filters(&hushed(asked)).build();
            log::Log::enabled(&logger, &log::Metadata::builder().target(target).level(level).build())
        };
        for asked in [DEFAULT, "info", "warn"] {
            assert!(!enabled(asked, "rustls::msgs::handshake", Warn), "{asked}");
            assert!(enabled(asked, "rustls::msgs::handshake", Error) && enabled(asked, "tollgate", Warn), "{asked}");
            assert!(!enabled(asked, "pingora_proxy", Error), "{asked}");
            assert!(!enabled(asked, "pingora_core::connectors", Error), "{asked}");
            assert!(enabled(asked, "pingora_core::server", Error), "{asked}");
        }
        assert!(enabled("info,rustls=warn", "rustls::msgs", Warn));
        assert!(enabled("debug", "tollgate::proxy", Debug) && enabled("debug", "pingora_proxy", Error));
        assert!(enabled("info,pingora_proxy=debug", "pingora_proxy", Debug));
        // They show heads as they pass.
        for library in ["rustls::msgs", "pingora_proxy", "pingora_core", "h2", "hyper"] {
            for asked in ["trace", "debug", "TRACE", "Debug", " debug", "info,debug", "trace,tollgate=info"] {
                assert!(!enabled(asked, library, Debug), "{asked}: {library}");
            }
        }
        assert!(!enabled("off", "tollgate", Error) && !enabled("off", "rustls", Error));
        assert!(!enabled("warn", "tollgate", Info));
    }
}
