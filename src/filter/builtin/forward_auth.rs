//! `forward_auth`: who may pass, by asking another service about each request.
//!
//! YAML: `forward_auth: { url: "http://auth.internal:9000/verify", response_headers: [X-User, X-Groups], identity: X-User }`. The
//! service gets a `GET` with the client's `request_headers` and with `X-Forwarded-Method`, `-Host`, `-Uri`, `-Proto` and `-For`,
//! which the gateway makes; not the body. A 2xx lets the request pass; 401, 403 and a redirect go to the client as they are;
//! anything else, and no answer, is `on_error`. Connections to it are kept.

mod fields;
mod question;
mod settings;
mod verdict;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderName, StatusCode, header};
use pingora::http::RequestHeader;
use prometheus::IntCounter;
use schemars::{Schema, SchemaGenerator};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{
    fields::{identity, shown, told},
    question::Question,
    settings::{ForwardAuthConfig, Ignored, OnError},
    verdict::{Allowed, MOST, Remembered, Verdict, judge},
};
use crate::{
    auth::{CredentialKey, Method},
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, Outbound, OutboundTarget, State, env::schema_of},
    message::{reason::Reason, reply::Reply},
    telemetry::Lazy,
    units::CountPermit,
};

/// So many wait for the service, for each request that is sent to it at once.
const WAITING: usize = 10;

/// A client that comes back then may find the service well.
const SOON: Duration = Duration::from_secs(1);

/// The longest that an answer is remembered: who has lost a permission should notice.
const LONGEST: Duration = Duration::from_secs(3600);

pub(crate) struct ForwardAuth {
    target: OutboundTarget,
    outbound: Arc<dyn Outbound>,
    shown: Vec<HeaderName>,
    told: Vec<HeaderName>,
    identity: Option<HeaderName>,
    on_error: OnError,
    at_once: usize,
    forward: bool,
    cache: Option<Answers>,
    /// Of the digests of what clients show.
    key: CredentialKey,
    free: Semaphore,
    waiting: Arc<AtomicUsize>,
    /// The service has failed last time, which has been said.
    failing: AtomicBool,
    outcomes: Outcomes,
}

/// Answers that are remembered.
struct Answers {
    ttl: Duration,
    ignore: Vec<Ignored>,
    known: Remembered,
}

/// Counters by what became of requests.
struct Outcomes {
    allowed: Lazy<IntCounter>,
    refused: Lazy<IntCounter>,
    remembered: Lazy<IntCounter>,
    failed: Lazy<IntCounter>,
    busy: Lazy<IntCounter>,
}

impl fmt::Debug for ForwardAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, shown, told, identity, on_error, at_once, forward, .. } = self;
        let cache = self.cache.as_ref().map(|cache| (cache.ttl, &cache.ignore));
        write!(f, "ForwardAuth({target:?} {shown:?} {told:?} {identity:?} {on_error:?} {at_once} {forward} {cache:?})")
    }
}

impl Configure for ForwardAuth {
    const NAME: &'static str = "forward_auth";
    const SAMPLES: [&'static str; 2] = [
        "{ url: 'https://a.example/verify', ca: tests/fixtures/tls/a.pem, timeout: 1s, request_headers: [X-Token-A], \
         response_headers: [X-Judged-A], identity: X-Judged-A, on_error: deny, at_once: 10, forward: true, cache: { ttl: \
         10s, ignore: [method] } }",
        "{ url: 'https://b.example/verify', ca: tests/fixtures/tls/b.pem, timeout: 3s, request_headers: [X-Token-B], \
         response_headers: [X-Judged-B], identity: X-Judged-B, on_error: allow, at_once: 20, forward: false, cache: { \
         ttl: 20s, ignore: [uri] } }",
    ];
    type Config = ForwardAuthConfig;

    fn configure(config: ForwardAuthConfig, env: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let target = config.target(&mut invalid);
        let shown = shown(&config.request_headers, &mut invalid);
        let told = told(&config, &mut invalid);
        let identity = identity(&config, &told, &mut invalid);
        if !(1..=100_000).contains(&config.at_once) {
            invalid.push("at_once", format!("{} is not a number from 1 to 100000", config.at_once));
        }
        let cache = answers(&config, &mut invalid);
        let key = CredentialKey::generate().map_err(|e| Invalid::at("", e.to_string()))?;
        invalid.into_result()?;
        let target = target.ok_or_else(|| Invalid::at("url", "is missing"))?;
        env.outbound.want();
        let count = |outcome| env.metrics.asked(&env.route, outcome);
        Ok(Self {
            target,
            outbound: env.outbound.clone(),
            shown,
            told,
            identity,
            on_error: config.on_error,
            at_once: config.at_once,
            forward: config.forward,
            cache,
            key,
            free: Semaphore::new(config.at_once),
            waiting: Arc::default(),
            failing: AtomicBool::new(false),
            outcomes: Outcomes {
                allowed: count("allowed"),
                refused: count("refused"),
                remembered: count("remembered"),
                failed: count("failed"),
                busy: count("busy"),
            },
        })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<ForwardAuthConfig>(generator)
    }
}

fn answers(config: &ForwardAuthConfig, invalid: &mut Invalid) -> Option<Answers> {
    let cache = config.cache.as_ref()?;
    if cache.ttl.0.is_zero() || cache.ttl.0 > LONGEST {
        invalid.push("cache.ttl", "is more than 0 and at most 1h: leave 'cache' out to ask each time");
    }
    Some(Answers { ttl: cache.ttl.0, ignore: cache.ignore.clone(), known: Remembered::new() })
}

