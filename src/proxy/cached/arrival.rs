//! An answer of a backend on a route with a cache: it is stored, or says that what is stored is good, or not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{request::Fill, serve::Served};
use crate::{
    cache::{
        entry::{Body, Entry},
        freshness::Times,
        invalidate::{self, Target},
        purge::{Manner, Purge},
        query::QueryRule,
        refresh::{self, News, Refreshed},
        refusal::Refusal,
        said::{Outcome, StaleBecause},
        shared::Room,
        storable::{self, Candidate},
    },
    clock::Now,
    message::{fields, host::host_and_port, reserved::ReservedHeaders},
    proxy::context::Context,
    runtime::Shared,
};

/// Looks at the head of an answer before anybody else does, as the backend sent it; it may become another one.
///
/// # Errors
/// The backend is to be asked once more.
pub(crate) fn head(
    shared: &Shared,
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    context: &mut Context,
) -> pingora::Result<()> {
    invalidate(shared, asked, head, context);
    let Some(mut cached) = context.cached.take() else { return Ok(()) };
    let result = arrived(shared, asked, head, &mut cached, context);
    context.cached = Some(cached);
    result
}

fn arrived(
    shared: &Shared,
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    cached: &mut super::request::Cached,
    context: &mut Context,
) -> pingora::Result<()> {
    let now = Now::read();
    let plan = cached.plan.clone();
    let Some(place) = &mut cached.place else { return Ok(()) };
    let times = Times { asked: place.sent.unwrap_or(now), answered: now };
    let news = News {
        request: &asked.headers,
        has_query: asked.uri.query().is_some(),
        one_client: place.one_client,
        status: head.status,
        response: &head.headers,
        times,
    };
    if place.validates && head.status == StatusCode::NOT_MODIFIED {
        let Some(entry) = place.entry.clone() else { return Ok(()) };
        let good = match refresh::by_304(&entry, &news, &plan.policy) {
            Refreshed::Updated(new) if varies_by_ours(&new.headers, &context.runtime.reserved) => {
                shared.cache.memory().remove(&place.key, &entry);
                entry
            }
            Refreshed::Updated(new) => {
                shared.cache.memory().refresh(&place.key, &entry, *new, place.ticket).unwrap_or(entry)
            }
            Refreshed::Gone(_) => {
                shared.cache.memory().remove(&place.key, &entry);
                entry
            }
            Refreshed::Untouched | Refreshed::Other => entry,
        };
        if let Some(flight) = place.flight.take() {
            flight.stored();
        }
        cached.outcome = Some(Outcome::Revalidated);
        return give(asked, head, cached, good, now, context);
    }
    let failed = matches!(head.status.as_u16(), 500 | 502..=504);
    if let (true, true, Some(entry)) = (failed, place.or.error, place.entry.clone()) {
        cached.outcome = Some(Outcome::Stale(StaleBecause::Error(head.status)));
        return give(asked, head, cached, entry, now, context);
    }
    if asked.method == Method::HEAD {
        by_head(shared, asked, &news, cached);
        return Ok(());
    }
    let terms = (shared.cache.memory().most(), &context.runtime.reserved, shared.cache.room());
    keep(asked, head, cached, times, terms);
    Ok(())
}

/// Puts an entry in the place of the answer that has come.
fn give(
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    cached: &mut super::request::Cached,
    entry: Arc<Entry>,
    now: Now,
    context: &Context,
) -> pingora::Result<()> {
    let served = Served::of(&entry, &asked.method, &asked.headers, now)?;
    *head = served.head;
    if let Some(info) = &context.info {
        info.leave_body(served.parts);
    }
    cached.served = Some((entry, now));
    Ok(())
}

/// A new answer: whether it is kept is decided by its head.
/// `most`: the largest that there is room for. `reserved`: what only the gateway tells backends.
fn keep(
    asked: &RequestHeader,
    head: &ResponseHeader,
    cached: &mut super::request::Cached,
    times: Times,
    (most, reserved, room): (u64, &ReservedHeaders, Room),
) {
    let plan = cached.plan.clone();
    let Some(place) = &mut cached.place else { return };
    if !place.keeps {
        return cached.refuse(Refusal::Partial, None);
    }
    let candidate = Candidate {
        method: &asked.method,
        request: &asked.headers,
        has_query: asked.uri.query().is_some(),
        one_client: place.one_client,
        status: head.status,
        response: &head.headers,
        times,
    };
    let terms = storable::terms(&candidate, &plan.policy);
    match terms
        .and_then(|terms| if varies_by_ours(&head.headers, reserved) { Err(Refusal::VaryAny) } else { Ok(terms) })
    {
        Ok(_) if storable::content_length(&head.headers).is_some_and(|length| length > most) => {
            cached.refuse(Refusal::TooLarge, None);
        }
        Ok(terms) => {
            cached.outcome = Some(Outcome::Miss { forwarded: cached.forwarded, status: None, stored: Some(Ok(())) });
            let left = terms.lifetime.saturating_sub(terms.initial_age);
            // To the nearest second: on the way here some milliseconds have passed.
            cached.ttl = i64::try_from((left + Duration::from_millis(500)).as_secs()).ok();
            let (status, headers) = (head.status, head.headers.clone());
            let fill = Fill { terms, status, headers, answered: times.answered, body: Vec::new(), room };
            cached.fill = Some(fill);
        }
        Err(refusal) => cached.refuse(refusal, None),
    }
}

