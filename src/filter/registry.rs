//! The names of filters, and how each is built from its settings.

use std::{fmt, sync::Arc};

use schemars::{Schema, SchemaGenerator};

use super::{Configure, Env, Filter, Member, Members, Needs, builtin, entry::Entry};
use crate::{
    units::{Problems, nearest},
    yaml::Node,
};

/// Every filter that YAML may name.
#[derive(Clone)]
pub struct Registry(Vec<Entry>);

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// The built-in filters.
    pub fn builtin() -> Self {
        Self(builtin::all())
    }

    /// Adds a filter; one of the same name is replaced.
    #[must_use]
    pub fn with<F: Configure>(mut self) -> Self {
        self.0.retain(|entry| entry.name != F::NAME);
        self.0.push(Entry::of::<F>());
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

    /// What the filter `name` needs of the parts around it.
    pub fn needs(&self, name: &str) -> Needs {
        self.0.iter().find(|entry| entry.name == name).map(|entry| entry.needs).unwrap_or_default()
    }

    /// Each filter's name and its [`SAMPLES`](Configure::SAMPLES).
    pub fn samples(&self) -> impl Iterator<Item = (&'static str, [&'static str; 2])> + '_ {
        self.0.iter().map(|entry| (entry.name, entry.samples))
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

impl Members for Registry {
    fn member(&self, name: &str, settings: &Node, env: &Env) -> Result<Member, Result<Problems, String>> {
        let name = self.resolve(name).map_err(Err)?;
        self.build(name, settings, env).map(|filter| (name, filter)).map_err(Ok)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
