//! What a filter may ask for while it is being built.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use schemars::{JsonSchema, SchemaGenerator};

use crate::{
    auth::Keys,
    limit::{KeyHasher, Quota, Table},
    telemetry::Metrics,
};

/// The surroundings of a filter under construction.
#[derive(Debug)]
pub struct Env {
    /// The route that the filter belongs to.
    pub route: Arc<str>,
    /// A name for the filter's state that stays the same over reloads: `route/filter`, and its place if that is not unique.
    pub scope: String,
    /// The API keys of the configuration.
    pub keys: Arc<Keys>,
    /// Limit cells, which outlive a reload.
    pub tables: Arc<Tables>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// What is wrong with a filter's settings: each with the key path below the filter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<(String, String)>);

impl Invalid {
    /// One mistake at `path` (empty: the filter itself).
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self(vec![(path.into(), message.into())])
    }

    /// Notes one more.
    pub fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push((path.into(), message.into()));
    }

    /// `Ok` when nothing was noted.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// Limit tables by name: a reload that leaves a limit as it was keeps its cells.
#[derive(Debug, Default)]
pub struct Tables {
    by_scope: Mutex<HashMap<String, (usize, Arc<Table>)>>,
    hasher: KeyHasher,
}

impl Tables {
    /// The table of `scope`, made anew when its quota or its size changed.
    pub fn get(&self, scope: &str, quota: Quota, capacity: usize) -> Arc<Table> {
        let mut tables = self.by_scope.lock();
        if let Some((size, table)) = tables.get(scope)
            && *table.quota() == quota
            && *size == capacity
        {
            return table.clone();
        }
        let table = Arc::new(Table::new(quota, capacity));
        tables.insert(scope.to_owned(), (capacity, table.clone()));
        table
    }

    /// The hasher of every key: seeded once per process, so that keys stay the same over a reload.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Buckets in use that were thrown out, over all tables.
    pub fn evictions(&self) -> u64 {
        self.by_scope.lock().values().map(|(_, table)| table.evictions()).sum()
    }
}

/// The schema of a settings type, for `Configure::schema`.
pub(crate) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}
