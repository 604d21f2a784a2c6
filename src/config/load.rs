//! From a file to something that serves, or to the list of everything that is wrong with it.

use std::{cell::RefCell, fmt, path::Path, sync::Arc};

use super::{Config, Plan, build, consequences, expectations as tests, report::Report, warnings};
use crate::{
    filter::Registry,
    runtime::{Runtime, Shared},
    units::{Problem, Problems},
    yaml::{Node, parse, read},
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
    /// What is allowed and hardly meant.
    pub warnings: Report,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected(pub Report);

impl Rejected {
    /// What is wrong is the file as a whole.
    pub(crate) fn whole(file: &str, message: String) -> Self {
        Self::of(file, "", vec![Problem { line: 1, column: 1, path: String::new(), message }])
    }

    fn of(file: &str, text: &str, problems: Vec<Problem>) -> Self {
        Self(Report { file: file.to_owned(), text: text.to_owned(), kind: "problem", found: problems })
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Rejected {}

/// Reads and builds the configuration in `text`, and runs its tests. `file` is its name in messages.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(file: &str, text: &str, registry: &Registry, shared: &Arc<Shared>) -> Result<Loaded, Rejected> {
    let variables = Variables::default();
    let rejected = |read: Problems, checked: Problems, root: &Node| {
        let mut problems = consequences::without(read.sorted(), checked.in_order(), root);
        for problem in &mut problems {
            problem.message = variables.hidden_in(&problem.message);
        }
        Rejected::of(file, text, problems)
    };
    let (root, mut wrong) = match parse(text, &|name| variables.get(name)) {
        Ok(parsed) => parsed,
        Err(problem) => return Err(Rejected::of(file, text, vec![problem])),
    };
    let (config, more) = read::<Config>(&root);
    wrong.extend(more);
    let mut problems = Problems::default();
    let Some(mut config) = config else { return Err(rejected(wrong, problems, &root)) };
    let expectations = std::mem::take(&mut config.tests);
    let listeners = config.listeners.clone();
    let mut doubtful = Problems::default();
    // Nobody is told of doubts while there are mistakes.
    if wrong.is_empty() {
        doubtful = warnings::warnings(&config, &root, registry);
    }
    let (runtime, plan) = build::build(config, &root, registry, shared, &mut problems);
    warnings::signed::unsignable(&runtime, &root, &mut problems);
    // Tests of a configuration that is wrong would only repeat what is wrong.
    if wrong.is_empty() && problems.is_empty() {
        tests::run(&expectations, &listeners, text, registry, &mut problems);
    } else {
        tests::check(&expectations, &listeners, &wrong, &mut problems);
    }
    if !wrong.is_empty() || !problems.is_empty() {
        return Err(rejected(wrong, problems, &root));
    }
    warnings::signed::uncovered(&runtime, &root, &mut doubtful);
    let mut doubtful = doubtful.sorted();
    for warning in &mut doubtful {
        warning.message = variables.hidden_in(&warning.message);
    }
    let warnings = Report { file: file.to_owned(), text: text.to_owned(), kind: "warning", found: doubtful };
    Ok(Loaded { runtime, plan, tests: expectations.len(), warnings })
}

/// The text of a configuration file.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn read_text(path: &Path) -> Result<String, Rejected> {
    let file = path.display().to_string();
    let problem = |line, column, message| Problem { line, column, path: String::new(), message };
    let problem = match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(e) => {
                let (good, bad) = e.as_bytes().split_at(e.utf8_error().valid_up_to());
                let before = String::from_utf8_lossy(good);
                let last = before.rsplit('\n').next().unwrap_or_default();
                let byte = bad.first().copied().unwrap_or_default();
                let message = format!("the byte 0x{byte:02x} is no UTF-8: save the file in that encoding");
                problem(before.matches('\n').count() + 1, last.chars().count() + 1, message)
            }
        },
        Err(e) => return Err(Rejected::whole(&file, format!("cannot read the file: {e}"))),
    };
    Err(Rejected::of(&file, "", vec![problem]))
}

