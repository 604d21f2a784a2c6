//! `cache.disk:`, what memory has no room for.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{Size, Span};

/// With less, it would hold less than memory.
const LEAST: u64 = 16 << 20;

/// `cache.disk:`: answers that memory pushes out are kept in files, until this process ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CacheDiskConfig")]
pub struct DiskConfig {
    /// A directory that this process may write to. Each process has a folder of its own in it.
    pub path: PathBuf,
    /// The most bytes of all files; at least 16MiB. Default 1GiB.
    #[serde(default = "size")]
    pub size: Size,
    /// The most files. Each takes about 500 bytes of memory. Default 100000.
    #[serde(default = "files")]
    pub files: u64,
    /// The longest that a request waits for a file, before it asks a backend. Default 250ms, at most 5s.
    #[serde(default = "timeout")]
    pub timeout: Span,
}

fn size() -> Size {
    Size(1 << 30)
}

fn files() -> u64 {
    100_000
}

fn timeout() -> Span {
    Span(Duration::from_millis(250))
}

impl DiskConfig {
    /// What is wrong with it: key and message.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut mistakes = Vec::new();
        if !self.path.is_dir() {
            let message = format!("there is no directory '{}': make it, for the user of tollgate", self.path.display());
            mistakes.push(("path", message));
        }
        if self.size.0 < LEAST {
            mistakes
                .push(("size", format!("{} bytes would hold less than memory: give it 16MiB or more", self.size.0)));
        }
        if self.files == 0 || self.files > 100_000_000 {
            mistakes.push(("files", format!("{} is not from 1 to 100000000", self.files)));
        }
        if self.timeout.0 < Duration::from_millis(1) || self.timeout.0 > Duration::from_secs(5) {
            mistakes.push(("timeout", format!("{} is not from 1ms to 5s", self.timeout)));
        }
        mistakes
    }
}
