//! What the service's answer means for the request, and what is remembered of it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use crate::{
    auth::{Digest, Identity, Method},
    cache::directives::ResponseDirectives,
    filter::OutboundAnswer,
    message::{
        fields,
        reason::Reason,
        reply::{Reply, ReplyBody},
    },
};

/// A refusal's body has so many bytes at most; a page to sign in has fewer.
pub(super) const MOST: usize = 64 * 1024;

/// So many requests that may pass are remembered.
const REMEMBERED: usize = 10_000;

/// What a refusal hands on of the service's answer.
const HANDED_ON: [HeaderName; 6] = [
    header::WWW_AUTHENTICATE,
    header::LOCATION,
    header::SET_COOKIE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::RETRY_AFTER,
];

/// A request that may pass.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Who sent it, as far as the service says.
    pub(super) identity: Arc<Identity>,
    /// What backends are told.
    pub(super) told: Vec<(HeaderName, HeaderValue)>,
}

/// What an answer means.
pub(super) enum Verdict {
    /// The request may pass, and others like it for so long.
    Allowed(Arc<Allowed>, Duration),
    /// It may not, and this is what the client is told.
    Refused(Box<Reply>),
    /// Nothing: why.
    Meaningless(String),
}

/// Reads the answer; backends are told the fields `told`, and `name` says who the client is.
pub(super) fn judge(answer: OutboundAnswer, told: &[HeaderName], name: Option<&HeaderName>, ttl: Duration) -> Verdict {
    let (status, headers) = (answer.head.status, &answer.head.headers);
    if status.is_success() {
        return match allowed(headers, told, name) {
            Ok(allowed) => Verdict::Allowed(Arc::new(allowed), good_for(headers, ttl)),
            Err(message) => Verdict::Meaningless(message),
        };
    }
    let refuses = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308 | 401 | 403);
    // What a client can bring about by what it sends says nothing of the service, and opens no door.
    if matches!(status.as_u16(), 400 | 408 | 413 | 414 | 421 | 422 | 429 | 431) {
        let detail = "what the request shows cannot be judged";
        let reply = Reply::problem(StatusCode::FORBIDDEN, detail).because(Reason::AuthServiceRefused);
        return Verdict::Refused(Box::new(reply));
    }
    if !refuses {
        return Verdict::Meaningless(format!("the answer is {}", status.as_u16()));
    }
    if status.is_redirection() && !headers.contains_key(header::LOCATION) {
        return Verdict::Meaningless("the answer leads elsewhere and does not say where".to_owned());
    }
    Verdict::Refused(Box::new(refused(answer)))
}

fn allowed(headers: &HeaderMap, told: &[HeaderName], name: Option<&HeaderName>) -> Result<Allowed, String> {
    let mut claims = Map::new();
    let mut values = Vec::new();
    for field in told {
        let Some(value) = joined(headers, field)? else { continue };
        // What backends are told makes answers differ, so it is part of who asks; and `acl` and limits may look at it.
        let list: Vec<Value> = value.split(',').map(|item| item.trim().into()).collect();
        let claim = if list.len() == 1 { Value::from(value.as_str()) } else { list.into() };
        claims.insert(field.as_str().to_owned(), claim);
        values.push((field.clone(), HeaderValue::try_from(value).map_err(|e| format!("'{field}': {e}"))?));
    }
    let subject = match name {
        Some(name) => joined(headers, name)?.filter(|text| !text.is_empty()),
        None => None,
    };
    // Two lines are two names, or one with a comma in it: nobody's.
    if name.is_some_and(|name| headers.get_all(name).iter().count() > 1) {
        return Err("the answer names two clients".to_owned());
    }
    let identity = Identity {
        subject: subject.unwrap_or_default(),
        method: Method::ForwardAuth,
        scopes: Vec::new(),
        claims,
        key_id: None,
    };
    Ok(Allowed { identity: Arc::new(identity), told: values })
}

/// All lines of a field as one text.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, String> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let lines: Result<Vec<&str>, _> =
        headers.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes())).collect();
    let text = lines.map_err(|_| format!("'{name}' of the answer is no UTF-8"))?.join(", ");
    Ok(Some(text.trim().to_owned()))
}

/// How long an answer may be remembered.
fn good_for(headers: &HeaderMap, ttl: Duration) -> Duration {
    let said = ResponseDirectives::of_cache_control(headers);
    if said.no_store || said.no_cache.is_some() {
        return Duration::ZERO;
    }
    said.max_age.map_or(ttl, |seconds| ttl.min(Duration::from_secs(seconds)))
}

fn refused(answer: OutboundAnswer) -> Reply {
    let OutboundAnswer { head, body } = answer;
    let mut reply = match body {
        Some(body) if !body.is_empty() => {
            let kind = fields::single(&head.headers, header::CONTENT_TYPE).cloned();
            let kind = kind.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
            Reply { body: ReplyBody::Bytes(kind, body), ..Reply::empty(head.status) }
        }
        // There is none, or it is too long to be handed on: part of it would be no answer.
        _ if head.status.is_redirection() => Reply::empty(head.status),
        _ => {
            let detail = if head.status == StatusCode::UNAUTHORIZED {
                "this is for clients that say who they are"
            } else {
                "this client may not do this"
            };
            Reply::problem(head.status, detail)
        }
    };
    let whole = matches!(reply.body, ReplyBody::Bytes(..));
    for name in HANDED_ON.iter().filter(|name| whole || **name != header::CONTENT_ENCODING) {
        for value in head.headers.get_all(name) {
            reply.headers.push((name.clone(), value.clone()));
        }
    }
    reply.because(Reason::AuthServiceRefused)
}

/// Requests that may pass without another question.
pub(super) struct Remembered(Cache<Digest, (Arc<Allowed>, Duration)>);

impl Remembered {
    pub(super) fn new() -> Self {
        Self(Cache::new(REMEMBERED))
    }

    pub(super) fn get(&self, question: &Digest, now: Duration) -> Option<Arc<Allowed>> {
        self.0.get(question).filter(|(_, until)| now < *until).map(|(allowed, _)| allowed)
    }

    pub(super) fn note(&self, question: Digest, allowed: Arc<Allowed>, until: Duration) {
        self.0.insert(question, (allowed, until));
    }
}
