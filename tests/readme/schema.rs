//! The JSON Schema and the program take the same files. An independent validator judges by the schema.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::Value;
use tollgate::{Registry, config, runtime::Shared};

use crate::{blocks, pages, whole};

/// Those of `files` that `check-jsonschema` refuses, with what it says.
fn refused(dir: &Path, files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/check-jsonschema/bin/check-jsonschema");
    assert!(Path::new(tool).exists(), "'check-jsonschema' is missing: run 'scripts/deps test'");
    let schema = dir.join("schema.json");
    fs::write(&schema, config::schema(&Registry::builtin()).to_string()).unwrap();
    let folder = dir.join("instances");
    fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(tool);
    command.args(["-o", "json", "--schemafile"]).arg(&schema);
    for (name, text) in files {
        let path = folder.join(format!("{name}.yaml"));
        fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let out = command.output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    assert!(report["parse_errors"].as_array().is_none_or(Vec::is_empty), "{report}");
    let mut found = BTreeMap::new();
    for error in report["errors"].as_array().unwrap() {
        let name = Path::new(error["filename"].as_str().unwrap()).file_stem().unwrap().to_string_lossy().into_owned();
        found.entry(name).or_insert_with(|| format!("{}: {}", error["path"], error["message"]));
    }
    found
}

/// What the program says against a file.
fn wrong(text: &str) -> Option<String> {
    config::load("t", text, &Registry::builtin(), &Shared::new()).err().map(|e| e.to_string())
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = BTreeMap::new();
    // That the program takes these is what `every_yaml_block_and_file_loads` shows.
    for page in pages() {
        let blocks = blocks(&page, "yaml");
        for (i, (info, body)) in blocks.iter().enumerate().filter(|(_, (info, _))| info != "alerts") {
            files.insert(format!("{}-{i}", page.replace('/', "-")), whole(info, body));
        }
    }
    for path in own_files() {
        files.insert(path.replace('/', "-"), fs::read_to_string(path).unwrap());
    }
    let sample = fs::read_to_string("tests/fixtures/leaves/a.yaml").unwrap();
    let route = "listeners: 127.0.0.1:1\nadmin: { enabled: false }\nservices: { s: { urls: 'http://h' } }\nroutes: [{ match: { path: /* }, service: s, filters: [FILTER] }]\n";
    for (name, samples) in Registry::builtin().samples() {
        for (i, settings) in samples.iter().enumerate() {
            let filter = format!("{{ {name}: {settings} }}").replace("SECRET_A", "/a").replace("SECRET_B", "/b");
            files.insert(format!("filter-{name}-{i}"), route.replace("FILTER", &filter));
        }
    }
    files.insert("variables".to_owned(), with_variables(&sample));
    files.insert("sample".to_owned(), sample);
    for (i, text) in ODD.iter().enumerate() {
        assert_eq!(wrong(&whole_of(text)), None, "{text}");
        files.insert(format!("odd-{i}"), whole_of(text));
    }
    let refused = refused(dir.path(), &files);
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(files.len() > 40, "{}", files.len());
}

/// Further keys of a file that are unusual and right.
const ODD: [&str; 11] = [
    "shutdown:\n",
    "limits: { headers: '50', uri: 8192 }\n",
    "via: 'false'\n",
    "shutdown: { delay: 0 }\n",
    "tests: { request: GET /any, expect: { service: main } }\n",
    "listeners: { address: 127.0.0.1:1 }\nadmin: { enabled: false }\nservices: { s: { urls: { url: 'http://h', weight: 2 } } }\nroutes: [{ match: { path: /* }, service: s, filters: { rate_limit: 10/s } }]\n",
    "listeners: 127.0.0.1:1\nadmin: { enabled: false }\nservices: { s: { urls: 'http://h' } }\nroutes: { match: { path: /* }, service: s, filters: { cors: '*', on_fault: pass } }\n",
    "shutdown: { delay: 1d2h3m4s5ms6us }\n",
    "shutdown: { delay: 1h1.5m }\n",
    "limits: { header_size: 64 KiB, uri: 4k }\n",
    "log: { level: \"${TOLLGATE_NO_SUCH_LEVEL:-info}\" }\n",
];

fn whole_of(more: &str) -> String {
    if more.starts_with("listeners:") { more.to_owned() } else { whole("fragment=root", more) }
}

/// A variable for each value.
fn with_variables(text: &str) -> String {
    fn replace(value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(replace),
            Value::Array(items) => items.iter_mut().for_each(replace),
            Value::Null => {}
            other => *other = "${TOLLGATE_VALUE}".into(),
        }
    }
    let mut config: Value = serde_yaml::from_str(text).unwrap();
    replace(&mut config);
    serde_yaml::to_string(&config).unwrap()
}

