//! Keys that nobody has: what a step asks of one, and none fulfils.

use std::collections::HashMap;

use super::{Step, words};
use crate::{
    config::ApiKeyConfig,
    units::Problems,
    yaml::{Node, Spanned},
};

/// The keys of a configuration, ordered once for all of its steps: none of them looks at every key.
pub(super) struct Keys<'a> {
    by_id: HashMap<&'a str, Key<'a>>,
    all: Keyring<'a>,
}

#[derive(Clone, Copy)]
struct Key<'a> {
    config: &'a ApiKeyConfig,
    expired: bool,
}

/// Some of the keys.
#[derive(Default)]
struct Keyring<'a> {
    valid: Holders<'a>,
    expired: Holders<'a>,
}

/// Keys by what they have.
#[derive(Default)]
struct Holders<'a> {
    some: bool,
    by_scope: HashMap<&'a str, Vec<&'a ApiKeyConfig>>,
}

impl<'a> Keyring<'a> {
    fn of(keys: impl Iterator<Item = Key<'a>>) -> Self {
        let mut found = Self::default();
        for key in keys {
            let holders = if key.expired { &mut found.expired } else { &mut found.valid };
            holders.some = true;
            for scope in &key.config.scopes {
                holders.by_scope.entry(scope).or_default().push(key.config);
            }
        }
        found
    }

    /// The words for it when no valid key has all of `scopes`.
    fn none_has(&self, scopes: &[(&str, &Node)]) -> Option<&'static str> {
        let only = if self.expired.have(scopes) { " that has not expired" } else { "" };
        (!self.valid.have(scopes)).then_some(only)
    }
}

impl Holders<'_> {
    /// True when one of them has all of `scopes`.
    fn have(&self, scopes: &[(&str, &Node)]) -> bool {
        let holders = scopes.iter().map(|(scope, _)| self.by_scope.get(scope).map_or(&[][..], Vec::as_slice));
        let Some(fewest) = holders.min_by_key(|holders| holders.len()) else { return self.some };
        fewest.iter().any(|key| scopes.iter().all(|(scope, _)| key.scopes.iter().any(|other| other == scope)))
    }
}

impl<'a> Keys<'a> {
    pub(super) fn of(configs: &'a [Spanned<ApiKeyConfig>]) -> Self {
        let now = jiff::Timestamp::now();
        let key = |config: &'a Spanned<ApiKeyConfig>| {
            let end = config.expires.as_deref().and_then(|time| time.parse().ok());
            Key { config, expired: end.is_some_and(|end: jiff::Timestamp| now >= end) }
        };
        let by_id: HashMap<_, _> = configs.iter().map(|config| (config.id.as_str(), key(config))).collect();
        let all = Keyring::of(by_id.values().copied());
        Self { by_id, all }
    }

    /// No key fulfils all that `step` asks of one.
    pub(super) fn nobody_has(&self, step: &Step<'_>, found: &mut Problems) {
        if step.name != "api_key" {
            return;
        }
        let allowed = words(step.get("allow"));
        let of = if allowed.is_empty() { "" } else { " of 'allow'" };
        let few = Keyring::of(allowed.iter().filter_map(|(id, _)| self.by_id.get(id).copied()));
        let asked = if allowed.is_empty() { &self.all } else { &few };
        if !asked.valid.some && asked.expired.some {
            let message = format!("every key{of} has expired, so nobody can pass: give one a later 'expires'");
            return found.push(step.get("allow").unwrap_or(step.node).place().problem(message));
        }
        let scopes = words(step.get("scopes"));
        let mut absent = false;
        for one in &scopes {
            if let Some(only) = asked.none_has(std::slice::from_ref(one)) {
                let (scope, node) = one;
                let message = format!(
                    "no key{of}{only} has the scope '{scope}', so nobody can pass: give it to one under 'api_keys'"
                );
                found.push(node.place().problem(message));
                absent = true;
            }
        }
        if let (false, 2.., Some(only), Some(node)) =
            (absent, scopes.len(), asked.none_has(&scopes), step.get("scopes"))
        {
            let message = format!(
                "no key{of}{only} has all of these scopes, so nobody can pass: give them to one under 'api_keys'"
            );
            found.push(node.place().problem(message));
        }
    }
}
