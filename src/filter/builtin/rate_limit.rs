//! `rate_limit`: how fast, by token bucket.
//!
//! YAML: `rate_limit: 10/s` or `rate_limit: { rate: 10/s, burst: 20, by: client_ip }`. Exactly `burst` requests pass at once and then `rate`;
//! a refused request costs nothing. `by` is one of `client_ip`, `api_key`, `jwt`, `header:NAME`, `claim:PATH`, `path`, `all`,
//! or a list of them (one bucket per combination). Buckets are this process's own and bounded in number, or, with `redis:` at the
//! top of the file, those of all gateways together (`sync`).
//!
//! Headers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, -11), the older `X-RateLimit-Limit`,
//! `-Remaining` and `-Reset` (seconds from now), and `Retry-After` on a refusal.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::{ErrorType, OrErr as _, http::ResponseHeader};
use prometheus::IntCounter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{
        Applied, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, State,
        env::schema_of,
        subject::{KeyPart, Subject},
    },
    limit::{Limiter, LocalLimiter, Quota, Take, Verdict},
    message::{
        edit::{Edit as _, FieldsMut},
        reason::Reason,
        reply::{Reply, whole_seconds},
    },
    store::{OnStoreDown, RedisStore, SharedLimiter, SharedLimits, SyncMode},
    telemetry::Lazy,
    units::Rate,
    yaml::{FromShort, Short},
};

/// Settings of `rate_limit`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RateLimitSettings")]
pub(crate) struct Config {
    /// Requests per time, in the long run: `10/s`, `600/m`.
    rate: Rate,
    /// Requests that may come at once. Default: the rate's count.
    #[serde(default)]
    burst: Option<u32>,
    /// What has a bucket of its own. Default `client_ip`.
    #[serde(default)]
    by: Vec<KeyPart>,
    /// The limit's name in `RateLimit` headers. Default `default`.
    #[serde(default = "default_name")]
    name: String,
    /// Which headers tell the client. Default `both`.
    #[serde(default)]
    headers: Announce,
    /// The most buckets to remember. When they are all in use, the fullest is forgotten (and counted). Default 100000.
    #[serde(default = "default_buckets")]
    max_buckets: usize,
    /// How many bits of an IPv6 address make one client. Default 64: a subscriber has at least a /64.
    #[serde(default = "default_prefix")]
    ipv6_prefix: u8,
    /// Where it counts: `local` in this process, `strict` in Redis with a call for every request, `lease` in Redis with tokens
    /// that each gateway takes ahead. Default: `lease` with `redis` at the top of the file, else `local`.
    #[serde(default)]
    sync: Option<SyncMode>,
    /// What a limit in Redis does while Redis does not answer. Default `local_share`.
    #[serde(default)]
    on_store_down: Option<OnStoreDown>,
}

impl FromShort for Config {
    const EXPECTED: &'static str = "a rate like 10/s, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self {
            rate: text.parse()?,
            burst: None,
            by: Vec::new(),
            name: default_name(),
            headers: Announce::default(),
            max_buckets: default_buckets(),
            ipv6_prefix: default_prefix(),
            sync: None,
            on_store_down: None,
        })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Rate>()
    }
}

/// Which rate limit headers are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Announce {
    /// All of them.
    #[default]
    Both,
    /// `RateLimit` and `RateLimit-Policy`.
    Ietf,
    /// `X-RateLimit-*`.
    Legacy,
    /// None; a refusal still carries `Retry-After`. `off` says the same.
    #[serde(alias = "off")]
    None,
}

fn default_name() -> String {
    "default".into()
}

fn default_buckets() -> usize {
    100_000
}

fn default_prefix() -> u8 {
    64
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: Arc<dyn Limiter>,
    on_store_down: OnStoreDown,
    by: Vec<KeyPart>,
    announce: Announce,
    name: Arc<str>,
    policy: HeaderValue,
    limit: HeaderValue,
    violated: String,
    limited: Lazy<IntCounter>,
    checks: (Lazy<IntCounter>, Lazy<IntCounter>),
}

