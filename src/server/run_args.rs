//! The options of `tollgate run`.

use std::path::PathBuf;

use clap::Args;

/// The variable that names the file when nothing else does.
const CONFIG: &str = "TOLLGATE_CONFIG";

/// The file that a variable of the environment names; an empty one names none.
pub(super) fn from_environment() -> Option<PathBuf> {
    std::env::var_os(CONFIG).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The flags of `tollgate` and `tollgate run`.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct RunArgs {
    /// The configuration file; `-` is standard input. Default: $TOLLGATE_CONFIG, or ./tollgate.yaml,
    /// if there is one.
    #[arg(short = 'c', long = "conf", visible_alias = "config", value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Check the configuration, run its tests, and exit.
    #[arg(short = 't', long)]
    pub(super) test: bool,
    /// With -t: warnings are errors, too.
    #[arg(long, requires = "test")]
    pub(super) strict: bool,
    /// Take the listening sockets over from the running process; no request fails.
    #[arg(short = 'u', long)]
    pub(crate) upgrade: bool,
    /// Run in the background.
    #[arg(short = 'd', long)]
    pub(crate) daemon: bool,
}

impl RunArgs {
    /// The file that was named, by an option or by the environment.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.conf.clone().or_else(from_environment)
    }
}
