//! From a file to something that serves, or to the list of everything that is wrong with it.

use std::{fmt, path::Path, sync::Arc};

use super::{Config, Plan, build, tests};
use crate::{
    filter::Registry,
    proxy::{Runtime, Shared},
    units::{
        Problem, Problems,
        tree::{parse, read},
    },
};

/// A configuration, ready for traffic.
#[derive(Debug)]
pub struct Loaded {
    /// What serves.
    pub runtime: Runtime,
    /// What is decided once.
    pub plan: Plan,
    /// How many of the configuration's own tests passed.
    pub tests: usize,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    file: String,
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{}:{}:{}: {problem}", self.file, problem.line.max(1), problem.column.max(1))?;
        }
        let count = self.problems.len();
        write!(f, "{}: {count} problem{}", self.file, if count == 1 { "" } else { "s" })
    }
}

impl std::error::Error for Rejected {}

/// Reads and builds the configuration in `text`, and runs its tests. `file` is its name in messages.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(file: &str, text: &str, registry: &Registry, shared: &Arc<Shared>) -> Result<Loaded, Rejected> {
    let rejected = |problems: Problems| Rejected { file: file.to_owned(), problems: problems.sorted() };
    let (root, mut problems) = match parse(text, &|name| std::env::var(name).ok()) {
        Ok(parsed) => parsed,
        Err(problem) => return Err(Rejected { file: file.to_owned(), problems: vec![problem] }),
    };
    let (config, wrong) = read::<Config>(&root);
    problems.extend(wrong);
    let Some(mut config) = config else { return Err(rejected(problems)) };
    let expectations = std::mem::take(&mut config.tests);
    let listeners = config.listeners.clone();
    let (runtime, plan) = build::build(config, &root, registry, shared, &mut problems);
    // Tests of a configuration that is wrong would only repeat what is wrong.
    if problems.is_empty() {
        tests::run(&expectations, &listeners, text, registry, &mut problems);
    }
    if problems.is_empty() { Ok(Loaded { runtime, plan, tests: expectations.len() }) } else { Err(rejected(problems)) }
}

/// Reads and builds the file at `path`.
///
/// # Errors
/// Every problem; that it cannot be read is one.
pub fn check(path: &Path, registry: &Registry, shared: &Arc<Shared>) -> Result<Loaded, Rejected> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => load(&file, &text, registry, shared),
        Err(e) => {
            let problem =
                Problem { line: 1, column: 1, path: String::new(), message: format!("cannot read the file: {e}") };
            Err(Rejected { file, problems: vec![problem] })
        }
    }
}

/// Builds only the part that decides on requests, with state of its own, for the configuration's tests.
pub(super) fn scratch(text: &str, registry: &Registry) -> Option<Runtime> {
    let (root, mut problems) = parse(text, &|name| std::env::var(name).ok()).ok()?;
    let config = read::<Config>(&root).0?;
    Some(build::build(config, &root, registry, &Shared::new(), &mut problems).0)
}
