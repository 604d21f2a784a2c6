//! The names of filters, and how each is built from its settings.

use std::{fmt, sync::Arc};

use schemars::{Schema, SchemaGenerator};

use super::{
    Configure, Env, Filter, api_key::ApiKey, body_limit::BodyLimit, client_cert::ClientCert, compression::Compression,
    cors::Cors, headers::Headers, in_flight::InFlight, ip::Ip, jwt::Jwt, rate_limit::RateLimit,
    request_id::RequestIdFilter,
};
use crate::{
    units::{Problem, Problems, nearest},
    yaml::{Node, read},
};

type Build = fn(&Node, &Env) -> Result<Arc<dyn Filter>, Problems>;

/// Every filter that YAML may name.
#[derive(Clone)]
pub struct Registry(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    name: &'static str,
    build: Build,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// The built-in filters.
    pub fn builtin() -> Self {
        Self(Vec::new())
            .with::<ApiKey>()
            .with::<BodyLimit>()
            .with::<ClientCert>()
            .with::<Compression>()
            .with::<Cors>()
            .with::<Headers>()
            .with::<InFlight>()
            .with::<Ip>()
            .with::<Jwt>()
            .with::<RateLimit>()
            .with::<RequestIdFilter>()
    }

    /// Adds a filter; one of the same name is replaced.
    #[must_use]
    pub fn with<F: Configure>(mut self) -> Self {
        self.0.retain(|entry| entry.name != F::NAME);
        self.0.push(Entry { name: F::NAME, build: build::<F>, schema: F::schema });
        self
    }

    /// The names, in order of registration.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|entry| entry.name)
    }

    /// The name as the registry keeps it.
    ///
    /// # Errors
    /// The message for an unknown name, with the nearest known one.
    pub fn resolve(&self, name: &str) -> Result<&'static str, String> {
        self.names().find(|known| *known == name).ok_or_else(|| match nearest(name, self.names()) {
            Some(right) => format!("unknown filter '{name}' (did you mean '{right}'?)"),
            None => format!("unknown filter '{name}' (known: {})", self.names().collect::<Vec<_>>().join(", ")),
        })
    }

    /// Builds the filter `name` from its settings.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn build(&self, name: &str, settings: &Node, env: &Env) -> Result<Arc<dyn Filter>, Problems> {
        match self.0.iter().find(|entry| entry.name == name) {
            Some(entry) => (entry.build)(settings, env),
            None => Err(Problems::default()),
        }
    }

    /// Each filter's name and the schema of its settings.
    pub fn schemas(&self, generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
        self.0.iter().map(|entry| (entry.name, (entry.schema)(generator))).collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
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
                let path = if path.is_empty() { base.clone() } else { format!("{base}.{path}") };
                problems.push(Problem { line: node.line, column: node.column, path, message });
            }
        }
    }
    Err(problems)
}
