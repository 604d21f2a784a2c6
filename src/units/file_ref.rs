//! A file that the configuration names: by its path, or as a credential of systemd, whose directory has another name for
//! each service.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::secret::credential;

/// YAML: a path, or `{ credential: NAME }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileRef {
    /// A path.
    Path(String),
    /// A systemd credential (`LoadCredential=`).
    Credential(String),
}

impl FileRef {
    /// Where the file is.
    ///
    /// # Errors
    /// It is a credential, and there are none, or its name is none.
    pub fn path(&self) -> Result<String, String> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Credential(name) => credential(name).map(|path| path.to_string_lossy().into_owned()),
        }
    }
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

impl<'de> Deserialize<'de> for FileRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Kept {
            credential: String,
        }

        struct Place;

        impl<'de> Visitor<'de> for Place {
            type Value = FileRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path, or { credential: NAME }")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<FileRef, E> {
                Ok(FileRef::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FileRef, A::Error> {
                Ok(FileRef::Credential(Kept::deserialize(MapAccessDeserializer::new(map))?.credential))
            }
        }

        deserializer.deserialize_any(Place)
    }
}

impl JsonSchema for FileRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FileRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a file's path, or { credential: NAME } for a systemd credential",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "credential": { "description": "A systemd credential (`LoadCredential=`).", "type": "string" } },
                    "required": ["credential"],
                    "additionalProperties": false
                }
            ]
        })
    }
}
