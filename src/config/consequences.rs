//! Which problems only follow from others. Reading sets a mistake aside and goes on, so that every mistake is found at once;
//! what is checked afterwards then judges a whole that lacks a part, and would say so a second time, in other words.

use crate::{
    units::Problem,
    yaml::{Node, UNSET, Value},
};

/// How the problem of a key that nobody knows begins.
const UNKNOWN: &str = "unknown key";

/// Lists at the root whose entries others name, with the key that holds the name, and what is said of an entry that is not there.
const NAMED: [(&str, &str, &str); 3] = [
    ("api_keys", "id", "no key has the id '"),
    ("listeners", "name", "there is no listener '"),
    ("services", "", "there is no service '"),
];

/// So many comparisons: whoever has thousands of problems does not read them one by one.
const ENOUGH: usize = 4_000_000;

/// What was found while the file was read, and by the checks afterwards, without what only follows from something else.
pub(super) fn without(read: Vec<Problem>, checked: Vec<Problem>, root: &Node) -> Vec<Problem> {
    // The settings of filters are read when their chain is built, and come among what is checked.
    let (read, checked) = (without_unset(without_misspelt(read)), without_misspelt(checked));
    let reported: Vec<String> = read.iter().filter_map(meant).collect();
    let checked = without_unset(read.iter().cloned().chain(checked).collect()).split_off(read.len());
    if reported.len().saturating_mul(checked.len()).max(checked.len().saturating_pow(2)) > ENOUGH {
        return sorted(read.into_iter().chain(checked).collect());
    }
    let mut kept: Vec<Problem> = Vec::new();
    for problem in checked {
        let all = reported.iter().map(String::as_str).chain(kept.iter().map(|other| other.path.as_str()));
        if !judges_a_part(&problem, &reported) && !names_what_is_wrong(&problem, all, root) {
            kept.push(problem);
        }
    }
    sorted(read.into_iter().chain(kept).collect())
}

/// In the order of the file.
fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

/// The path that a problem is about: a key that nobody knows was meant for the one that it resembles.
fn meant(problem: &Problem) -> Option<String> {
    if !problem.message.starts_with(UNKNOWN) {
        return Some(problem.path.clone());
    }
    let key = problem.message.split_once("(did you mean '")?.1.split_once('\'')?.0;
    Some(if problem.path.is_empty() { key.to_owned() } else { format!("{}.{key}", problem.path) })
}

/// `path` is `whole`, or lies below it.
fn within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `path` as the mapping that it lies in, and its key.
fn around(path: &str) -> (&str, &str) {
    let mut path = path;
    while let Some((list, _)) = path.strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
        path = list;
    }
    path.rsplit_once('.').unwrap_or(("", path))
}

/// True when `message` speaks of `key` between quotation marks, alone or with a value.
fn quotes(message: &str, key: &str) -> bool {
    let mut found = message.match_indices(key);
    found.any(|(at, _)| message[..at].ends_with('\'') && message[at + key.len()..].starts_with(['\'', ':']))
}

/// It judges something of which a part has been reported, or speaks of a key beside it that has.
fn judges_a_part(problem: &Problem, reported: &[String]) -> bool {
    let beside = |path: &String| {
        let (parent, key) = around(path);
        // What stands at the root is spoken of everywhere.
        let near = parent.is_empty() || problem.path == parent || around(&problem.path).0 == parent;
        near && !key.is_empty() && quotes(&problem.message, key)
    };
    let part = |path: &String| !problem.path.is_empty() && within(path, &problem.path);
    reported.iter().any(|path| part(path) || beside(path))
}

/// It names an entry of the file in which something is wrong.
fn names_what_is_wrong<'a>(problem: &Problem, wrong: impl Iterator<Item = &'a str> + Clone, root: &Node) -> bool {
    let message = problem.message.as_str();
    // What takes the same requests, or has the same name, does so for want of what was wrong.
    let other =
        message.strip_prefix("never reached: ").or_else(|| message.split_once("' is what ").map(|(_, rest)| rest));
    if let Some(entry) = other.and_then(|rest| rest.split(' ').next()) {
        let parts = [format!("{entry}.match"), format!("{entry}.id"), format!("{entry}.listeners")];
        let mine = [format!("{}.match", problem.path), format!("{}.listeners", problem.path)];
        return wrong.clone().any(|path| parts.iter().chain(&mine).any(|part| within(path, part)));
    }
    if message.starts_with("there are no keys") {
        return root.get("api_keys").is_some_and(|keys| !matches!(keys.value(), Value::Seq(items) if items.is_empty()));
    }
    NAMED.iter().any(|(section, key, absent)| {
        let Some(name) = message.strip_prefix(absent).and_then(|rest| rest.split('\'').next()) else { return false };
        let stands =
            |item: &Node| matches!(item.get(key).map(Node::value), Some(Value::Scalar { text, .. }) if text == name);
        let there = match root.at(section).value() {
            Value::Seq(items) => items.iter().any(stands),
            // One that stands for a list.
            Value::Map(_) if !key.is_empty() => stands(root.at(section)),
            _ => false,
        };
        // A name that could not be read may be this one.
        let nameless = |path: &str| path == *section || around(path).1 == *key && within(path, section);
        there || wrong.clone().any(nameless)
    })
}

/// A key that is missing because it is misspelt has been reported as that.
fn without_misspelt(problems: Vec<Problem>) -> Vec<Problem> {
    let misspelt: Vec<String> =
        problems.iter().filter(|problem| problem.message.starts_with(UNKNOWN)).filter_map(meant).collect();
    let follows = |problem: &Problem| {
        let key = problem.message.strip_prefix("key '").and_then(|rest| rest.strip_suffix("' is missing"));
        key.is_some_and(|key| misspelt.iter().any(|path| around(path) == (problem.path.as_str(), key)))
    };
    problems.iter().filter(|problem| !follows(problem)).cloned().collect()
}

/// Takes out what a variable that is not set has led to: what is said of its place, and of the mapping around it, which
/// seems to lack something.
fn without_unset(problems: Vec<Problem>) -> Vec<Problem> {
    let is_unset = |problem: &Problem| problem.message.starts_with(UNSET);
    let places: Vec<String> =
        problems.iter().filter(|problem| is_unset(problem)).map(|problem| problem.path.clone()).collect();
    // What is said of the mapping is a consequence only if it is about that key: other mistakes stand there, too.
    let follows = |problem: &Problem| {
        let of = |path: &String| {
            let (parent, key) = around(path);
            let lacks =
                problem.path == parent && quotes(&problem.message, key) && !problem.message.starts_with(UNKNOWN);
            problem.path == *path || lacks
        };
        !is_unset(problem) && places.iter().any(of)
    };
    problems.iter().filter(|problem| !follows(problem)).cloned().collect()
}
