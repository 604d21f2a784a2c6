//! Whether a request can be answered out of the store: asked after the chain has let it in, and before anything of a backend
//! is.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem::replace,
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use tokio::time::Instant;

use super::{
    follow::{self, Waited},
    identity,
    keep::{self, Tickets},
    refetch,
    request::{Cached, Place},
    serve::Served,
};
use crate::{
    cache::{
        bypass::{self, Past},
        conditional::CONDITIONS,
        entry::Entry,
        key::{Key, KeyParts},
        reuse::{self, Asked, InPlaceOf, Reuse, Why},
        said::{Forwarded, Outcome, StaleBecause},
        shared::CachePlan,
    },
    clock::Now,
    message::{fields, forwarded, host::host_and_port, reply::Reply},
    proxy::{context::Context, kind::RequestKind},
    runtime::{Shared, flights::Join, underway::Follower},
};

/// The longest that a request waits for the fetch of another one.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// So many answers are waited for that turn out to be for others: the first one says by which fields variants are told apart.
const MOST_WAITS: u8 = 2;

/// What came of looking.
pub(crate) enum Found {
    /// Nothing: the backend is asked.
    Nothing,
    /// An answer.
    Answer(Box<Served>),
    /// The client wants nothing that is not here.
    Refused(Box<Reply>),
}

/// What is known of a place in the store, before anybody is asked.
enum Step {
    Give(Arc<Entry>, Outcome),
    Refetch(Arc<Entry>),
    Unavailable,
    Ask { forwarded: Forwarded, entry: Option<Arc<Entry>>, or: InPlaceOf, validates: bool },
}

/// Looks for an answer to the request with this head, which goes to a backend otherwise.
///
/// `body`: the request has one.
pub(crate) async fn look(shared: &Arc<Shared>, head: &RequestHeader, body: bool, context: &mut Context) -> Found {
    let Some(plan) = context.route.as_ref().and_then(|route| route.cache.clone()) else { return Found::Nothing };
    let past = bypass::past(&plan.policy, &head.method, &head.headers, head.uri.query());
    // Over HTTP/2 no field says that there is a body.
    let plain = context.kind == RequestKind::Ordinary && !body;
    if let Some(past) = past.or((!plain).then_some(Past::NotPlain)) {
        context.cached = Some(Cached::past(plan, past));
        return Found::Nothing;
    }
    let (key, one_client) = key(shared, &plan, head, context);
    let read = keep::from_disk(shared, &key, &head.headers).await;
    look_under(shared, plan, (key, one_client), (head, read), context).await
}

