//! `cache:` of a route: what the operator says about which answers are kept, and for whom.

use std::time::Duration;

use http::{HeaderName, Method, header};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{
    condition::{Bypass, Condition},
    policy::{CookieRule, OriginRule, Policy, SetCookieRule},
    query::QueryRule,
};
use crate::{
    units::{Share, Size, Span, Statuses, fingerprint},
    yaml::FromShort,
};

/// `cache:`. Answers are kept as RFC 9111 says for a shared cache; what is set here goes beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// How long an answer is kept whose backend says nothing about it. Default: it is not kept.
    pub ttl: Option<Span>,
    /// The answers that `ttl` is for. Default `[200, 301, 404]`.
    pub statuses: Vec<Statuses>,
    /// `respect` what backends say about an answer (the default), or `override` it: `ttl` is then for all answers with
    /// one of `statuses`, also for those that should not be kept; `private` ones only if each client has its own.
    pub origin: OriginRule,
    /// Clients with different identities get the same answers. Default false: each has its own.
    pub shared: bool,
    /// Keep also answers to requests with `Authorization` that are not marked `public`, `s-maxage` or `must-revalidate`:
    /// for each identity, and each value of `Authorization`, apart, unless `shared`. Default false.
    pub authorized: bool,
    /// What becomes of an answer with `Set-Cookie`: it is not kept (`refuse`, the default), kept without the field
    /// (`strip`), or as it is (`keep`).
    pub set_cookie: SetCookieRule,
    /// Whether answers whose backend says neither `public` nor how long they are good are for requests with a `Cookie` too
    /// (`ignore`), or neither kept of them nor given to them (`refuse`, the default).
    pub cookies: CookieRule,
    /// How long an answer with `Last-Modified` is kept whose backend says nothing else: this part of its age then, at
    /// most an hour, and only without a query. Default 10%; 0 is never.
    pub heuristic: Share,
    /// The methods that are answered: `GET`, `HEAD`. Default both.
    pub methods: Vec<String>,
    /// Which parameters of the query make a difference. Default: all of them.
    pub query: QueryConfig,
    /// Fields of requests that make a difference, beside those that answers name in `Vary`.
    pub key_headers: Vec<String>,
    /// Requests that have one of these go to the backend, and their answers are not kept.
    pub bypass_if: BypassConfig,
    /// The largest body that is kept. Default 8MiB.
    pub max_object: Size,
    /// How long an answer that is no longer fresh may be given while a new one is fetched, if the backend does not say.
    /// Default 0.
    pub stale_while_revalidate: Span,
    /// How long an answer that is no longer fresh may be given in place of a 500, 502, 503 or 504, if the backend does not
    /// say. Default 0.
    pub stale_if_error: Span,
    /// How long an answer that is no longer fresh may be given while no backend can be reached; not one whose backend
    /// forbids it (RFC 9111 §4.2.4). Default 1m.
    pub stale_if_unreachable: Span,
    /// Heed `Cache-Control` of clients, who can have the backend asked or an old answer given with it. Default true.
    pub client_directives: bool,
}

/// `query:` of a cache. At most one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Only these parameters make a difference. A final `*` stands for any end of a name.
    pub include: Option<Vec<String>>,
    /// These parameters make no difference. A final `*` stands for any end of a name.
    pub exclude: Vec<String>,
}

/// `bypass_if:` of a cache. Each is a name, or `name=value`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BypassConfig {
    /// Fields.
    pub header: Vec<String>,
    /// Cookies.
    pub cookie: Vec<String>,
    /// Parameters of the query.
    pub query: Vec<String>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: None,
            statuses: [200, 301, 404].map(Statuses::one).into(),
            origin: OriginRule::Respect,
            shared: false,
            authorized: false,
            set_cookie: SetCookieRule::Refuse,
            cookies: CookieRule::Refuse,
            heuristic: Share(0.1),
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            query: QueryConfig::default(),
            key_headers: Vec::new(),
            bypass_if: BypassConfig::default(),
            max_object: Size(8 << 20),
            stale_while_revalidate: Span(Duration::ZERO),
            stale_if_error: Span(Duration::ZERO),
            stale_if_unreachable: Span(Duration::from_secs(60)),
            client_directives: true,
        }
    }
}

impl FromShort for CacheConfig {
    const EXPECTED: &'static str = "a mapping ('cache: {}' keeps what the backend allows), or a duration for 'ttl'";

