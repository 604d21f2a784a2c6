//! The JSON Schema of the YAML, for editors: `tollgate schema`.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::Config;
use crate::filter::Registry;

/// The schema of a whole configuration file, with the settings of every filter that `registry` knows.
pub fn schema(registry: &Registry) -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let filters = registry.schemas(&mut generator);
    let mut root = generator.into_root_schema_for::<Config>().to_value();
    let names: Vec<&str> = filters.iter().map(|(name, _)| *name).collect();
    let mut properties = serde_json::Map::new();
    for (name, schema) in filters {
        // Settings may be left out (`- cors:`) where every one of them has a default.
        properties.insert(name.to_owned(), json!({ "anyOf": [schema.to_value(), { "type": "null" }] }));
    }
    let on_fault =
        json!({ "enum": ["refuse", "pass"], "description": "What to do when this step fails. Default refuse." });
    properties.insert("on_fault".to_owned(), on_fault);
    let filter = json!({ "anyOf": [
        { "enum": names },
        { "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 2, "properties": properties },
    ] });
    if let Some(defs) =
        root.as_object_mut().and_then(|root| root.entry("$defs").or_insert_with(|| json!({})).as_object_mut())
    {
        defs.insert("Filter".to_owned(), filter);
    }
    root
}