#[test]
fn the_program_takes_a_variable_wherever_a_value_stands() {
    fn replace(value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(replace),
            Value::Array(items) => items.iter_mut().for_each(replace),
            Value::Null => {}
            other => {
                let text = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
                if !text.contains(['{', '}']) {
                    *other = format!("${{TOLLGATE_NO_SUCH_VARIABLE:-{text}}}").into();
                }
            }
        }
    }
    let key = "tests/fixtures/tls/a.key";
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string("tests/fixtures/leaves/a.yaml").unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let mut sample: Value = serde_yaml::from_str(&text.replace("SECRET_A", &secret.path().to_string_lossy())).unwrap();
    replace(&mut sample);
    let text = serde_yaml::to_string(&sample).unwrap();
    assert_eq!(wrong(&text), None, "{text}");
}

#[test]
fn the_schema_refuses_what_is_broken_as_far_as_it_can_see() {
    let dir = tempfile::tempdir().unwrap();
    let files: BTreeMap<String, String> = fs::read_dir("tests/fixtures/broken")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    let refused = refused(dir.path(), &files);
    for (name, text) in &files {
        assert!(wrong(text).is_some(), "the program takes {name}");
        // Each says in its first line whether the schema can see it, and if not, why.
        match text.lines().next().unwrap() {
            "# The schema refuses it." => assert!(refused.contains_key(name), "the schema takes {name}"),
            line => {
                assert!(line.starts_with("# The schema does not see it: "), "{name}: {line}");
                assert!(!refused.contains_key(name), "the schema sees {name}: {}", refused[name]);
            }
        }
    }
    assert!(files.len() > 30, "{}", files.len());
}

#[test]
fn the_schema_is_the_same_everywhere_and_has_names() {
    let run = |variable: &str, value: &str| {
        let binary = env!("CARGO_BIN_EXE_tollgate");
        // One processor of however many there are.
        let mut command = Command::new("taskset");
        command.args(["-c", "0", binary, "schema"]).env(variable, value).current_dir("/");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let here = format!("{:#}\n", config::schema(&Registry::builtin()));
    assert_eq!(here, run("LOG_LEVEL", "trace"));
    assert_eq!(here, run("RUNTIME_DIRECTORY", "/tmp"));
    let schema: Value = serde_json::from_str(&here).unwrap();
    assert_eq!(schema["$id"], "urn:tollgate:configuration");
    let unnamed = |name: &&String| *name == "Config" || name.ends_with(|c: char| c.is_ascii_digit());
    let names: Vec<&String> = schema["$defs"].as_object().unwrap().keys().filter(unnamed).collect();
    assert!(names.is_empty(), "{names:?}");
    assert!(schema["$defs"]["PingoraConfig"]["properties"]["threads"].get("default").is_none());
}

/// The configurations in `conf`, and the examples of ours in `docs`.
fn own_files() -> Vec<String> {
    let files = ["conf", "docs/examples"].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let names = files.map(|entry| entry.unwrap().path().display().to_string());
    let others = ["nginx.conf", "traefik.yaml", "kong.yaml", "envoy.yaml"].map(|name| format!("docs/examples/{name}"));
    names.filter(|name| !others.contains(name)).collect()
}

#[test]
fn files_name_their_schema() {
    let line = "# yaml-language-server: $schema=tollgate.schema.json";
    for path in own_files() {
        assert!(fs::read_to_string(&path).unwrap().lines().any(|other| other == line), "{path}");
    }
    let first = &blocks("README.md", "yaml")[0];
    assert!(first.1.starts_with(&format!("{line}\n")), "{}", first.1);
}
