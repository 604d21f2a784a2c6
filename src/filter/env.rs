//! What a filter may ask for while it is being built.

use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator};

use super::KeySetsDraft;
use crate::{
    auth::{Keys, NonceStores},
    filter::FilterMetrics,
    limit::TablesDraft,
    store::RedisStore,
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
    /// Limit tables, which outlive a reload.
    pub tables: Arc<TablesDraft>,
    /// The store that gateways share, if there is one.
    pub redis: Option<Arc<RedisStore>>,
    /// Key sets that are fetched, which outlive a reload, too.
    pub key_sets: Arc<KeySetsDraft>,
    /// Nonces of signed requests, which belong to the process.
    pub nonces: Arc<NonceStores>,
    /// Groups that may read files with secrets: those of `pingora.user`.
    pub readers: Arc<[u32]>,
    /// Metrics.
    pub metrics: Arc<FilterMetrics>,
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

/// The schema of a settings type, for `Configure::schema`.
pub(crate) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}
