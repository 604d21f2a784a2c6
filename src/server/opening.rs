//! How a process begins: where it was started, and what it says first. With `-d` the command checks the file and starts itself
//! again; what is said is said once, by the process that serves.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::stat::{Mode, umask};

use crate::{config::Loaded, store::REDIS_URL, units::counted};

/// With which rights files are made, as the process was started.
static MASK: OnceLock<Mode> = OnceLock::new();

/// What is known before anything is changed.
#[derive(Debug)]
pub(super) struct Opening {
    /// Where the process was started: a file's own paths are relative to the file, and the process goes there.
    pub(super) directory: Option<PathBuf>,
    lines: Option<(String, Vec<String>)>,
}

impl Opening {
    /// To be called before `file` is read. One that is named by its whole path is found from everywhere.
    pub(super) fn new(file: Option<&Path>) -> Self {
        let mask = umask(Mode::from_bits_truncate(0o077));
        umask(mask);
        let _ = MASK.set(mask);
        let directory = file.filter(|file| file.is_relative()).and_then(|_| std::env::current_dir().ok());
        Self { directory, lines: None }
    }

    /// What is to be said of the file `name`.
    pub(super) fn tell_of(&mut self, name: &str, loaded: &Loaded) {
        let (runtime, plan) = (&loaded.runtime, &loaded.plan);
        let listeners: Vec<&str> = plan.listeners.iter().map(|listener| &*listener.address).collect();
        let line = format!(
            "{name}: {}, {}, {} passed; listeners {}; admin {}{}",
            counted(runtime.router.routes().count(), "route"),
            counted(runtime.services.len(), "service"),
            counted(loaded.tests, "test"),
            listeners.join(", "),
            plan.admin.as_ref().map_or("off", |admin| &admin.address),
            redis(loaded),
        );
        let warnings = loaded.warnings.found.iter().map(|warning| loaded.warnings.line(warning)).collect();
        self.lines = Some((line, warnings));
    }

    /// Says what begins here, and what is hardly meant.
    pub(super) fn say(&self) {
        let Some((line, warnings)) = &self.lines else { return };
        log::info!("tollgate {} (pid {}): {line}", env!("CARGO_PKG_VERSION"), std::process::id());
        for warning in warnings {
            log::warn!("{warning}");
        }
    }
}

/// Whether limits count together, where the environment has a say in that.
fn redis(loaded: &Loaded) -> String {
    let set = std::env::var_os(REDIS_URL).is_some_and(|url| !url.is_empty());
    match &loaded.runtime.redis {
        Some(store) if store.settings().is_by_environment() => format!("; redis by {REDIS_URL} of the environment"),
        None if set && !loaded.runtime.tables.is_empty() => {
            format!("; limits count in this process: {REDIS_URL} is set, but the file does not say 'redis: {{}}'")
        }
        _ => String::new(),
    }
}

/// In the background: files are made with the rights that the process was started with. Pingora sets its own when it goes
/// there, and whichever service makes a file first puts them back.
pub(super) fn restore_mask() {
    if let Some(mask) = MASK.get() {
        umask(*mask);
    }
}
