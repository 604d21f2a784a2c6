//! `docs/reference.md` is made from the schema: `UPDATE_REFERENCE=1 cargo test --test reference` writes it anew.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fmt::Write as _, fs, process::Command};

use serde_json::{Map, Value};

/// A schema's definitions, and what has been written of them.
struct Reference {
    definitions: Map<String, Value>,
    /// Titles of sections that have been written, by definition.
    sections: Vec<(String, String)>,
    /// Definitions that have no keys: kinds of values.
    kinds: Vec<String>,
    text: String,
}

impl Reference {
    fn definition(&self, reference: &str) -> (String, Value) {
        let name = reference.rsplit('/').next().unwrap();
        (name.to_owned(), self.definitions[name].clone())
    }

    /// The section of `schema`, and those of what is in it; `path` is how one gets there in YAML.
    fn section(&mut self, path: &str, schema: &Value) {
        let shown = if path.is_empty() { "The file" } else { path };
        let _ = write!(self.text, "\n## {}\n\n", if path.is_empty() { shown.to_owned() } else { format!("`{shown}`") });
        if let (false, Some(description)) = (path.is_empty(), schema["description"].as_str()) {
            let _ = writeln!(self.text, "{}\n", one_line(description));
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        self.text.push_str("| key | value | |\n|---|---|---|\n");
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut inner = Vec::new();
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let kind = self.kind(property, &path, &mut inner);
            let must = if required.contains(&key.as_str()) { " **required.**" } else { "" };
            let description = one_line(property["description"].as_str().unwrap_or_default());
            let _ = writeln!(self.text, "| `{key}` | {kind} | {description}{must} |");
        }
        for (path, schema) in inner {
            self.section(&path, &schema);
        }
    }

    /// What may stand there, in words; sections that are still to be written go to `inner`.
    fn kind(&mut self, schema: &Value, path: &str, inner: &mut Vec<(String, Value)>) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            // It may stand for every value, which the page says once.
            if reference.ends_with("/Variable") {
                return String::new();
            }
            // A list of filters within a list of filters.
            if reference.ends_with("/Filter") && path.contains("any_of") {
                return "filter that makes clients known".to_owned();
            }
            return self.named(reference, path, inner);
        }
        for union in ["anyOf", "oneOf"] {
            if let Some(parts) = schema[union].as_array() {
                let mut kinds: Vec<String> = Vec::new();
                for part in parts.iter().filter(|part| part["type"] != "null") {
                    let kind = self.kind(part, path, inner);
                    if !kind.is_empty() && !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
                return joined(&kinds);
            }
        }
        if let Some(constant) = schema.get("const") {
            return format!("`{}`", constant.as_str().map_or_else(|| constant.to_string(), str::to_owned));
        }
        if let Some(values) = schema["enum"].as_array() {
            let shown = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            return shown.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        }
        if schema["properties"].is_object() {
            return self.anonymous(schema, path, inner);
        }
        match &schema["type"] {
            Value::String(name) => self.plain(name, schema, path, inner),
            Value::Array(names) => {
                let mut names: Vec<&str> =
                    names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
                // A text may be written without quotes, whatever it looks like then.
                if names.contains(&"string") {
                    names = vec!["string"];
                }
                names.iter().map(|name| self.plain(name, schema, path, inner)).collect::<Vec<_>>().join(" or ")
            }
            _ => String::new(),
        }
    }

    fn plain(&mut self, name: &str, schema: &Value, path: &str, inner: &mut Vec<(String, Value)>) -> String {
        match name {
            "array" => match self.kind(&schema["items"], &format!("{path}[]"), inner) {
                kind if kind.is_empty() => "list".to_owned(),
                kind => format!("list of {kind}"),
            },
            "object" if schema["additionalProperties"].is_object() => {
                let kind = self.kind(&schema["additionalProperties"], &format!("{path}.NAME"), inner);
                format!("names with {kind}")
            }
            "integer" => "number".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            "string" => "text".to_owned(),
            other => other.to_owned(),
        }
    }

    /// A definition: a link to its section.
    fn named(&mut self, reference: &str, path: &str, inner: &mut Vec<(String, Value)>) -> String {
        let (name, schema) = self.definition(reference);
        if let Some((_, title)) = self.sections.iter().find(|(known, _)| *known == name) {
            return link(title);
        }
        if schema["properties"].is_object() {
            self.sections.push((name, path.to_owned()));
            inner.push((path.to_owned(), schema));
            return link(path);
        }
        let has_pattern = schema["description"].is_string() && schema.to_string().contains("\"pattern\"");
        if has_pattern && !schema.to_string().contains("\"boolean\"") {
            if !self.kinds.contains(&name) {
                self.kinds.push(name.clone());
            }
            return format!("[{}](#kinds-of-values)", words(&name));
        }
        self.kind(&schema, path, inner)
    }

    /// An object that has no name of its own: `{ key: ... }`.
    fn anonymous(&mut self, schema: &Value, path: &str, inner: &mut Vec<(String, Value)>) -> String {
        let properties = schema["properties"].as_object().unwrap();
        let mut parts = Vec::new();
        for (key, property) in properties {
            let kind = self.kind(property, &format!("{path}.{key}"), inner);
            parts.push(format!("`{key}:` {kind}"));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

/// The words of a name in camel case.
fn words(name: &str) -> String {
    let spaced = name.chars().flat_map(|c| c.is_uppercase().then_some(' ').into_iter().chain(c.to_lowercase()));
    spaced.collect::<String>().trim().to_owned()
}

/// Alternatives; one of them, and a list of it, is said once.
fn joined(kinds: &[String]) -> String {
    let lists: Vec<&str> = kinds.iter().filter_map(|kind| kind.strip_prefix("list of ")).collect();
    let single: Vec<&str> = kinds.iter().map(String::as_str).filter(|kind| !kind.starts_with("list of ")).collect();
    if kinds == ["number", "text"] {
        return "number".to_owned();
    }
    match lists[..] {
        [list] if single.join(", ") == list => format!("{list}; one or a list"),
        _ => kinds.join(", "),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn link(path: &str) -> String {
    let anchor: String = path.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    format!("[`{path}`](#{anchor})")
}

fn reference() -> String {
    let schema = Command::new(env!("CARGO_BIN_EXE_tollgate")).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let definitions = schema["$defs"].as_object().unwrap().clone();
    let text = "# Reference: every key of the file\n\nMade from `tollgate schema`. `[]` stands for each entry of a list, `NAME` for a name \
                that you choose. `${VAR}` may stand for every value.\n";
    let mut reference = Reference { definitions, sections: Vec::new(), kinds: Vec::new(), text: text.to_owned() };
    reference.section("", &schema);
    reference.text.push_str("\n## Kinds of values\n\n| | |\n|---|---|\n");
    let mut kinds = std::mem::take(&mut reference.kinds);
    kinds.sort();
    for name in kinds {
        let description = one_line(reference.definitions[&name]["description"].as_str().unwrap());
        let _ = writeln!(reference.text, "| {} | {description} |", words(&name));
    }
    reference.text
}

#[test]
fn the_reference_is_what_the_schema_says() {
    let made = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write("docs/reference.md", &made).unwrap();
    }
    let stands = fs::read_to_string("docs/reference.md").unwrap_or_default();
    let differs = made.lines().zip(stands.lines()).find(|(new, old)| new != old);
    assert!(made == stands, "docs/reference.md is old: UPDATE_REFERENCE=1 cargo test --test reference ({differs:?})");
}