/// Looks under the key of a request, which may be one client's own; `read`: what was found for it elsewhere, and memory may have no room for.
async fn look_under(
    shared: &Arc<Shared>,
    plan: Arc<CachePlan>,
    (key, one_client): (Key, bool),
    (head, read): (&RequestHeader, Option<Arc<Entry>>),
    context: &mut Context,
) -> Found {
    let mut read = read;
    let asked = Asked::of(&head.headers, &plan.policy);
    // Whoever has waited in vain must have time left to ask.
    let until = Instant::now() + context.remaining().map_or(LONGEST_WAIT, |left| (left / 2).min(LONGEST_WAIT));
    // What it has waited for and has been stored, without being of use: at most the answer to others, and then its own variant.
    let (mut landed, mut waits, mut fetched): (Option<u128>, u8, bool) = (None, 0, false);
    loop {
        let now = Now::read();
        let step = step(shared, &key, &asked, (head, read.take()), now);
        let (forwarded, entry, or, validates) = match step {
            Step::Give(entry, outcome) => {
                return answer(context, Cached::collapsed(plan, landed.is_some()), head, entry, outcome, now);
            }
            Step::Refetch(entry) => {
                let slot = slot_of(shared, &key, &asked, head);
                return stale(shared, plan, (key, one_client, slot), head, entry, context);
            }
            Step::Unavailable => return unavailable(plan, context),
            Step::Ask { forwarded, entry, or, validates } => (forwarded, entry, or, validates),
        };
        let role = Role::of(head, &asked, forwarded, validates);
        let mut flight = None;
        let slot = slot_of(shared, &key, &asked, head);
        if role.waits && waits < MOST_WAITS && landed != Some(slot) && Instant::now() < until {
            let flights = &shared.flights;
            match if role.leads { flights.join(slot, now.since_start) } else { flights.join_others(slot) } {
                Join::Lead(own) => {
                    // Once: what is there and may not be given is here then.
                    read = elsewhere(shared, &key, one_client, head, &mut fetched).await;
                    if read.is_some() {
                        let step = self::step(shared, &key, &asked, (head, read.clone()), Now::read());
                        matches!(step, Step::Give(..)).then(|| own.stored());
                        continue;
                    }
                    flight = Some(own);
                }
                Join::Pass => {}
                // When that comes to nothing, because its client has left or its backend has failed, another one fetches.
                Join::Wait(landing) => {
                    match follow::wait(landing, until, (shared, &key, &asked, &head.headers)).await {
                        Waited::Stored => (landed, waits) = (Some(slot), waits + 1),
                        Waited::Follows(follower) => return join(plan, follower, head, context),
                        // Those who follow it go on.
                        Waited::Purged(underway) => shared.flights.give_up(slot, &underway),
                        Waited::InVain => {}
                    }
                    continue;
                }
            }
        }
        // Another gateway may have met such a request before.
        if role.leads && forwarded == Forwarded::VaryMiss {
            read = elsewhere(shared, &key, one_client, head, &mut fetched).await;
            if read.is_some() {
                continue;
            }
        }
        let tickets = Tickets::take(shared, one_client);
        let validates = validates && head.method == Method::GET;
        let place =
            Place { key, one_client, tickets, entry, or, validates, conditions: role.conditions, flight, sent: None };
        context.cached = Some(Cached::new(plan, forwarded, Some(place)));
        return Found::Nothing;
    }
}

/// What a request may do for others, and they for it.
struct Role {
    /// Its conditions and its range go to the backend.
    conditions: bool,
    /// It fetches for others.
    leads: bool,
    /// It waits for the fetch of another one.
    waits: bool,
}

impl Role {
    fn of(head: &RequestHeader, asked: &Asked, forwarded: Forwarded, validates: bool) -> Self {
        // Of what the client has already, or wants a part of, nothing whole is to be expected.
        let conditions = !validates && fields::present(&head.headers, &CONDITIONS).contains(&true);
        let (get, wants_it_kept) = (head.method == Method::GET, !asked.directives.no_store);
        // One that asks for its own sake does so for nobody else, nor does one whose answer is another one than that which
        // the others wait for.
        let alike = matches!(forwarded, Forwarded::UriMiss | Forwarded::VaryMiss | Forwarded::Entry(Why::Stale));
        Self { conditions, leads: get && !conditions && wants_it_kept, waits: get && wants_it_kept && alike }
    }
}

/// Gives an entry that is stale, and lets a new one be fetched unless somebody does so already.
fn stale(
    shared: &Arc<Shared>,
    plan: Arc<CachePlan>,
    (key, one_client, slot): (Key, bool, u128),
    head: &RequestHeader,
    entry: Arc<Entry>,
    context: &mut Context,
) -> Found {
    let now = Now::read();
    if let Join::Lead(flight) = shared.flights.join(slot, now.since_start) {
        refetch::begin(shared, head, context, &plan, (key, one_client, flight), entry.clone());
    }
    let cached = Cached::new(plan, Forwarded::Entry(Why::Stale), None);
    answer(context, cached, head, entry, Outcome::Stale(StaleBecause::Revalidating), now)
}

/// What another gateway has kept for such a request; it is looked for once.
async fn elsewhere(
    shared: &Shared,
    key: &Key,
    one_client: bool,
    head: &RequestHeader,
    looked: &mut bool,
) -> Option<Arc<Entry>> {
    if replace(looked, true) { None } else { keep::fetch(shared, key, one_client, &head.headers).await }
}