/// True when the answer is another one for each value of a field that the gateway writes: what it tells the backend is not
/// what the client has sent, by which answers are told apart. The host and the scheme are in every key.
pub(super) fn varies_by_ours(headers: &HeaderMap, reserved: &ReservedHeaders) -> bool {
    const OURS: [&str; 5] = ["x-forwarded-for", "x-real-ip", "forwarded", "via", "x-request-id"];
    fields::has(headers, &header::VARY, |name| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        OURS.contains(&name.as_str()) || reserved.has(&name)
    })
}

fn by_head(shared: &Shared, asked: &RequestHeader, news: &News<'_>, cached: &mut super::request::Cached) {
    let plan = cached.plan.clone();
    let Some(place) = &cached.place else { return };
    let memory = shared.cache.memory();
    // What one client's credentials are answered says nothing of what the others share.
    let personal = [header::AUTHORIZATION, header::COOKIE].iter().any(|field| asked.headers.contains_key(field));
    if personal && !place.one_client {
        return cached.refuse(Refusal::Method, None);
    }
    let entry = memory.get(&place.key).and_then(|variants| variants.select(&asked.headers).cloned());
    if let Some(entry) = entry {
        match refresh::by_head(&entry, news, &plan.policy) {
            // It is made of what was stored: what may go wrong is no harm to anybody.
            Refreshed::Updated(new) => drop(memory.refresh(&place.key, &entry, *new, place.ticket)),
            Refreshed::Gone(_) | Refreshed::Other => memory.remove(&place.key, &entry),
            Refreshed::Untouched => {}
        }
    }
    cached.refuse(Refusal::Method, None);
}

/// A part of the body, as the backend sent it; with `end`, the answer is complete.
pub(crate) fn body(shared: &Shared, asked: &RequestHeader, part: Option<&Bytes>, end: bool, context: &mut Context) {
    let Some(cached) = context.cached.as_mut().filter(|cached| cached.fill.is_some()) else { return };
    let most = shared.cache.memory().most().min(cached.plan.policy.max_object as u64);
    if let (Some(part), Some(fill)) = (part, cached.fill.as_mut()) {
        if (fill.body.len() + part.len()) as u64 > most || !fill.room.grow(part.len()) {
            return cached.refuse(Refusal::TooLarge, None);
        }
        fill.body.extend_from_slice(part);
    }
    if end {
        complete(shared, asked, context);
    }
}

/// The answer is complete: it goes into the store.
pub(crate) fn complete(shared: &Shared, asked: &RequestHeader, context: &mut Context) {
    let Some(cached) = context.cached.as_mut() else { return };
    let Some(fill) = cached.fill.take() else { return };
    let plan = cached.plan.clone();
    let Some(place) = &mut cached.place else { return };
    let candidate = Candidate {
        method: &asked.method,
        request: &asked.headers,
        has_query: asked.uri.query().is_some(),
        one_client: place.one_client,
        status: fill.status,
        response: &fill.headers,
        times: Times { asked: place.sent.unwrap_or(fill.answered), answered: fill.answered },
    };
    let entry = Entry::new(&candidate, &plan.policy, fill.terms, Body::copied(&[fill.body]));
    let stored = entry.and_then(|entry| shared.cache.memory().insert(&place.key, entry, place.ticket));
    match (stored, place.flight.take()) {
        (Ok(_), Some(flight)) => flight.stored(),
        (Err(_), Some(flight)) => flight.pass(Now::monotonic()),
        (_, None) => {}
    }
}

/// A request that changes something takes away what is stored of it (RFC 9111 §4.4), whichever route it takes.
fn invalidate(shared: &Shared, asked: &RequestHeader, head: &ResponseHeader, context: &Context) {
    // What is on its way is not to be kept either: so the purge counts although there may be nothing yet.
    if asked.method.is_safe() || !context.runtime.caches {
        return;
    }
    let everything = QueryRule::Whole;
    let plan = context.route.as_ref().and_then(|route| route.cache.as_ref());
    let target = Target {
        secure: context.state.secure,
        host: host_and_port(asked),
        path: context.upstream_path.as_deref().unwrap_or(asked.uri.path()),
        query: asked.uri.query(),
        rule: plan.map_or(&everything, |plan| &plan.policy.query),
    };
    for url in invalidate::urls(&asked.method, &target, head.status, &head.headers) {
        shared.cache.memory().purge(&Purge::Url(url), Manner::Hard, Now::read());
    }
}

/// What may be given while no backend answers.
pub(crate) fn in_place_of_nothing(asked: &RequestHeader, context: &mut Context) -> Option<Served> {
    let cached = context.cached.as_mut()?;
    let place = cached.place.as_mut()?;
    let entry = place.entry.clone().filter(|_| place.or.nothing)?;
    let now = Now::read();
    let served = Served::of(&entry, &asked.method, &asked.headers, now).ok()?;
    cached.outcome = Some(Outcome::Stale(StaleBecause::NoAnswer));
    cached.served = Some((entry, now));
    Some(served)
}
