//! What the types' own schemas do not know: how a file is read before it is typed. `${VAR}` may stand in every value, one word
//! or mapping is a list of one, a number may stand in quotes, a mapping may be left empty.

use serde_json::{Map, Value, json};

/// The text of a value that a variable is part of: what it becomes, only the machine knows that runs it.
const VARIABLE: &str = r"\$\{";

/// Rewrites a schema by these rules, and takes out what is true of one machine only.
pub(super) fn as_it_is_read(root: &mut Value) {
    let known = root.get("$defs").cloned().unwrap_or_default();
    // How many processors this machine has.
    if let Some(threads) = root.pointer_mut("/$defs/PingoraConfig/properties/threads").and_then(Value::as_object_mut) {
        threads.remove("default");
    }
    each(root, &mut |schema| loosen(schema, &known));
    if let Some(defs) = root.get_mut("$defs").and_then(Value::as_object_mut) {
        let names: Vec<String> = defs.keys().cloned().collect();
        debug_assert!(!names.iter().any(|name| name == "Variable"), "the name is taken");
        defs.insert(
            "Variable".to_owned(),
            json!({ "type": "string", "pattern": VARIABLE, "description": "${NAME} or ${NAME:-default}: a variable of the environment." }),
        );
    }
}

/// Calls `f` for every schema within `schema`, the inner ones first.
fn each(schema: &mut Value, f: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["$defs", "properties", "patternProperties"] {
        map.get_mut(key).and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, inner)| each(inner, f));
    }
    for key in ["anyOf", "oneOf", "allOf", "prefixItems"] {
        map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(|inner| each(inner, f));
    }
    for key in ["items", "additionalProperties", "not"] {
        map.get_mut(key).into_iter().for_each(|inner| each(inner, f));
    }
    f(map);
}

/// True for a schema that allows a list: a list of lists has no shorter form.
fn takes_a_list(schema: &Value, known: &Value) -> bool {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.rsplit('/').next().unwrap_or_default();
        return known.get(name).is_some_and(|schema| takes_a_list(schema, known));
    }
    let mut inner = ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    schema.as_object().is_some_and(|schema| has(schema, "array")) || inner.any(|schema| takes_a_list(schema, known))
}

fn has(schema: &Map<String, Value>, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|known| known == kind),
        Some(known) => known == kind,
        None => false,
    }
}

/// Adds a kind to those that are allowed already.
fn allow(schema: &mut Map<String, Value>, kinds: &[&str]) {
    let mut all = match schema.remove("type") {
        Some(Value::Array(kinds)) => kinds,
        Some(kind) => vec![kind],
        None => return,
    };
    for kind in kinds {
        if !all.iter().any(|known| known == kind) {
            all.push((*kind).into());
        }
    }
    schema.insert("type".to_owned(), all.into());
}

fn loosen(schema: &mut Map<String, Value>, known: &Value) {
    // What is said by leaving it out; a mapping's are those of its keys.
    let empty = |value: &Value| match value {
        Value::Null | Value::Object(_) => true,
        Value::Array(items) => items.is_empty(),
        value => value == "",
    };
    if schema.get("default").is_some_and(empty) {
        schema.remove("default");
    }
    // Alternatives overlap as soon as a variable may stand for each of them.
    if let Some(alternatives) = schema.remove("oneOf") {
        schema.insert("anyOf".to_owned(), alternatives);
    }
    if let Some(alternatives) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        // An enumeration with a description for each word.
        if alternatives.iter().any(|one| one.get("const").is_some()) {
            alternatives.push(variable());
        }
        return;
    }
    if schema.contains_key("const") {
        return;
    }
    let limited = ["enum", "pattern", "format"].iter().any(|key| schema.contains_key(*key));
    if has(schema, "array") {
        if let Some(one) = schema.get("items").filter(|one| !takes_a_list(one, known)).cloned() {
            either(schema, one);
        }
    } else if has(schema, "object") && !schema.contains_key("required") && !schema.contains_key("minProperties") {
        allow(schema, &["null"]);
    } else if has(schema, "integer") || has(schema, "number") {
        let text = if has(schema, "integer") { r"^[+-]?[0-9]+$" } else { r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$" };
        let text = if schema.get("pattern").is_some() { VARIABLE.to_owned() } else { format!("{text}|{VARIABLE}") };
        either(schema, json!({ "type": "string", "pattern": text }));
    } else if has(schema, "boolean") {
        let text = format!("^(true|True|TRUE|false|False|FALSE)$|{VARIABLE}");
        either(schema, json!({ "type": "string", "pattern": text }));
    } else if limited && (has(schema, "string") || schema.contains_key("enum")) {
        either(schema, variable());
    } else if has(schema, "string") {
        // A word is a word, also one that looks like a number.
        allow(schema, &["number", "boolean"]);
    }
}

fn variable() -> Value {
    json!({ "$ref": "#/$defs/Variable" })
}

/// Makes of `schema` the choice between itself and `other`; what describes it describes the choice.
fn either(schema: &mut Map<String, Value>, other: Value) {
    let mut inner = std::mem::take(schema);
    for key in ["description", "default", "title", "$schema", "$id", "$defs"] {
        if let Some(value) = inner.remove(key) {
            schema.insert(key.to_owned(), value);
        }
    }
    schema.insert("anyOf".to_owned(), json!([inner, other]));
}
