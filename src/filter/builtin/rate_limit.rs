//! `rate_limit`: how fast, by token bucket or sliding window, and how many in a period of the calendar.
//!
//! YAML: `rate_limit: 10/s` or `rate_limit: { rate: 10/s, burst: 20, by: client_ip }`. Exactly `burst` requests pass at once and then `rate`;
//! a refused request costs nothing. Of several limits (`rate`, `quota`, `limits`) a request passes all, or it costs nothing
//! in any. `by` is one of `client_ip`, `api_key`, `jwt`, `header:NAME`, `claim:PATH`, `path`, `all`, or a list of them (one bucket per combination). Buckets are this process's own and bounded in number, or, with `redis:` at the
//! top of the file, those of all gateways together (`sync`).
//!
//! Headers: of several limits, `RateLimit-Policy` names all, and the others tell of the one that has refused or leaves least.
//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, -11), the older `X-RateLimit-Limit`,
//! `-Remaining` and `-Reset` (seconds from now), and `Retry-After` on a refusal.

mod calendar_count;
mod settings;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::{ErrorType, OrErr as _, http::ResponseHeader};
use prometheus::IntCounter;
use schemars::{Schema, SchemaGenerator};

use self::settings::{Announce, Counted, Named, RateLimitConfig};
use crate::{
    filter::{
        Applied, Background, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, SharedCounts, State,
        env::schema_of,
        subject::{KeyPart, Subject},
    },
    limit::{
        AnyTable, Decision, InvalidQuota, KeyHasher, Limiter, LocalLimiter, LocalSet, Moment, Origin, Table, Take,
    },
    message::{
        edit::{Edit as _, FieldsMut},
        fields::number,
        reason::Reason,
        reply::{Reply, whole_seconds},
    },
    store::{OnStoreDown, RedisStore, SharedLimiter, SharedLimits, SharedSet, SharedSettings, SyncMode},
    telemetry::Lazy,
    yaml::Short,
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: Arc<dyn Limiter>,
    /// The same, where gateways keep it together.
    together: Option<Together>,
    on_store_down: OnStoreDown,
    by: Vec<KeyPart>,
    announce: Announce,
    /// Every limit, for `RateLimit-Policy`.
    policy: HeaderValue,
    told: Box<[Told]>,
    /// Of each limit, if gateways keep them together.
    shared: Box<[SharedCounts]>,
    limited: Lazy<IntCounter>,
    checks: (Lazy<IntCounter>, Lazy<IntCounter>),
}

/// What counts for gateways together.
#[derive(Debug)]
enum Together {
    One(SharedLimiter),
    Several(SharedSet),
}

/// What is told of one limit.
#[derive(Debug)]
struct Told {
    name: Arc<str>,
    limit: HeaderValue,
    violated: String,
}

impl Told {
    fn new(limit: &Named) -> Self {
        Self {
            limit: HeaderValue::from(limit.counted.announced().0),
            violated: format!("\"violated-policies\":[\"{}\"]", limit.name),
            name: limit.name.as_str().into(),
        }
    }
}

impl Configure for RateLimit {
    const NAME: &'static str = "rate_limit";
    const SAMPLES: [&'static str; 2] = [
        "{ rate: '5/s', burst: 9, algorithm: token_bucket, quota: 700/day, limits: [{ rate: '50/m', burst: 60, algorithm: token_bucket, name: c }, { quota: 9000/month }], by: api_key, name: a, headers: ietf, max_buckets: 2000, ipv6_prefix: 56, sync: strict, on_store_down: deny }",
        "{ rate: '6/s', burst: 10, algorithm: sliding_window, quota: 800/hour, limits: [{ rate: '70/m', burst: 80, algorithm: sliding_window, name: d }, { quota: 9001/month }], by: path, name: b, headers: legacy, max_buckets: 200000, ipv6_prefix: 48, sync: lease, on_store_down: allow }",
    ];
    type Config = Short<RateLimitConfig>;

