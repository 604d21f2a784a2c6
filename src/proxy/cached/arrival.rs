//! An answer of a backend on a route with a cache: it is stored, or says that what is stored is good, or not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{
    instead,
    request::{Cached, Fill, FillBody, Place},
    serve::Served,
};
use crate::{
    cache::{
        body::Filling,
        draft::Draft,
        entry::Entry,
        invalidate::{self, Target},
        purge::{Manner, Purge},
        refresh::{self, Refreshed},
        refusal::Refusal,
        said::{Outcome, StaleBecause},
        storable::{self, Candidate},
        taken_back::TakenBack,
        whole,
    },
    clock::Now,
    downstream::ConnectionInfo,
    message::host::host_and_port,
    proxy::context::Context,
    runtime::{Shared, purging},
};

/// A shorter body comes with its head, as a rule, or is not worth while.
const SOON: u64 = 8 << 10;

/// Looks at the head of an answer before anybody else does, as the backend sent it; it may become another one.
pub(crate) fn head(shared: &Shared, asked: &RequestHeader, head: &mut ResponseHeader, context: &mut Context) {
    invalidate(shared, asked, head, context);
    let Some(mut cached) = context.cached.take() else { return };
    arrived(shared, asked, head, &mut cached, context);
    context.cached = Some(cached);
}

fn arrived(
    shared: &Shared,
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    cached: &mut Cached,
    context: &mut Context,
) {
    let now = Now::read();
    let plan = cached.plan.clone();
    let Some(place) = &mut cached.place else { return };
    let news = place.candidate(asked, (head.status, &head.headers), now, &context.runtime.reserved);
    if place.validates && head.status == StatusCode::NOT_MODIFIED {
        let Some(entry) = place.entry.clone() else { return };
        let (good, kept) = match refresh::by_304(&entry, &news, &plan.policy) {
            Refreshed::Updated(new) => match place.tickets.refresh(shared, &place.key, &entry, *new) {
                Ok(new) => (new, true),
                Err(_) => (entry, false),
            },
            // For this one there is nothing else; the next one is fetched anew.
            Refreshed::Gone(_) | Refreshed::Other => {
                purging::take_back(shared, &place.key, &said(&news, &entry));
                (entry, false)
            }
            Refreshed::Untouched => (entry, true),
        };
        if let Some(flight) = place.flight.take().filter(|_| kept) {
            flight.stored();
        }
        cached.outcome = Some(Outcome::Revalidated);
        return give(asked, head, cached, good, now, context);
    }
    let failed = matches!(head.status.as_u16(), 500 | 502..=504);
    let or_stored = || instead::of_failure(shared, place, &asked.headers, &plan.policy, |or| or.error);
    if let Some(entry) = failed.then(or_stored).flatten() {
        cached.outcome = Some(Outcome::Stale(StaleBecause::Error(head.status)));
        return give(asked, head, cached, entry, now, context);
    }
    if asked.method == Method::HEAD {
        by_head(shared, &news, cached);
        return;
    }
    keep(&news, cached, shared);
}

/// Puts an entry in the place of the answer that has come.
fn give(
    asked: &RequestHeader,
    head: &mut ResponseHeader,
    cached: &mut Cached,
    entry: Arc<Entry>,
    now: Now,
    context: &Context,
) {
    let served = Served::of(&entry, &asked.method, &asked.headers, context);
    *head = served.head;
    if let Some(info) = &context.info {
        info.leave_body(served.parts);
    }
    cached.served = Some((entry, now));
}

