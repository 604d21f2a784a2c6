//! The house's walls: which floor may use which, how large a room may be, and what must not stand in any of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules by floor; one may use those on lower floors only.
const FLOORS: &[(&str, u32)] = &[
    ("units", 10),
    ("clock", 10),
    ("yaml", 11),
    ("telemetry", 20),
    ("message", 30),
    ("limit", 30),
    ("auth", 30),
    ("tls", 31),
    ("resilience", 30),
    ("filter", 50),
    ("proxy", 90),
    ("admin", 91),
    ("config", 100),
    ("server", 110),
];

/// The most lines of a room, tests not counted.
const LINES: usize = 350;

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

/// Every source file: its name below `src/`, its text without the tests at its end.
fn rooms() -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let body = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (path.strip_prefix("src").unwrap().display().to_string(), body)
        })
        .collect()
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The modules of this crate that `text` names after `crate::`, alone or in braces.
fn used(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            // The first word of every item at the first level of the braces.
            let (mut depth, mut item) = (1, String::new());
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => names.push(std::mem::take(&mut item)),
                    _ if depth == 1 => item.push(c),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            names.push(item);
        } else {
            names.push(part.to_owned());
        }
    }
    names.iter().map(|name| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn a_module_uses_lower_floors_only() {
    let mut seen = 0;
    for (file, text) in rooms() {
        let Some(own) = file.split(['/', '.']).next().filter(|name| floor(name).is_some()) else { continue };
        for other in used(&text) {
            let Some(theirs) = floor(&other) else { continue };
            seen += 1;
            let allowed = other == own || theirs < floor(own).unwrap();
            assert!(allowed, "{file} (floor {}) uses {other} (floor {theirs})", floor(own).unwrap());
        }
    }
    assert!(seen > 50, "only {seen} uses were found: the test looks at the wrong thing");
    for (module, _) in FLOORS {
        let (room, file) = (Path::new("src").join(module), Path::new("src").join(format!("{module}.rs")));
        assert!(room.is_dir() || file.is_file(), "there is no module {module}");
    }
}

#[test]
fn domain_modules_know_no_pingora_and_read_no_clock() {
    let domain = |file: &str| ["limit/", "auth/", "resilience/"].iter().any(|module| file.starts_with(module));
    for (file, text) in rooms().into_iter().filter(|(file, _)| domain(file)) {
        for word in ["pingora", "Instant::now", "SystemTime::now", "axum", "tokio"] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(!code.clone().any(|line| line.contains(word)), "{file} mentions {word}");
        }
    }
}

#[test]
fn rooms_are_small_and_finished() {
    for (file, text) in rooms() {
        let lines = text.lines().count();
        assert!(lines <= LINES, "{file} has {lines} lines, more than {LINES}: move a wall");
        for word in ["todo!", "unimplemented!", "#[allow(", "#![allow("] {
            assert!(!text.contains(word), "{file} holds {word}");
        }
    }
}