impl Configure for RateLimit {
    const NAME: &'static str = "rate_limit";
    const SAMPLES: [&'static str; 2] = [
        "{ rate: '5/s', burst: 9, by: api_key, name: a, headers: ietf, max_buckets: 2000, ipv6_prefix: 56, sync: lease, on_store_down: deny }",
        "{ rate: '6/s', burst: 10, by: path, name: b, headers: legacy, max_buckets: 200000, ipv6_prefix: 48, sync: strict, on_store_down: allow }",
    ];
    type Config = Short<Config>;

    fn configure(Short(config): Short<Config>, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let burst = config.burst.unwrap_or(config.rate.count);
        let quota = Quota::new(config.rate.count, config.rate.per, burst);
        if let Err(e) = &quota {
            invalid.push(if config.burst == Some(0) { "burst" } else { "" }, e.to_string());
        }
        if !(1..=128).contains(&config.ipv6_prefix) {
            invalid.push("ipv6_prefix", format!("{} is not a prefix from 1 to 128", config.ipv6_prefix));
        }
        if !(1..=100_000_000).contains(&config.max_buckets) {
            invalid.push("max_buckets", format!("{} is not a number from 1 to 100000000", config.max_buckets));
        }
        let named =
            !config.name.is_empty() && config.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !named {
            invalid.push("name", format!("'{}' is not a name of letters, digits and -_.", config.name));
        }
        if matches!(config.sync, Some(SyncMode::Strict | SyncMode::Lease)) && env.redis.is_none() {
            let message = "there is no 'redis' at the top of the file, in which gateways would count together: add it (redis: { url: \"redis://host:6379\" }), or write 'local'";
            invalid.push("sync", message);
        }
        let sync = config.sync.unwrap_or(if env.redis.is_some() { SyncMode::Lease } else { SyncMode::Local });
        if sync == SyncMode::Local && config.on_store_down.is_some() {
            invalid.push("on_store_down", "has no effect on a limit that counts in this process: leave it out");
        }
        invalid.into_result()?;
        let quota = quota.map_err(|e| Invalid::at("", e.to_string()))?;
        // `w` is the time in which the whole quota `q` comes back (draft -11 §3).
        let policy = format!("\"{}\";q={burst};w={}", config.name, whole_seconds(quota.refill()));
        let on_store_down = config.on_store_down.unwrap_or_default();
        let limits = SharedLimits {
            quota,
            strict: sync == SyncMode::Strict,
            on_store_down,
            scope: env.scope.clone(),
            capacity: config.max_buckets,
            ipv6_prefix: config.ipv6_prefix,
        };
        let limiter = limiter(limits, env.redis.as_ref().filter(|_| sync != SyncMode::Local), env)?;
        let by = if config.by.is_empty() { vec![KeyPart::ClientIp] } else { config.by };
        Ok(Self {
            limiter,
            on_store_down,
            by,
            announce: config.headers,
            policy: HeaderValue::try_from(policy).map_err(|e| Invalid::at("name", e.to_string()))?,
            limit: HeaderValue::from(burst),
            violated: format!("\"violated-policies\":[\"{}\"]", config.name),
            name: config.name.into(),
            limited: env.metrics.limited(&env.route),
            checks: env.metrics.limit_checks(),
        })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Short<Config>>(generator)
    }
}

impl RateLimit {
    /// What a verdict means for the request.
    fn decided(&self, verdict: Verdict, exchange: &mut Exchange<'_>) -> Flow {
        exchange.state.limits.push(Applied { policy: self.name.clone(), verdict });
        let Some(wait) = verdict.retry else {
            self.checks.0.inc();
            return Flow::Next;
        };
        self.checks.1.inc();
        self.limited.inc();
        let detail = "too many requests: wait as long as Retry-After says";
        let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, detail)
            .because(Reason::RateLimited)
            .kind("https://iana.org/assignments/http-problem-types#quota-exceeded", Some(self.violated.clone()));
        reply.retry_after(wait).into()
    }
}

