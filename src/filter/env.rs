//! What a filter may ask for while it is being built.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use schemars::{JsonSchema, SchemaGenerator};

use super::{Filter, KeySetsDraft, Outbound, PasswordChecks};
use crate::{
    auth::{Keys, NonceStores},
    filter::FilterMetrics,
    limit::TablesDraft,
    store::RedisStore,
    units::Problems,
    yaml::Node,
};

/// What builds the filters of which another one is made.
pub trait Members: fmt::Debug + Send + Sync {
    /// Builds the filter `name` from its settings; its own name comes along.
    ///
    /// # Errors
    /// There is none of this name (the message), or everything that is wrong with the settings.
    fn member(&self, name: &str, settings: &Node, env: &Env) -> Result<Member, Result<Problems, String>>;
}

/// A filter and its name.
pub type Member = (&'static str, Arc<dyn Filter>);

/// The names of a route's limits.
#[derive(Debug, Default)]
pub struct LimitNames {
    /// All of them.
    pub taken: Vec<String>,
    /// How many limits have come of filters without a name.
    pub unnamed: usize,
}

/// The surroundings of a filter under construction.
#[derive(Debug, Clone)]
pub struct Env {
    /// The route that the filter belongs to.
    pub route: Arc<str>,
    /// A name for the filter's state that stays the same over reloads: `route/filter`, and its place if that is not unique.
    pub scope: String,
    /// The names that limits of the route have so far.
    pub limit_names: Arc<Mutex<LimitNames>>,
    /// The filters that there are, for one that is made of others.
    pub members: Arc<dyn Members>,
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
    /// Checks of passwords, of which the process makes only so many at once.
    pub password_checks: Arc<PasswordChecks>,
    /// Sends requests of filters to other services.
    pub outbound: Arc<dyn Outbound>,
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