    fn configure(Short(config): Short<RateLimitConfig>, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let limits = config.limits(&mut env.limit_names.lock(), &mut invalid);
        if !(1..=128).contains(&config.ipv6_prefix) {
            invalid.push("ipv6_prefix", format!("{} is not a prefix from 1 to 128", config.ipv6_prefix));
        }
        if !(1..=100_000_000).contains(&config.max_buckets) {
            invalid.push("max_buckets", format!("{} is not a number from 1 to 100000000", config.max_buckets));
        }
        let bucket = matches!(&limits[..], [Named { counted: Counted::Bucket(_), .. }]);
        let sync = config.sync(bucket, env.redis.is_some(), &mut invalid);
        invalid.into_result()?;
        // `w` is the time in which the whole quota `q` comes back (draft -11 §3).
        let policy = limits.iter().map(|limit| {
            let (count, seconds) = limit.counted.announced();
            format!("\"{}\";q={count};w={seconds}", limit.name)
        });
        let policy = policy.collect::<Vec<_>>().join(", ");
        let redis = env.redis.as_ref().filter(|_| sync != SyncMode::Local);
        let counts = |limit: &Named| env.metrics.shared_limit(&env.route, &limit.name);
        let (limiter, together) = limiter(&limits, &config, redis, sync == SyncMode::Strict, env)?;
        Ok(Self {
            limiter,
            together,
            on_store_down: config.on_store_down.unwrap_or_default(),
            by: if config.by.is_empty() { vec![KeyPart::ClientIp] } else { config.by },
            announce: config.headers,
            policy: HeaderValue::try_from(policy).map_err(|e| Invalid::at("name", e.to_string()))?,
            told: limits.iter().map(Told::new).collect(),
            shared: if redis.is_some() { limits.iter().map(counts).collect() } else { Box::default() },
            limited: env.metrics.limited(&env.route),
            checks: env.metrics.limit_checks(),
        })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Short<RateLimitConfig>>(generator)
    }
}

impl RateLimit {
    /// Counts a decision of gateways together.
    fn count(&self, of: usize, allowed: bool, origin: Origin) {
        if let Some(counts) = self.shared.get(of) {
            counts.count(allowed, origin);
        }
    }

    /// What a verdict means for the request.
    fn decided(&self, Decision { verdict, of, origin }: Decision, exchange: &mut Exchange<'_>) -> Flow {
        let Some(told) = self.told.get(of) else { return Flow::Next };
        self.count(of, verdict.allowed(), origin);
        exchange.state.limits.push(Applied { policy: told.name.clone(), verdict });
        let Some(wait) = verdict.retry else {
            self.checks.0.inc();
            return Flow::Next;
        };
        self.checks.1.inc();
        self.limited.inc();
        let detail = "too many requests: wait as long as Retry-After says";
        let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, detail)
            .because(Reason::RateLimited)
            .kind("https://iana.org/assignments/http-problem-types#quota-exceeded", Some(told.violated.clone()));
        reply.retry_after(wait).into()
    }
}

/// What counts: `redis`, or else tables of this process.
fn limiter(
    limits: &[Named],
    config: &RateLimitConfig,
    redis: Option<&Arc<RedisStore>>,
    strict: bool,
    env: &Env,
) -> Result<(Arc<dyn Limiter>, Option<Together>), Invalid> {
    let (capacity, ipv6_prefix) = (config.max_buckets, config.ipv6_prefix);
    let Some(redis) = redis else { return Ok((local(limits, capacity, ipv6_prefix, env), None)) };
    let (on_store_down, scope) = (config.on_store_down.unwrap_or_default(), env.scope.clone());
    let wrong = |e: InvalidQuota| Invalid::at("", e.to_string());
    if let [Named { counted: Counted::Bucket(quota), .. }] = limits {
        let quota = *quota;
        let limits = SharedLimits { quota, strict, on_store_down, scope, capacity, ipv6_prefix };
        let one = SharedLimiter::new(limits, redis.clone()).map_err(wrong)?;
        return Ok((Arc::new(one.clone()), Some(Together::One(one))));
    }
    let table = |limit: &Named| match limit.counted {
        Counted::Bucket(quota) => AnyTable::Bucket(Arc::new(Table::new(quota, capacity))),
        Counted::Window(window) => AnyTable::Window(Arc::new(Table::new(window, capacity))),
        Counted::Calendar(quota) => AnyTable::Calendar(Arc::new(Table::new(quota, capacity))),
    };
    let settings = SharedSettings { on_store_down, scope, capacity, ipv6_prefix };
    let set = SharedSet::new(settings, limits.iter().map(table).collect(), redis.clone()).map_err(wrong)?;
    Ok((Arc::new(set.clone()), Some(Together::Several(set))))
}