/// A new answer: whether it is kept is decided by its head.
fn keep(news: &Candidate<'_>, cached: &mut Cached, shared: &Shared) {
    let Some(place) = &cached.place else { return };
    let none = HeaderMap::new();
    let whole = match whole::of(if place.conditions { news.request } else { &none }, news.status, news.response) {
        Ok(whole) => whole,
        Err(refusal) => return cached.refuse(refusal),
    };
    let news = &match &whole {
        Some(fields) => Candidate { status: StatusCode::OK, response: fields, ..*news },
        None => *news,
    };
    let memory = shared.cache.memory();
    let room = shared.cache.room();
    let too_large = |draft: &Draft| {
        let length = draft.length().unwrap_or_default();
        length > memory.most() || !room.has(length)
    };
    let purged = || memory.has_purged(&place.key, news.response, place.tickets.memory);
    let refusal = match Draft::of(news, &cached.plan.policy) {
        Ok(draft) if too_large(&draft) => Refusal::TooLarge,
        Ok(_) if purged() => Refusal::Purged,
        Ok(draft) => {
            cached.outcome = Some(Outcome::Miss { forwarded: cached.forwarded, status: None, stored: Some(Ok(())) });
            let left = draft.terms.lifetime.saturating_sub(draft.terms.initial_age);
            // To the nearest second: on the way here some milliseconds have passed.
            cached.ttl = i64::try_from((left + Duration::from_millis(500)).as_secs()).ok();
            let body = FillBody::Own(Some((Filling::new(draft.length(), shared.cache.held()), room)));
            let came = storable::is_news(news.status).then_some(news.times.answered);
            cached.fill = Some(Fill { draft, body, may_open: false, news: came });
            return;
        }
        Err(refusal) => refusal,
    };
    if storable::takes_back(refusal, news) {
        take_back(shared, cached, news.request, news.times.answered);
    }
    if refusal == Refusal::Purged || storable::is_about_asker(refusal, news) {
        // What the asker alone has sent, or when, is not remembered: the next one's answer may be kept.
        cached.refuse_to_asker(refusal);
    } else {
        cached.refuse(refusal);
    }
}

/// The backend was asked about what is stored, and has answered with something else that is not kept: nobody is given what was
/// stored again. There is none here for a request whose credentials it was not for, which says nothing of the others'.
fn take_back(shared: &Shared, cached: &mut Cached, request: &HeaderMap, at: Now) {
    if let Some(place) = &mut cached.place
        && let Some(entry) = place.entry.take()
    {
        purging::take_back(shared, &place.key, &TakenBack { request, selection: &entry.selection, at });
    }
}

/// What goes when an answer takes back an entry.
fn said<'a>(news: &Candidate<'a>, entry: &'a Entry) -> TakenBack<'a> {
    TakenBack { request: news.request, selection: &entry.selection, at: news.times.answered }
}

fn by_head(shared: &Shared, news: &Candidate<'_>, cached: &mut Cached) {
    let plan = cached.plan.clone();
    let Some(place) = &cached.place else { return };
    let memory = shared.cache.memory();
    // What one client's credentials are answered says nothing of what the others share.
    if news.is_personal() {
        return cached.refuse(Refusal::Method);
    }
    let entry = memory.get(&place.key).and_then(|variants| variants.select(news.request).cloned());
    if let Some(entry) = entry {
        match refresh::by_head(&entry, news, &plan.policy) {
            // It is made of what was stored: what may go wrong is no harm to anybody.
            Refreshed::Updated(new) => drop(place.tickets.refresh(shared, &place.key, &entry, *new)),
            Refreshed::Gone(_) | Refreshed::Other => purging::take_back(shared, &place.key, &said(news, &entry)),
            Refreshed::Untouched => {}
        }
    }
    cached.refuse(Refusal::Method);
}

/// A part of the body of the answer to `asked`, as the backend sent it; with `end`, the answer is complete.
pub(crate) fn body(shared: &Shared, asked: &RequestHeader, part: Option<&Bytes>, end: bool, context: &mut Context) {
    let Some(cached) = context.cached.as_mut() else { return };
    let most = shared.cache.memory().most().min(cached.plan.policy.max_object as u64);
    let stays = |fill: &Fill| fill.may_open && part.is_some_and(|part| fill.lacks(part.len()));
    if cached.fill.as_ref().is_some_and(stays) {
        open(cached, context.info.as_ref());
    }
    let Some(fill) = &mut cached.fill else { return };
    if let Some(part) = part
        && !fill.body.extend(part, most)
    {
        if let Some(at) = fill.news {
            take_back(shared, cached, &asked.headers, at);
        }
        return cached.refuse(Refusal::TooLarge);
    }
    // The others are not to wait until the last of it has been written to its own client.
    if end || matches!(fill.body, FillBody::Open(_)) && !fill.lacks(0) {
        complete(shared, asked, context);
    }
}

