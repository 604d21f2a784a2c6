//! How a filter comes from YAML.

use schemars::{Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::{Env, Filter, Invalid};

/// How YAML becomes a filter; the only place where its name is written.
pub trait Configure: Filter + Sized {
    /// The name in the YAML.
    const NAME: &'static str;
    /// The settings. Use `#[serde(deny_unknown_fields)]`, and neither `flatten` nor `untagged`: both swallow typos.
    type Config: DeserializeOwned;

    /// Two settings, in YAML, that name every key with different values. `tests/leaves.rs` exchanges them key by key: each
    /// must change what is built.
    const SAMPLES: [&'static str; 2] = ["{}", "{}"];

    /// What it needs of the parts around it.
    fn needs() -> Needs {
        Needs::default()
    }

    /// Builds the filter, or says everything that is wrong with its settings.
    fn configure(config: Self::Config, env: &Env) -> Result<Self, Invalid>;

    /// The settings' JSON Schema, for `tollgate schema`; any value when not given.
    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let _ = generator;
        Schema::from(true)
    }
}

/// What a filter needs of the parts around it, beyond being a step of a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its routes take CORS preflights, too: `OPTIONS` with `Access-Control-Request-Method`, whatever their methods are.
    pub preflight: bool,
}