    fn from_short(text: &str) -> Result<Self, String> {
        match text {
            "true" | "on" | "yes" => Err(format!("'{text}' is not a cache: write 'cache: {{}}' to have one")),
            "false" | "off" | "no" => Err(format!("'{text}' is not a cache: leave 'cache' out to have none")),
            _ => text.parse().map(|ttl| Self { ttl: Some(ttl), ..Self::default() }),
        }
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Span>()
    }
}

/// What is wrong with a setting: its name, and what to say about it.
pub type Mistake = (&'static str, String);

impl CacheConfig {
    /// The policy that these settings mean.
    ///
    /// # Errors
    /// Every mistake.
    pub fn policy(&self) -> Result<Policy, Vec<Mistake>> {
        let mut wrong: Vec<Mistake> = Vec::new();
        if self.origin == OriginRule::Override && self.ttl.is_none() {
            wrong.push(("origin", "'override' needs a 'ttl': how long are answers kept?".to_owned()));
        }
        if self.statuses.is_empty() {
            wrong.push(("statuses", "names no status: leave it out for 200, 301 and 404".to_owned()));
        }
        if !self.statuses.iter().all(Statuses::exist) {
            wrong.push(("statuses", "HTTP has statuses from 100 to 599".to_owned()));
        }
        if let Some(status) = [101, 206, 304].iter().find(|no| self.statuses.contains(&Statuses::one(**no))) {
            wrong.push(("statuses", format!("an answer with status {status} is no whole one, and never kept")));
        }
        if self.max_object.0 == 0 {
            wrong.push(("max_object", "0 would keep nothing".to_owned()));
        }
        let methods = self.methods(&mut wrong);
        let query = self.query.rule(&mut wrong);
        let key_headers = names("key_headers", &self.key_headers, &mut wrong);
        if let Some(name) = key_headers.iter().find(|name| NOT_IN_KEYS.contains(name)) {
            wrong.push(("key_headers", format!("'{name}' is not a field to tell answers apart by")));
        }
        let bypass = self.bypass_if.rule(&mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Policy {
            ttl: self.ttl.map(Duration::from),
            statuses: self.statuses.clone(),
            origin: self.origin,
            shared: self.shared,
            authorized: self.authorized,
            set_cookie: self.set_cookie,
            cookies: self.cookies,
            heuristic: self.heuristic.0,
            methods,
            query,
            key_headers,
            bypass,
            max_object: usize::try_from(self.max_object.0).unwrap_or(usize::MAX),
            stale_while_revalidate: self.stale_while_revalidate.0,
            stale_if_error: self.stale_if_error.0,
            stale_if_unreachable: self.stale_if_unreachable.0,
            client_directives: self.client_directives,
            // The same for the same settings, also in another process.
            fingerprint: fingerprint(&format!("{self:?}")),
        })
    }

    fn methods(&self, wrong: &mut Vec<Mistake>) -> Vec<Method> {
        let mut known = Vec::new();
        for name in &self.methods {
            match name.as_str() {
                "GET" => known.push(Method::GET),
                "HEAD" => known.push(Method::HEAD),
                _ => wrong.push(("methods", format!("'{name}' is not answered by a cache: only GET and HEAD are"))),
            }
        }
        if !known.contains(&Method::GET) {
            wrong.push(("methods", "must have GET: only answers to it are kept".to_owned()));
        }
        known
    }
}

/// Fields that are the connection's, make every request its own, or are in the key anyway.
const NOT_IN_KEYS: [HeaderName; 6] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::RANGE,
    header::CACHE_CONTROL,
];

fn names(setting: &'static str, names: &[String], wrong: &mut Vec<Mistake>) -> Vec<HeaderName> {
    let mut known = Vec::new();
    for name in names {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => known.push(name),
            Err(_) => wrong.push((setting, format!("'{name}' is not the name of a field"))),
        }
    }
    known
}