/// There is no place for another question.
struct Busy;

impl ForwardAuth {
    /// A place among the requests that are sent at once.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Busy> {
        if let Ok(permit) = self.free.try_acquire() {
            return Ok(permit);
        }
        let _waits = CountPermit::within(self.waiting.clone(), self.at_once * WAITING).ok_or(Busy)?;
        let permit = tokio::time::timeout(self.target.place.timeout, self.free.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(Busy)
    }

    async fn ask(&self, question: Question) -> Result<Verdict, Busy> {
        let head = match question.head(&self.target.place.authority(), &self.target.place.target) {
            Ok(head) => head,
            Err(e) => return Ok(Verdict::Meaningless(e.to_string())),
        };
        let _place = self.place().await?;
        let ttl = self.cache.as_ref().map_or(Duration::ZERO, |cache| cache.ttl);
        Ok(match self.outbound.ask(&self.target, head, MOST).await {
            Ok(answer) => judge(answer, &self.told, self.identity.as_ref(), ttl),
            Err(message) => Verdict::Meaningless(message),
        })
    }

    fn pass(&self, allowed: Arc<Allowed>, exchange: &mut Exchange<'_>) -> Flow {
        if allowed.identity.name().is_none() {
            self.note_unnamed(exchange);
        }
        let state = &mut *exchange.state;
        state.identities.note(allowed.identity.clone());
        state.extensions.insert(allowed);
        Flow::Next
    }

    /// The client passes and nobody has said who it is: what it has shown tells it from others.
    fn note_unnamed(&self, exchange: &mut Exchange<'_>) {
        let headers = &exchange.request.headers;
        if self.shown.iter().any(|name| headers.contains_key(name)) {
            exchange.state.identities.note_unnamed(question::shown_digest(headers, &self.shown, &self.key));
        }
    }

    /// The service works, or does not: a line for each change, not for each request.
    fn works(&self, why_not: Option<&str>) {
        let name = || self.target.place.name();
        match (why_not, self.failing.swap(why_not.is_some(), Relaxed)) {
            (Some(why), false) => log::warn!("forward_auth: {}: {why}; on_error is {:?}", name(), self.on_error),
            (None, true) => log::info!("forward_auth: {}: it answers again", name()),
            _ => {}
        }
    }

    fn unanswered(detail: &'static str, reason: Reason) -> Flow {
        Reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SOON).because(reason).into()
    }
}

#[async_trait]
impl Filter for ForwardAuth {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let question = Question::new(exchange, &self.shown);
        let digest = self.cache.as_ref().map(|cache| question.digest(&self.key, &cache.ignore));
        let cache = self.cache.as_ref().zip(digest);
        if let Some((cache, digest)) = &cache
            && let Some(allowed) = cache.known.get(digest, exchange.now.since_start)
        {
            self.outcomes.remembered.inc();
            return Ok(self.pass(allowed, exchange));
        }
        let shows = question.has_credentials();
        let Ok(verdict) = self.ask(question).await else {
            self.outcomes.busy.inc();
            // Whatever `on_error` says: whoever sends many requests must not open the door by that.
            return Ok(Self::unanswered("too many requests wait to be judged: try again", Reason::AuthServiceBusy));
        };
        Ok(match verdict {
            Verdict::Allowed(allowed, good_for) => {
                self.works(None);
                self.outcomes.allowed.inc();
                if let Some((cache, digest)) = cache
                    && !good_for.is_zero()
                {
                    cache.known.note(digest, allowed.clone(), exchange.now.since_start.saturating_add(good_for));
                }
                self.pass(allowed, exchange)
            }
            Verdict::Refused(mut reply) => {
                self.works(None);
                self.outcomes.refused.inc();
                if !shows && (reply.status == StatusCode::UNAUTHORIZED || reply.status.is_redirection()) {
                    reply.reason = Some(Reason::CredentialsMissing);
                }
                Flow::Reply(reply)
            }
            Verdict::Meaningless(why) => {
                self.works(Some(&why));
                self.outcomes.failed.inc();
                match self.on_error {
                    OnError::Allow => {
                        self.note_unnamed(exchange);
                        Flow::Next
                    }
                    OnError::Deny => {
                        let detail = "a service that this request depends on is not available";
                        Self::unanswered(detail, Reason::AuthServiceFailed)
                    }
                }
            }
        })
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(self.shown.iter().filter(|name| question::is_credential(name)).cloned().collect())
    }

    fn sole_methods(&self) -> Vec<Method> {
        vec![Method::ForwardAuth]
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        // Clients send it on other routes.
        self.told.iter().chain(&self.identity).filter(|name| **name != header::AUTHORIZATION).cloned().collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        for name in self.shown.iter().filter(|name| !self.forward && question::is_credential(name)) {
            head.remove_header(name);
        }
        // A backend takes the field of the client's name for its name, also where it is not told.
        for name in self.told.iter().chain(self.identity.iter().filter(|name| **name != header::AUTHORIZATION)) {
            head.remove_header(name);
        }
        let Some(allowed) = state.extensions.get::<Arc<Allowed>>() else { return Ok(()) };
        for (name, value) in &allowed.told {
            head.insert_header(name.clone(), value.clone()).map_err(|e| Fault(e.to_string()))?;
        }
        Ok(())
    }
}
