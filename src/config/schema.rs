//! The JSON Schema of the YAML, for editors: `tollgate schema`.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Config, schema_reading::as_it_is_read};
use crate::filter::Registry;

/// Its name: editors keep schemas by it. It is no address, for the schema is part of the program that reads the file.
const ID: &str = "urn:tollgate:configuration";

/// The schema of a whole configuration file, with the settings of every filter that `registry` knows.
pub fn schema(registry: &Registry) -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let filters = registry.schemas(&mut generator);
    let mut root = generator.into_root_schema_for::<Config>().to_value();
    if let Some(root) = root.as_object_mut() {
        root.insert("$id".to_owned(), ID.into());
        if let Some(defs) = root.entry("$defs").or_insert_with(|| json!({})).as_object_mut() {
            defs.insert("Filter".to_owned(), filter(filters));
        }
    }
    as_it_is_read(&mut root);
    root
}

/// One step of a route: a name, or a name with its settings and what to do when it fails.
fn filter(filters: Vec<(&'static str, schemars::Schema)>) -> Value {
    let names: Vec<&str> = filters.iter().map(|(name, _)| *name).collect();
    let mut properties = Map::new();
    for (name, schema) in filters {
        // Settings may be left out (`- cors:`) where every one of them has a default.
        properties.insert(name.to_owned(), json!({ "anyOf": [schema.to_value(), { "type": "null" }] }));
    }
    let on_fault =
        json!({ "enum": ["refuse", "pass"], "description": "What to do when this step fails. Default refuse." });
    properties.insert("on_fault".to_owned(), on_fault);
    json!({ "anyOf": [
        { "enum": names },
        { "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 2, "properties": properties },
    ] })
}
