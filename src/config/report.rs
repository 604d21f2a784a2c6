//! How problems and warnings are written: a line each, which scripts can read; at a terminal with the line of the file below.

use std::fmt;

use super::excerpt::{Excerpt, excerpt};
use crate::units::{Problem, counted};

/// Who reads a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Show the line of the file, with a mark below the place.
    pub excerpts: bool,
    /// In colour.
    pub colour: bool,
}

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The file's name.
    pub(super) file: String,
    /// Its text; empty when there is none.
    pub(super) text: String,
    /// `problem` or `warning`.
    pub(super) kind: &'static str,
    /// In the order of the file.
    pub found: Vec<Problem>,
}

impl Report {
    /// As lines, the last of which counts them.
    pub fn styled(&self, style: Style) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.lines(&mut out, style);
        out
    }

    /// One line of it.
    pub fn line(&self, problem: &Problem) -> String {
        let warning = if self.kind == "warning" { "warning: " } else { "" };
        format!("{}:{}:{}: {warning}{problem}", self.file, problem.line.max(1), problem.column.max(1))
    }

    fn lines(&self, out: &mut dyn fmt::Write, style: Style) -> fmt::Result {
        let paint = |code: &str, text: &str| {
            if style.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        // Yellow for what may be meant so, red for what cannot be.
        let colour = if self.kind == "warning" { "1;33" } else { "1;31" };
        for problem in &self.found {
            let line = self.line(problem);
            let place = line.find(": ").unwrap_or(0);
            writeln!(out, "{}{}", paint("1", &line[..place]), &line[place..])?;
            let shown = style.excerpts.then(|| excerpt(&self.text, problem.line, problem.column, &problem.path));
            if let Some(Excerpt { line, before }) = shown.flatten() {
                let number = problem.line.to_string();
                let (margin, space) = (" ".repeat(number.len()), " ".repeat(before));
                writeln!(out, "  {}", paint("2", &format!("{number} |")) + " " + &line)?;
                writeln!(out, "  {} {space}{}", paint("2", &format!("{margin} |")), paint(colour, "^"))?;
            }
        }
        write!(out, "{}: {}", self.file, counted(self.found.len(), self.kind))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.styled(Style::default()))
    }
}
