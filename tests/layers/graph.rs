//! Which file uses which: read from `use` trees and paths, followed through re-exports to where a thing is defined.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module's path below `crate`.
pub(crate) type Module = Vec<String>;

/// One source file.
pub(crate) struct File {
    /// Its name below `src/`.
    pub(crate) name: String,
    /// Its text without tests and comments.
    pub(crate) code: String,
    items: BTreeSet<String>,
    /// Names that it re-exports or imports, with the paths that they stand for.
    imports: BTreeMap<String, Module>,
}

/// All of `src/`.
pub(crate) struct Sources {
    pub(crate) files: BTreeMap<Module, File>,
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module(name: &str) -> Module {
    let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The text without the tests at its end, comment lines and what stands in quotes.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The paths of a `use` tree, in full.
pub(crate) fn leaves(tree: &str) -> Vec<(Module, String)> {
    fn walk(text: &str, prefix: &Module, found: &mut Vec<(Module, String)>) {
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (at, c) in text.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[start..]);
        for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
            if let Some((path, rest)) = part.split_once('{') {
                let mut prefix = prefix.clone();
                prefix.extend(
                    path.trim().trim_end_matches("::").split("::").filter(|s| !s.is_empty()).map(str::to_owned),
                );
                walk(rest.trim_end().trim_end_matches('}'), &prefix, found);
                continue;
            }
            let (path, alias) = part.split_once(" as ").map_or((part, None), |(path, alias)| (path, Some(alias)));
            let mut whole = prefix.clone();
            whole.extend(path.trim().split("::").map(str::to_owned));
            if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
                whole.pop();
            }
            let name = alias.map_or_else(|| whole.last().unwrap().clone(), |alias| alias.trim().to_owned());
            found.push((whole, name));
        }
    }
    let mut found = Vec::new();
    walk(tree, &Vec::new(), &mut found);
    found
}

/// `use` statements: whether they stand at the file's first level, and their trees.
fn uses(code: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let line = &rest[..at];
        let before = &line[line.rfind('\n').map_or(0, |end| end + 1)..];
        let is_statement = before.trim().is_empty() || before.trim().starts_with("pub") && !before.contains('{');
        rest = &rest[at + 4..];
        if is_statement && let Some(end) = rest.find(';') {
            found.push((!before.starts_with(' '), rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

fn items(code: &str) -> BTreeSet<String> {
    let words = ["struct", "enum", "fn", "trait", "type", "const", "static"];
    let mut found = BTreeSet::new();
    for line in code.lines().filter(|line| !line.starts_with([' ', '}', '#', ')'])) {
        let mut last = "";
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
            if words.contains(&last) && !words.contains(&word) {
                found.insert(word.to_owned());
                break;
            }
            last = word;
        }
    }
    found
}

impl Sources {
    pub(crate) fn read() -> Self {
        let mut paths = Vec::new();
        sources(Path::new("src"), &mut paths);
        let mut files = BTreeMap::new();
        for path in paths {
            let name = path.strip_prefix("src").unwrap().display().to_string();
            let code = code(&fs::read_to_string(&path).unwrap());
            let items = items(&code);
            files.insert(module(&name), File { name, code, items, imports: BTreeMap::new() });
        }
        let mut this = Self { files };
        let modules: Vec<Module> = this.files.keys().cloned().collect();
        for own in modules {
            let trees = uses(&this.files[&own].code);
            let all = trees.iter().filter(|(top, _)| *top).flat_map(|(_, tree)| leaves(tree));
            let imports: BTreeMap<_, _> =
                all.filter_map(|(path, name)| Some((name, this.absolute(&own, &path)?))).collect();
            this.files.get_mut(&own).unwrap().imports = imports;
        }
        this
    }

    /// A path below `crate`; nothing for one into another crate.
    fn absolute(&self, own: &Module, path: &[String]) -> Option<Module> {
        let mut base = own.clone();
        let rest = match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => &path[1..],
            "super" => {
                let up = path.iter().take_while(|step| *step == "super").count();
                base.truncate(own.len().saturating_sub(up));
                &path[up..]
            }
            child => {
                base.push(child.to_owned());
                if !self.files.contains_key(&base) {
                    return None;
                }
                &path[1..]
            }
        };
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that defines what a path names.
    fn definition(&self, path: &[String], depth: usize) -> Option<Module> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let file = &self.files[module];
        match rest.first().filter(|name| !file.items.contains(*name)).and_then(|name| file.imports.get(name)) {
            Some(elsewhere) if depth < 12 => {
                let mut elsewhere = elsewhere.clone();
                elsewhere.extend(rest[1..].iter().cloned());
                self.definition(&elsewhere, depth + 1)
            }
            _ => Some(module.to_vec()),
        }
    }

    /// The files that each file uses.
    pub(crate) fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut edges = BTreeMap::new();
        for (own, file) in &self.files {
            let mut paths: Vec<Module> =
                uses(&file.code).iter().flat_map(|(_, tree)| leaves(tree)).map(|(path, _)| path).collect();
            for start in ["crate::", "super::", "self::"] {
                for part in file.code.split(start).skip(1) {
                    let text: String = part.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
                    // A tree: its leaves are there already.
                    if text.is_empty() || text.ends_with("::") {
                        continue;
                    }
                    let mut path = vec![start.trim_end_matches(':').to_owned()];
                    path.extend(text.split("::").filter(|step| !step.is_empty()).map(str::to_owned));
                    paths.push(path);
                }
            }
            let used = paths.iter().filter_map(|path| self.definition(&self.absolute(own, path)?, 0));
            let used: BTreeSet<Module> = used.filter(|other| other != own && !other.is_empty()).collect();
            edges.insert(own.clone(), used);
        }
        edges
    }
}

/// Files that use one another in a circle.
pub(crate) fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            for other in edges.get(&module).into_iter().flatten() {
                if seen.insert(other.clone()) {
                    next.push(other.clone());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<Vec<Module>> = Vec::new();
    for (module, reached) in &all {
        if reached.contains(*module) && !found.iter().flatten().any(|known| known == *module) {
            let circle = reached.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*module)));
            found.push(circle.cloned().collect());
        }
    }
    found
}