/// The head of the answer that comes is written to its client, who is written the body as the backend sends it if it
/// `is_as_sent`: then others who ask for the same may be given it before its end.
pub(crate) fn begun(head: &ResponseHeader, is_as_sent: bool, context: &mut Context) {
    let Some(cached) = context.cached.as_mut() else { return };
    let Some(fill) = cached.fill.as_mut().filter(|_| is_as_sent) else { return };
    let length = fill.draft.length();
    fill.may_open = length.is_some() && storable::content_length(&head.headers) == length;
    if fill.may_open && length.is_some_and(|length| length > SOON) {
        open(cached, context.info.as_ref());
    }
}

/// Those who wait for an answer, and who ask for it from now on, are given it while it comes; it does not come slower for its own
/// client, nor end with it.
fn open(cached: &mut Cached, info: Option<&Arc<ConnectionInfo>>) {
    let Cached { place: Some(Place { flight: Some(flight), tickets, .. }), fill: Some(fill), .. } = cached else {
        return;
    };
    let Some(info) = info else { return };
    fill.may_open = false;
    if let Some(underway) = fill.open(tickets.memory) {
        flight.open(underway);
        info.share_body(underway.clone());
    }
}

/// The answer to `asked` is complete: it goes into the store.
pub(crate) fn complete(shared: &Shared, asked: &RequestHeader, context: &mut Context) {
    let Some(cached) = context.cached.as_mut() else { return };
    let Some(fill) = cached.fill.take() else { return };
    let Some(place) = &mut cached.place else { return };
    let entry = fill.draft.with(fill.body.finish());
    let stored = entry.and_then(|entry| place.tickets.insert(shared, &place.key, entry));
    let flight = place.flight.take();
    if let (Some(at), Err(Refusal::TooLarge | Refusal::Purged)) = (fill.news, &stored) {
        take_back(shared, cached, &asked.headers, at);
    }
    match (stored, flight) {
        (Ok(_), Some(flight)) => flight.stored(),
        // Another one fetches it for those who wait.
        (Err(Refusal::Purged), Some(flight)) => drop(flight),
        (Err(_), Some(flight)) => flight.pass(Now::monotonic()),
        (_, None) => {}
    }
}

/// A request that changes something takes away what is stored of it (RFC 9111 §4.4), whichever route it takes.
fn invalidate(shared: &Shared, asked: &RequestHeader, head: &ResponseHeader, context: &Context) {
    // What is on its way is not to be kept either: so the purge counts although there may be nothing yet.
    let rules = &context.runtime.cache_queries;
    let others_keep = || shared.cache_tier.load().is_some() || shared.neighbours.are_there();
    if asked.method.is_safe() || (rules.is_empty() && !others_keep()) {
        return;
    }
    let target = Target {
        secure: context.state.secure,
        host: host_and_port(asked),
        path: asked.uri.path(),
        query: asked.uri.query(),
        rules,
    };
    for url in invalidate::urls(&asked.method, &target, head.status, &head.headers) {
        purging::purge(shared, &Purge::Url(url), Manner::Hard, Now::read());
    }
}

/// What may be given while no backend answers.
pub(crate) fn in_place_of_nothing(asked: &RequestHeader, context: &mut Context) -> Option<Served> {
    let cached = context.cached.as_ref()?;
    let entry =
        instead::of_failure(&context.shared, cached.place.as_ref()?, &asked.headers, &cached.plan.policy, |or| {
            or.nothing
        })?;
    let now = Now::read();
    let served = Served::of(&entry, &asked.method, &asked.headers, context);
    let cached = context.cached.as_mut()?;
    cached.outcome = Some(Outcome::Stale(StaleBecause::NoAnswer));
    cached.served = Some((entry, now));
    Some(served)
}
