//! One of the configuration's own `tests:`.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cache::trial::Verdict;

/// One entry of `tests:`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// `GET /path` or `GET http://host/path`.
    pub request: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The address at the other end of the connection. Default 127.0.0.1.
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// The name of the listener that it comes in by. Default: the first listener.
    #[serde(default)]
    pub listener: Option<String>,
    /// What a backend would say to it, for `expect: { cache: ... }`.
    #[serde(default)]
    pub answer: Option<AnswerConfig>,
    /// What must come of it.
    pub expect: Expect,
}

/// What a backend would say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerConfig {
    /// Its status. Default 200.
    pub status: u16,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
}

impl Default for AnswerConfig {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: String::new() }
    }
}

/// What a second request like this one would be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheExpectation {
    /// The kept answer.
    Hit,
    /// The kept answer, when the backend has said that it is good still.
    Revalidated,
    /// The kept answer, which is too old, while a new one is fetched.
    Stale,
    /// The backend's: nothing was kept.
    Miss,
    /// The backend's: the request goes past the cache.
    Bypass,
}

impl CacheExpectation {
    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// What must come of a test's request; what is left out is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The route's id.
    pub route: Option<String>,
    /// The service that it is forwarded to.
    pub service: Option<String>,
    /// The path that the backend sees.
    pub path: Option<String>,
    /// The status of the gateway's own answer.
    pub status: Option<u16>,
    /// The filter that answered.
    pub refused_by: Option<String>,
    /// What the same request would be answered with once `answer` has come.
    pub cache: Option<CacheExpectation>,
    /// Why it is no hit: the word that `Cache-Status` has for it (`detail=`).
    pub cache_detail: Option<String>,
}

impl Expect {
    pub(super) fn differences(&self, outcome: &TestOutcome) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: Option<String>, actual: Option<String>| {
            if let Some(expected) = expected
                && actual.as_ref() != Some(&expected)
            {
                let actual = actual.unwrap_or_else(|| "none".to_owned());
                found.push(format!("expected {what} {expected}, got {actual}"));
            }
        };
        compare("route", self.route.clone(), outcome.route.clone());
        compare("service", self.service.clone(), outcome.service.clone());
        compare("path", self.path.clone(), outcome.path.clone());
        compare("status", self.status.map(|s| s.to_string()), outcome.status.map(|s| s.to_string()));
        compare("refused_by", self.refused_by.clone(), outcome.refused_by.clone());
        let text = |word: &'static str| word.to_owned();
        compare("cache", self.cache.map(|word| text(word.label())), outcome.cache.map(|(word, _)| text(word)));
        let detail = outcome.cache.and_then(|(_, detail)| detail);
        compare("cache_detail", self.cache_detail.clone(), detail.map(text));
        found
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestOutcome {
    pub(super) route: Option<String>,
    pub(super) service: Option<String>,
    pub(super) path: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) refused_by: Option<String>,
    /// The word of the cache, and why.
    pub(super) cache: Option<Verdict>,
}
