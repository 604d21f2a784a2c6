//! What the registry knows of one filter.

use std::sync::Arc;

use schemars::{Schema, SchemaGenerator};

use super::{Configure, Env, Filter, Needs};
use crate::{
    units::{Problem, Problems},
    yaml::{Node, read},
};

/// Makes a filter from its settings.
type Build = fn(&Node, &Env) -> Result<Arc<dyn Filter>, Problems>;

/// One filter that YAML may name.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) build: Build,
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    pub(super) needs: Needs,
    pub(super) samples: [&'static str; 2],
}

impl Entry {
    /// The entry of `F`.
    pub(super) fn of<F: Configure>() -> Self {
        Self { name: F::NAME, build: build::<F>, schema: F::schema, needs: F::needs(), samples: F::SAMPLES }
    }
}

fn build<F: Configure>(settings: &Node, env: &Env) -> Result<Arc<dyn Filter>, Problems> {
    let (config, mut problems) = read::<F::Config>(settings);
    let Some(config) = config else { return Err(problems) };
    match F::configure(config, env) {
        Ok(filter) if problems.is_empty() => return Ok(Arc::new(filter)),
        Ok(_) => {}
        // What follows from a key that was set aside (as missing, say) would only repeat that mistake.
        Err(_) if !problems.is_empty() => {}
        Err(invalid) => {
            for (path, message) in invalid.0 {
                let node = settings.at(&path).place();
                let base = &settings.place().path;
                let path = match path.as_str() {
                    "" => base.clone(),
                    // Of a filter whose settings are a list.
                    path if path.starts_with('[') => format!("{base}{path}"),
                    path => format!("{base}.{path}"),
                };
                problems.push(Problem { line: node.line, column: node.column, path, message });
            }
        }
    }
    Err(problems)
}