/// The variables that a file names, with their values.
#[derive(Default)]
struct Variables(RefCell<Vec<(String, String)>>);

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        let value = std::env::var(name).ok()?;
        let mut known = self.0.borrow_mut();
        if !value.is_empty() && !known.iter().any(|(other, _)| other == name) {
            known.push((name.to_owned(), value.clone()));
            // The longest first: a value may be part of another one.
            known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        }
        Some(value)
    }

    /// `message` without what it must not repeat: values of variables, passwords in URLs, keys in PEM.
    fn hidden_in(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for (name, value) in &*self.0.borrow() {
            let name = format!("${{{name}}}");
            message = if value.len() < SECRET {
                message.replace(&format!("'{value}'"), &format!("'{name}'"))
            } else if may_be_ours(value) {
                in_quotations(&message, |quoted| quoted.replace(value.as_str(), &name))
            } else {
                message.replace(value.as_str(), &name)
            };
        }
        let message = self.without_parts(&message);
        hide(&hide(&message, "://", |rest| rest.rfind('@').map(|end| (0, end))), "-----BEGIN", |rest| {
            Some((0, rest.len()))
        })
    }

    /// `message` with the name of a variable for each quotation that is a part of its value, in whatever spelling.
    fn without_parts(&self, message: &str) -> String {
        let values = self.0.borrow();
        let hidden = |part: &str| {
            let part = part.trim_end_matches('…').trim_end_matches("...").to_lowercase();
            let holds = |(_, value): &&(String, String)| value.to_lowercase().contains(&part);
            if part.len() < PART { None } else { values.iter().find(holds).map(|(name, _)| format!("${{{name}}}")) }
        };
        let parts = message.split('\'').enumerate();
        // Every other part stands between quotation marks.
        let parts =
            parts.map(|(i, part)| if i % 2 == 1 { hidden(part).unwrap_or(part.to_owned()) } else { part.to_owned() });
        parts.collect::<Vec<_>>().join("'")
    }
}

/// Shorter parts of values may stand in a message by chance.
const PART: usize = 8;

/// Shorter values are no secrets, and stand in many words.
const SECRET: usize = 4;

/// No word of ours is as long.
const LONG_WORD: usize = 20;

/// True for a value that our own words may have in them: a word, a number, an address. Everything else is hidden wherever it
/// stands, for others' words have no quotation marks.
fn may_be_ours(value: &str) -> bool {
    let word = value.chars().all(|c| c.is_alphabetic() || " _-".contains(c)) && value.len() < LONG_WORD;
    let number = value.chars().all(|c| c.is_ascii_digit() || ".:[]".contains(c)) && value.len() < LONG_WORD;
    word || number || value.len() < PART
}

/// `message` with `change` made in what stands between quotation marks: what comes from the file. One that holds such a mark
/// itself leaves one over: then all of it is taken for quoted.
fn in_quotations(message: &str, change: impl Fn(&str) -> String) -> String {
    let (mut out, mut rest, mut before) = (String::with_capacity(message.len()), message, ' ');
    while let Some(at) = rest.find(['\'', '"']) {
        let (words, quoted) = rest.split_at(at);
        let (mark, quoted) = quoted.split_at(1);
        let begins = !words.chars().next_back().unwrap_or(before).is_alphanumeric();
        if !begins && quoted.starts_with(char::is_alphanumeric) {
            // As in "the route's".
            out.push_str(words);
            out.push_str(mark);
            (rest, before) = (quoted, '\'');
            continue;
        }
        let closes = |(at, _): &(usize, &str)| !quoted[at + 1..].starts_with(char::is_alphanumeric);
        let (true, Some((end, _))) = (begins, quoted.match_indices(mark).find(closes)) else {
            return change(message);
        };
        out.push_str(words);
        out.push_str(mark);
        out.push_str(&change(&quoted[..end]));
        out.push_str(mark);
        (rest, before) = (&quoted[end + 1..], '\'');
    }
    out + rest
}

/// `message` with stars for what `find` finds between each `mark` and the end of what is quoted there.
fn hide(message: &str, mark: &str, find: impl Fn(&str) -> Option<(usize, usize)>) -> String {
    let (mut out, mut rest) = (String::with_capacity(message.len()), message);
    while let Some((before, after)) = rest.split_once(mark) {
        let quoted = &after[..after.find('\'').unwrap_or(after.len())];
        out.push_str(before);
        out.push_str(mark);
        rest = after;
        if let Some((start, end)) = find(quoted) {
            out.push_str(&after[..start]);
            out.push_str("***");
            rest = &after[end..];
        }
    }
    out + rest
}
