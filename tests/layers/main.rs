//! The floor plan (`ARCHITECTURE.md`): which module may use which, no import circles, how large a file may be, and what
//! must not stand in any of them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod graph;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use graph::{Module, Sources, circles, leaves};

/// Rooms by floor; one may use those on lower floors only.
const FLOORS: &[(&str, u32)] = &[
    ("units", 10),
    ("clock", 10),
    ("yaml", 11),
    ("telemetry", 20),
    ("message", 30),
    ("auth", 30),
    ("resilience", 30),
    ("tls", 31),
    ("cache", 40),
    ("store", 40),
    ("filter", 50),
    ("downstream", 60),
    ("upstream", 60),
    ("routing", 70),
    ("runtime", 80),
    ("proxy", 90),
    ("admin", 91),
    ("config", 100),
    ("server", 110),
    ("fuzzing", 120),
];

/// The most lines of a file, tests not counted.
const LINES: usize = 350;

/// The largest share of all lines that the hooks may have.
const HOOKS: f64 = 0.2;

fn floor(room: &str) -> u32 {
    let known = FLOORS.iter().find(|(name, _)| *name == room);
    known.unwrap_or_else(|| panic!("'{room}' has no floor: add it to FLOORS and to ARCHITECTURE.md")).1
}

#[test]
fn a_room_uses_lower_floors_only() {
    let edges = Sources::read().edges();
    let mut seen = 0;
    for (own, used) in edges.iter().filter(|(own, _)| !own.is_empty() && own[0] != "main") {
        for other in used.iter().filter(|other| other[0] != own[0]) {
            seen += 1;
            let (above, below) = (floor(&own[0]), floor(&other[0]));
            assert!(below < above, "{} (floor {above}) uses {} (floor {below})", own.join("::"), other.join("::"));
        }
    }
    assert!(seen > 300, "only {seen} uses were found: the test looks at the wrong thing");
    let rooms: BTreeSet<&String> = edges.keys().filter_map(|module| module.first()).collect();
    for (name, _) in FLOORS {
        assert!(rooms.contains(&(*name).to_owned()), "there is no room {name}");
    }
}

#[test]
fn no_files_use_one_another_in_a_circle() {
    let edges = Sources::read().edges();
    let text: Vec<String> = circles(&edges)
        .iter()
        .map(|circle| circle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" <-> "))
        .collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str| -> Module { vec!["room".to_owned(), name.to_owned()] };
    let edge = |from: &str, to: &[&str]| (module(from), to.iter().map(|name| module(name)).collect::<BTreeSet<_>>());
    let edges: BTreeMap<_, _> = [edge("a", &["b"]), edge("b", &["c"]), edge("c", &["a"]), edge("d", &["a"])].into();
    assert_eq!(circles(&edges), [vec![module("a"), module("b"), module("c")]]);
    let paths: Vec<String> =
        leaves("crate::{a::{self, B as C}, d::*}").iter().map(|(path, _)| path.join("::")).collect();
    assert_eq!(paths, ["crate::a", "crate::a::B", "crate::d::*"]);
}

#[test]
fn domain_rooms_know_no_pingora_and_read_no_clock() {
    let sources = Sources::read();
    let domain = |module: &Module| ["auth", "resilience", "cache"].contains(&module.first().map_or("", String::as_str));
    for (_, file) in sources.files.iter().filter(|(module, _)| domain(module)) {
        for word in ["pingora", "Instant::now", "SystemTime::now", "axum", "tokio"] {
            assert!(!file.code.contains(word), "{} mentions {word}", file.name);
        }
    }
    let message = sources.files.iter().filter(|(module, _)| module.first().is_some_and(|room| room == "message"));
    for (_, file) in message {
        for word in ["pingora::proxy", "Session", "Instant::now", "tokio"] {
            assert!(!file.code.contains(word), "{} mentions {word}", file.name);
        }
    }
}

#[test]
fn files_are_small_and_finished() {
    for file in Sources::read().files.values() {
        let lines = fs::read_to_string(format!("src/{}", file.name)).unwrap();
        let lines = lines.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
        assert!(lines <= LINES, "{} has {lines} lines, more than {LINES}: move a wall", file.name);
        for word in ["todo!", "unimplemented!", "#[allow(", "#![allow("] {
            assert!(!file.code.contains(word), "{} holds {word}", file.name);
        }
    }
}

#[test]
fn the_hooks_are_the_smaller_part() {
    let sources = Sources::read();
    let lines = |of: &dyn Fn(&Module) -> bool| -> f64 {
        let files = sources.files.iter().filter(|(module, _)| of(module));
        files.map(|(_, file)| u32::try_from(file.code.lines().count()).unwrap()).map(f64::from).sum()
    };
    let (hooks, all) = (lines(&|module| module.first().is_some_and(|room| room == "proxy")), lines(&|_| true));
    assert!(hooks / all < HOOKS, "proxy/ is {:.0} % of src/", 100.0 * hooks / all);
}

#[test]
fn a_type_has_its_methods_in_one_file() {
    let mut places: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (module, file) in Sources::read().files.iter().filter(|(module, _)| !module.is_empty()) {
        for line in file.code.lines().filter(|line| line.starts_with("impl") && !line.contains(" for ")) {
            let rest = line.trim_start_matches("impl");
            // Generic parameters come first.
            let rest = if rest.starts_with('<') { rest.split_once("> ").map_or(rest, |(_, rest)| rest) } else { rest };
            let name: String = rest.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            places.entry((module[0].clone(), name)).or_default().insert(file.name.clone());
        }
    }
    for ((room, name), files) in places {
        assert!(files.len() == 1, "{room}: {name} has methods in {files:?}");
    }
}

#[test]
fn every_dependency_is_used() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
    let sources = Sources::read();
    let mut seen = 0;
    for name in names {
        seen += 1;
        let ways = [format!("{name}::"), format!("use {name};"), format!("pub use {name} as ")];
        let used = sources.files.values().any(|file| ways.iter().any(|way| file.code.contains(way)));
        assert!(used, "nothing uses the dependency {name}");
    }
    assert!(seen > 30, "only {seen} were found");
}

#[test]
fn the_page_lists_every_metric() {
    let page = fs::read_to_string("docs/metrics.md").unwrap();
    let mut seen = 0;
    for file in Sources::read().files.values() {
        for part in file.code.split("\"gateway_").skip(1) {
            let name = format!("gateway_{}", part.split('"').next().unwrap());
            if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                seen += 1;
                assert!(page.contains(&name), "docs/metrics.md does not name {name} ({})", file.name);
            }
        }
    }
    assert!(seen > 20, "only {seen} metrics were found");
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|name| name.contains(".rs")).collect();
    assert!(names.len() > 40, "only {} names", names.len());
    let all: Vec<String> = Sources::read().files.values().map(|file| format!("src/{}", file.name)).collect();
    for name in names {
        let known = all.iter().any(|file| file.ends_with(&format!("/{name}"))) || fs::exists(name).unwrap();
        assert!(known, "ARCHITECTURE.md names {name}, which is not there");
    }
}