impl QueryConfig {
    fn rule(&self, wrong: &mut Vec<Mistake>) -> QueryRule {
        if self.include.is_some() && !self.exclude.is_empty() {
            wrong.push(("query", "has both 'include' and 'exclude': leave one of them out".to_owned()));
        }
        for name in self.include.iter().flatten().chain(&self.exclude) {
            let bare = name.strip_suffix('*').unwrap_or(name);
            if name.is_empty() || bare.contains(['*', '&', '=', ';', '%']) {
                wrong.push((
                    "query",
                    format!("'{name}' is not the name of a parameter; a '*' may only stand at its end"),
                ));
            }
        }
        match &self.include {
            Some(names) => QueryRule::Include(names.clone()),
            None if self.exclude.is_empty() => QueryRule::Whole,
            None => QueryRule::Exclude(self.exclude.clone()),
        }
    }
}

impl BypassConfig {
    fn rule(&self, wrong: &mut Vec<Mistake>) -> Bypass {
        let conditions = |texts: &[String], wrong: &mut Vec<Mistake>| -> Vec<Condition> {
            let all = texts.iter().map(|text| Condition::parse(text));
            if all.clone().any(|condition| condition.name.is_empty()) {
                wrong.push(("bypass_if", "has an empty name".to_owned()));
            }
            all.collect()
        };
        let headers = conditions(&self.header, wrong);
        let bare: Vec<String> = headers.iter().map(|condition| condition.name.clone()).collect();
        let headers = names("bypass_if", &bare, wrong).into_iter().zip(headers).collect();
        Bypass { headers, cookies: conditions(&self.cookie, wrong), query: conditions(&self.query, wrong) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn read(yaml: &str) -> CacheConfig {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn nothing_said_is_the_default() {
        let policy = read("{}").policy().unwrap();
        assert_eq!((policy.ttl, policy.max_object, policy.shared), (None, 8 << 20, false));
        assert_eq!(policy.methods, [Method::GET, Method::HEAD]);
        assert_eq!(policy.fingerprint, CacheConfig::default().policy().unwrap().fingerprint);
    }

    #[test]
    fn all_that_can_be_said() {
        let config = read(
            "{ttl: 5m, statuses: [200, 3xx], origin: override, shared: true, authorized: true, set_cookie: strip, \
             cookies: ignore, heuristic: 0, methods: [GET], query: {exclude: [utm_*]}, key_headers: [X-Tenant], \
             bypass_if: {header: [X-Preview, x-a=b], cookie: [session], query: [nocache=1]}, max_object: 1MiB, \
             stale_while_revalidate: 10s, stale_if_error: 1h, stale_if_unreachable: 0, client_directives: false}",
        );
        let policy = config.policy().unwrap();
        assert_eq!(policy.ttl, Some(Duration::from_secs(300)));
        assert_eq!(policy.key_headers, ["x-tenant"]);
        assert!(matches!(policy.query, QueryRule::Exclude(names) if names == ["utm_*"]));
        assert_ne!(policy.fingerprint, CacheConfig::default().policy().unwrap().fingerprint);
    }

    #[test]
    fn a_duration_alone_is_the_ttl() {
        assert_eq!(CacheConfig::from_short("5m").unwrap(), read("{ttl: 5m}"));
        for (text, says) in
            [("true", "cache: {}"), ("on", "cache: {}"), ("off", "leave 'cache' out"), ("5", "duration")]
        {
            let wrong = CacheConfig::from_short(text).unwrap_err();
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
    }

    #[test]
    fn mistakes() {
        for (yaml, setting, says) in [
            ("{origin: override}", "origin", "needs a 'ttl'"),
            ("{statuses: []}", "statuses", "names no status"),
            ("{statuses: [99]}", "statuses", "from 100 to 599"),
            ("{statuses: [206]}", "statuses", "206"),
            ("{max_object: 0}", "max_object", "nothing"),
            ("{methods: [GET, POST]}", "methods", "'POST'"),
            ("{methods: [HEAD]}", "methods", "must have GET"),
            ("{query: {include: [a], exclude: [b]}}", "query", "both"),
            ("{query: {exclude: ['a*b']}}", "query", "'a*b'"),
            ("{query: {include: ['']}}", "query", "''"),
            ("{key_headers: ['a b']}", "key_headers", "'a b'"),
            ("{key_headers: [Host]}", "key_headers", "'host'"),
            ("{bypass_if: {header: ['=x']}}", "bypass_if", "empty"),
            ("{bypass_if: {header: ['a b']}}", "bypass_if", "'a b'"),
        ] {
            let wrong = read(yaml).policy().unwrap_err();
            assert!(wrong.iter().any(|(at, text)| *at == setting && text.contains(says)), "{yaml}: {wrong:?}");
        }
    }
}