/// What counts: `redis`, or else a table of this process.
fn limiter(limits: SharedLimits, redis: Option<&Arc<RedisStore>>, env: &Env) -> Result<Arc<dyn Limiter>, Invalid> {
    let Some(redis) = redis else {
        let table = env.tables.get(&env.scope, limits.quota, limits.capacity);
        let hasher = env.tables.hasher().clone().ipv6_prefix(limits.ipv6_prefix);
        return Ok(Arc::new(LocalLimiter::new(table, hasher)));
    };
    let limiter = SharedLimiter::new(limits, redis.clone());
    Ok(Arc::new(limiter.map_err(|e| Invalid::at("", e.to_string()))?))
}

/// The answer where nobody can count and nothing may pass uncounted: it is not the client that has done too much.
fn uncounted() -> Reply {
    let detail = "requests cannot be counted at the moment: try again";
    Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail)
        .because(Reason::LimitStoreDown)
        .kind("https://iana.org/assignments/http-problem-types#temporary-reduced-capacity", None)
        .retry_after(Duration::from_secs(1))
}

#[async_trait]
impl Filter for RateLimit {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let verdict = match self.limiter.take(&Subject { parts: &self.by, exchange }, 1, exchange.now.since_start) {
            Take::Now(verdict) => verdict,
            Take::Later(verdict) => match verdict.await {
                Ok(verdict) => verdict,
                Err(_) if self.on_store_down == OnStoreDown::Allow => return Ok(Flow::Next),
                Err(_) => return Ok(uncounted().into()),
            },
        };
        Ok(self.decided(verdict, exchange))
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        let Some(applied) = state.limits.iter().find(|applied| Arc::ptr_eq(&applied.policy, &self.name)) else {
            return Ok(());
        };
        let verdict = applied.verdict;
        // The old headers hold one limit only: the one that has refused, else the one that leaves least.
        let refused = state.limits.iter().any(|applied| applied.verdict.retry.is_some());
        // Until more quota is there: for a refused request, that is when it would pass.
        let reset = whole_seconds(verdict.retry.unwrap_or(verdict.reset));
        let write = |fields: &mut dyn FieldsMut| -> pingora::Result<()> {
            if matches!(self.announce, Announce::Both | Announce::Ietf) {
                fields.append(POLICY, self.policy.clone())?;
                fields.append(LIMIT, self.line(verdict.remaining, reset)?)?;
            }
            let told = if refused { verdict.retry.is_some() } else { !tighter(fields.all(), verdict.remaining) };
            if matches!(self.announce, Announce::Both | Announce::Legacy) && told {
                fields.insert(X_LIMIT, self.limit.clone())?;
                fields.insert(X_REMAINING, HeaderValue::from(verdict.remaining))?;
                fields.insert(X_RESET, HeaderValue::from(reset))?;
            }
            Ok(())
        };
        head.edit(write).map_err(|e| Fault(e.to_string()))
    }
}

impl RateLimit {
    /// The value of `RateLimit`.
    fn line(&self, remaining: u32, reset: u64) -> pingora::Result<HeaderValue> {
        let (mut number, mut line) = (itoa::Buffer::new(), Vec::with_capacity(self.name.len() + 40));
        line.push(b'"');
        line.extend_from_slice(self.name.as_bytes());
        line.extend_from_slice(b"\";r=");
        line.extend_from_slice(number.format(remaining).as_bytes());
        line.extend_from_slice(b";t=");
        line.extend_from_slice(number.format(reset).as_bytes());
        HeaderValue::try_from(line).or_err(ErrorType::InternalError, "a limit's name")
    }
}

/// True when another limit of this chain, one that leaves less, has spoken already.
fn tighter(fields: &HeaderMap, remaining: u32) -> bool {
    let other = fields.get(X_REMAINING).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    other.is_some_and(|other| other < remaining)
}
