//! What is wrong with a configuration: one line per mistake, all of them in one run.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

/// One mistake in a configuration, at the place an editor can jump to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// 1-based line in the file; 0 when the problem belongs to no line.
    pub line: usize,
    /// 1-based column.
    pub column: usize,
    /// The key path, such as `routes[0].filters[2].rate_limit`.
    pub path: String,
    /// What is wrong, as a lower-case fragment, with the suggestion already in it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands in the file must not make a line of its own, nor move the cursor of whoever reads this.
        let plain = |text: &str, f: &mut fmt::Formatter<'_>| {
            text.chars()
                .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
        };
        if !self.path.is_empty() {
            plain(&self.path, f)?;
            f.write_str(": ")?;
        }
        plain(&self.message, f)
    }
}

/// Every mistake found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    found: Vec<Problem>,
    known: HashSet<Problem>,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        if self.known.insert(problem.clone()) {
            self.found.push(problem);
        }
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: Problems) {
        other.found.into_iter().for_each(|problem| self.push(problem));
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// True when there is one at a path that begins with `path`.
    pub(crate) fn has_below(&self, path: &str) -> bool {
        self.found.iter().any(|problem| problem.path.starts_with(path))
    }

    /// In the order in which they were found.
    pub(crate) fn in_order(self) -> Vec<Problem> {
        self.found
    }

    /// In the order of the file.
    pub fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        self.found
    }
}
