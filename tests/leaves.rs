//! Every key of the YAML has an effect: for each leaf of the configuration, exchanging its value changes what is built.
//!
//! `a.yaml` holds every key that the JSON Schema knows (checked here), `b.yaml` the same keys with other values. One
//! leaf at a time is taken from `b`; the built runtime must then differ from that of `a`, or be refused.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};
use tollgate::{
    Registry,
    config::{load, schema},
    runtime::Shared,
};

/// Key material never shows in what a runtime says of itself; `tests/it/auth.rs` shows their effect.
const SECRET: &[&str] = &["secret.file", ".pem", ".jwks"];

/// Keys that are not part of a runtime: they are carried out while it is loaded (`tests/it/config_errors.rs`).
const ELSEWHERE: &[&str] = &["tests"];

/// Other ways to say what `a.yaml` says in one way (`units/secret.rs` tests the kinds of secrets,
/// `store/settings.rs` the places of Redis).
const ALTERNATIVES: &[&str] = &[
    "secret.env",
    "secrets.env",
    "password.env",
    "credential",
    "redis.sentinel.addresses",
    "redis.sentinel.name",
    "redis.cluster",
];

fn read(name: &str, secret: &Path) -> Value {
    // A checkout does not keep this.
    for private in [format!("tests/fixtures/tls/{name}.key"), format!("tests/fixtures/leaves/htpasswd-{name}.txt")] {
        fs::set_permissions(private, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = fs::read_to_string(format!("tests/fixtures/leaves/{name}.yaml")).unwrap();
    let here = |text: &str| text.replace("SECRET_A", &secret.to_string_lossy()).replace("SECRET_B", "/nowhere");
    let mut config: Value = serde_yaml::from_str(&here(&text)).unwrap();
    // Each filter brings its own settings. The first shows `on_fault`.
    let (sample, mut on_fault) = (usize::from(name == "b"), Some(if name == "b" { "refuse" } else { "pass" }));
    let registry = Registry::builtin();
    let filters = registry.samples().map(|(filter, samples)| {
        let settings: Value = serde_yaml::from_str(&here(samples[sample])).unwrap();
        let mut entry = json!({ filter: settings });
        if let Some(policy) = on_fault.take() {
            entry["on_fault"] = policy.into();
        }
        entry
    });
    let filters: Vec<Value> = filters.collect();
    let routes = config["routes"].as_array_mut().unwrap();
    routes.iter_mut().find(|route| route.get("filters").is_some()).unwrap()["filters"] = filters.into();
    config
}

/// What is built of a configuration, in words; or why nothing is.
fn built(config: &Value) -> Result<String, String> {
    let text = serde_yaml::to_string(config).unwrap();
    let loaded = load("leaves", &text, &Registry::builtin(), &Shared::new()).map_err(|e| e.to_string())?;
    Ok(format!("{:?} {:?}", loaded.runtime, loaded.plan))
}

/// The JSON pointers of every scalar.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, child)| leaves(child, &format!("{at}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, child)| leaves(child, &format!("{at}/{i}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// A pointer as a key path without indices and without the names of free-form maps.
fn key_path(pointer: &str, schema_keys: &BTreeSet<String>) -> String {
    let steps: Vec<&str> = pointer.split('/').skip(1).filter(|step| step.parse::<usize>().is_err()).collect();
    let mut path = String::new();
    for step in steps {
        let named = if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        let free = format!("{path}.*");
        let known = |candidate: &str| {
            schema_keys.iter().any(|key| key == candidate || key.starts_with(&format!("{candidate}.")))
        };
        path = if known(&named) || !known(&free) { named } else { free };
    }
    path
}

/// Every leaf that the schema knows, as key paths.
fn schema_leaves(schema: &Value, root: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        if name.ends_with("/Filter") && path.contains("any_of") {
            // A list of filters within a list of filters: each has its own sample.
            found.insert(path.to_owned());
            return;
        }
        let target = root.pointer(name.trim_start_matches('#')).unwrap();
        return schema_leaves(target, root, path, found);
    }
    let mut inner = false;
    for list in ["anyOf", "oneOf", "allOf"] {
        for variant in schema.get(list).and_then(Value::as_array).into_iter().flatten() {
            inner = true;
            schema_leaves(variant, root, path, found);
        }
    }
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        inner = true;
        schema_leaves(child, root, &join(key), found);
    }
    match schema.get("additionalProperties") {
        Some(child @ Value::Object(_)) => {
            inner = true;
            schema_leaves(child, root, &join("*"), found);
        }
        Some(Value::Bool(true)) => {
            inner = true;
            found.insert(join("*"));
        }
        _ => {}
    }
    if let Some(child) = schema.get("items").filter(|child| child.is_object()) {
        inner = true;
        schema_leaves(child, root, path, found);
    }
    let null = schema.get("type").and_then(Value::as_str) == Some("null");
    if !inner && !null && !path.is_empty() {
        found.insert(path.to_owned());
    }
}