/// Which fetch is for such a request: the one of its variant, where it is known by which fields variants are told apart.
fn slot_of(shared: &Shared, key: &Key, asked: &Asked, head: &RequestHeader) -> u128 {
    let variants = shared.cache.memory().get(key);
    let variant = variants.map(|variants| variants.wanted(&head.headers)).unwrap_or_default();
    // Whose credentials keep an answer from being kept says nothing of the answers to others.
    let credentials = [asked.credentials, head.headers.contains_key(header::AUTHORIZATION)].map(u8::from);
    shared.cache.keys.within(key, &[variant.as_bytes(), &credentials])
}

/// Gives the answer to another request while it comes.
fn join(plan: Arc<CachePlan>, follower: Follower, head: &RequestHeader, context: &mut Context) -> Found {
    let mut cached = Cached::collapsed(plan, true);
    cached.outcome = Some(Outcome::Hit);
    let entry = follower.head().clone();
    let served = Served::following(follower, &head.method, &head.headers, context);
    cached.served = Some((entry, Now::read()));
    context.cached = Some(cached);
    Found::Answer(Box::new(served))
}

fn unavailable(plan: Arc<CachePlan>, context: &mut Context) -> Found {
    let mut cached = Cached::new(plan, Forwarded::UriMiss, None);
    cached.outcome = Some(Outcome::Unavailable);
    context.cached = Some(cached);
    let reply = Reply::problem(StatusCode::GATEWAY_TIMEOUT, "there is no stored answer that may be given");
    Found::Refused(Box::new(reply))
}

fn answer(
    context: &mut Context,
    mut cached: Box<Cached>,
    head: &RequestHeader,
    entry: Arc<Entry>,
    outcome: Outcome,
    now: Now,
) -> Found {
    cached.outcome = Some(outcome);
    let served = Served::of(&entry, &head.method, &head.headers, context);
    cached.served = Some((entry, now));
    context.cached = Some(cached);
    Found::Answer(Box::new(served))
}

fn step(
    shared: &Shared,
    key: &Key,
    asked: &Asked,
    (head, read): (&RequestHeader, Option<Arc<Entry>>),
    now: Now,
) -> Step {
    let variants = shared.cache.memory().get(key);
    let entry = variants.as_ref().and_then(|variants| variants.select(&head.headers)).cloned().or(read);
    let Some(entry) = entry else {
        let forwarded = if variants.is_some() { Forwarded::VaryMiss } else { Forwarded::UriMiss };
        return match reuse::without(asked) {
            Some(_) => Step::Unavailable,
            None => Step::Ask { forwarded, entry: None, or: InPlaceOf::default(), validates: false },
        };
    };
    match reuse::decide(&entry, asked, now) {
        Reuse::Fresh => Step::Give(entry, Outcome::Hit),
        Reuse::Stale => Step::Give(entry, Outcome::Stale(StaleBecause::Request)),
        Reuse::StaleWhileRevalidate => Step::Refetch(entry),
        Reuse::Unavailable => Step::Unavailable,
        Reuse::Revalidate { why, or } => {
            Step::Ask { forwarded: Forwarded::Entry(why), entry: Some(entry), or, validates: true }
        }
        Reuse::Unusable(why) => {
            Step::Ask { forwarded: Forwarded::Entry(why), entry: None, or: InPlaceOf::default(), validates: false }
        }
    }
}

/// The key of a request, and whether it is one client's own.
fn key(shared: &Shared, plan: &CachePlan, head: &RequestHeader, context: &Context) -> (Key, bool) {
    let identity = identity::parts(&context.state.identities);
    let identity: Vec<&[u8]> = identity.iter().map(Vec::as_slice).collect();
    // Whoever is trusted may tell backends of another host than the one that was asked for.
    let told: Vec<&[u8]> = if context.origin.trusted { forwarded::told(&head.headers) } else { Vec::new() };
    // A route may lead to several services, and each answers as it likes.
    let mut service = DefaultHasher::new();
    context.target.as_ref().map(|target| &target.service.name).hash(&mut service);
    let parts = KeyParts {
        route: plan.route ^ service.finish(),
        policy: &plan.policy,
        secure: context.state.secure,
        host: host_and_port(head),
        path: head.uri.path(),
        spelled: context.path.spelled.as_deref(),
        query: head.uri.query(),
        identity: &identity,
        request: &head.headers,
        told: &told,
    };
    (shared.cache.keys.key(&parts), parts.one_client())
}