/// Tables of this process, which outlive a reload that leaves their limits as they are.
fn local(limits: &[Named], capacity: usize, ipv6_prefix: u8, env: &Env) -> Arc<dyn Limiter> {
    let hasher: KeyHasher = env.tables.hasher().clone().ipv6_prefix(ipv6_prefix);
    let tables = &env.tables;
    if let [Named { counted, .. }] = limits {
        return match *counted {
            Counted::Bucket(quota) => Arc::new(LocalLimiter::new(tables.get(&env.scope, quota, capacity), hasher)),
            Counted::Window(window) => Arc::new(LocalLimiter::new(tables.get(&env.scope, window, capacity), hasher)),
            Counted::Calendar(quota) => Arc::new(LocalLimiter::new(tables.get(&env.scope, quota, capacity), hasher)),
        };
    }
    let table = |(place, limit): (usize, &Named)| -> AnyTable {
        let name = if place == 0 { env.scope.clone() } else { format!("{}#{}", env.scope, place + 1) };
        match limit.counted {
            Counted::Bucket(quota) => AnyTable::Bucket(tables.get(&name, quota, capacity)),
            Counted::Window(window) => AnyTable::Window(tables.get(&name, window, capacity)),
            Counted::Calendar(quota) => AnyTable::Calendar(tables.get(&name, quota, capacity)),
        }
    };
    Arc::new(LocalSet::new(limits.iter().enumerate().map(table).collect(), tables.locks(), hasher))
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
        let now = exchange.now;
        let now = Moment { since_start: now.since_start, unix: Duration::from_secs(now.unix) };
        let decision = match self.limiter.take(&Subject { parts: &self.by, exchange }, 1, now) {
            Take::Now(decision) => decision,
            Take::Later(decision) => {
                let Ok(decision) = decision.await else {
                    let allowed = self.on_store_down == OnStoreDown::Allow;
                    self.count(0, allowed, Origin::Alone);
                    return Ok(if allowed { Flow::Next } else { uncounted().into() });
                };
                decision
            }
        };
        Ok(self.decided(decision, exchange))
    }

    fn background(&self) -> Option<Background> {
        Some(match self.together.as_ref()? {
            Together::One(limiter) => Box::pin(limiter.keep_told()),
            Together::Several(set) => Box::pin(set.keep_told()),
        })
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        let told = |applied: &Applied| self.told.iter().find(|told| Arc::ptr_eq(&applied.policy, &told.name));
        let Some((told, verdict)) = state.limits.iter().find_map(|applied| Some((told(applied)?, applied.verdict)))
        else {
            return Ok(());
        };
        // The old headers hold one limit only: the one that has refused, else the one that leaves least.
        let refused = state.limits.iter().any(|applied| applied.verdict.retry.is_some());
        // Until more quota is there: for a refused request, that is when it would pass.
        let reset = whole_seconds(verdict.retry.unwrap_or(verdict.reset));
        let write = |fields: &mut dyn FieldsMut| -> pingora::Result<()> {
            if matches!(self.announce, Announce::Both | Announce::Ietf) {
                fields.append(POLICY, self.policy.clone())?;
                fields.append(LIMIT, told.line(verdict.remaining, reset)?)?;
            }
            let speaks = if refused { verdict.retry.is_some() } else { !tighter(fields.all(), verdict.remaining) };
            if matches!(self.announce, Announce::Both | Announce::Legacy) && speaks {
                fields.insert(X_LIMIT, told.limit.clone())?;
                fields.insert(X_REMAINING, number(verdict.remaining.into()))?;
                fields.insert(X_RESET, number(reset))?;
            }
            Ok(())
        };
        head.edit(write).map_err(|e| Fault(e.to_string()))
    }
}

impl Told {
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