fn schema_keys() -> BTreeSet<String> {
    let schema = schema(&Registry::builtin());
    let mut keys = BTreeSet::new();
    schema_leaves(&schema, &schema, "", &mut keys);
    // A path that goes on is not a leaf: `by` of a filter entry named without settings, say.
    let prefixes: Vec<String> = keys.iter().map(|key| format!("{key}.")).collect();
    let longer = keys.clone();
    let inner = |prefix: &String| longer.iter().any(|key| key.starts_with(prefix.as_str()));
    for (key, prefix) in longer.iter().zip(&prefixes) {
        if inner(prefix) {
            keys.remove(key);
        }
    }
    keys
}

fn secret() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn the_sample_holds_every_key_that_the_schema_knows() {
    let (secret, keys) = (secret(), schema_keys());
    let mut pointers = Vec::new();
    leaves(&read("a", secret.path()), "", &mut pointers);
    leaves(&read("b", secret.path()), "", &mut pointers);
    let held: BTreeSet<String> = pointers.iter().map(|pointer| key_path(pointer, &keys)).collect();
    let missing: Vec<&String> = keys
        .iter()
        .filter(|key| !held.contains(*key))
        .filter(|key| !ELSEWHERE.iter().any(|other| key.starts_with(other)))
        .filter(|key| !ALTERNATIVES.iter().any(|other| key.ends_with(other)))
        .collect();
    assert!(missing.is_empty(), "the schema knows keys that a.yaml does not set: {missing:#?}");
    assert!(keys.len() > 100, "the schema knows only {} leaves", keys.len());
}

#[test]
fn every_leaf_changes_what_is_built() {
    let secret = secret();
    let (a, b) = (read("a", secret.path()), read("b", secret.path()));
    let base = built(&a).unwrap();
    assert_eq!(base, built(&a).unwrap(), "the same configuration must build the same");
    let mut pointers = Vec::new();
    leaves(&a, "", &mut pointers);
    let mut idle = Vec::new();
    for pointer in &pointers {
        // Where the kind of value differs (`stderr` and `{ file: ... }`), b's whole value stands in.
        let other = b.pointer(pointer).unwrap_or_else(|| panic!("b.yaml lacks {pointer}")).clone();
        let mut changed = a.clone();
        let place = changed.pointer_mut(pointer).unwrap();
        assert_ne!(*place, other, "{pointer} is the same in a.yaml and b.yaml");
        *place = other;
        let key = pointer.replace('/', ".");
        if built(&changed).as_ref() == Ok(&base) && !SECRET.iter().any(|secret| key.ends_with(secret)) {
            idle.push(pointer);
        }
    }
    assert!(idle.is_empty(), "these keys are read and change nothing: {idle:#?}");
    assert!(pointers.len() > 100, "only {} leaves were tried", pointers.len());
}

/// The JSON pointers of every mapping that is not a secret's or a free one.
fn mappings(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(at.to_owned());
            map.iter().for_each(|(key, child)| mappings(child, &format!("{at}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, child)| mappings(child, &format!("{at}/{i}"), found));
        }
        _ => {}
    }
}

#[test]
fn every_mistake_is_reported_once() {
    let secret = secret();
    let good = read("a", secret.path());
    let (mut pointers, mut maps, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    leaves(&good, "", &mut pointers);
    mappings(&good, "", &mut maps);
    let mut try_one = |pointer: &str, bad: &Value| {
        let found = built(bad).err().unwrap_or_default();
        // Some take any mapping. What is said of the others is one line, and the count; of one that may be a mapping, which
        // keys it lacks, too.
        if found.lines().filter(|line| !line.ends_with("is missing")).count() > 2 {
            repeated.push(format!("{pointer}:\n{found}"));
        }
    };
    for pointer in &pointers {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = json!({ "nonsense": { "more": [[]] } });
        try_one(pointer, &bad);
    }
    for pointer in &maps {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("nonsense".to_owned(), json!({}));
        try_one(pointer, &bad);
    }
    // The names of services are ours: each place that names one is a mistake of its own.
    for pointer in maps.iter().filter(|pointer| *pointer != "/services") {
        let keys: Vec<String> = good.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let mut bad = good.clone();
            let map = bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            let value = map.remove(&key).unwrap();
            map.insert(format!("{key}x"), value);
            try_one(&format!("{pointer}/{key}x"), &bad);
        }
    }
    assert!(repeated.is_empty(), "{} mistakes have consequences:\n{}", repeated.len(), repeated.join("\n"));
}
