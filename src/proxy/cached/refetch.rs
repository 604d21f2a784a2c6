//! A new answer for an entry that was given although it is stale (RFC 5861 §3). It is the gateway's own request: it runs no
//! filter, and whatever becomes of it is no client's business.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method};
use pingora::{connectors::http::Connector, http::RequestHeader};

use super::{keep::Tickets, request::ask_again};
use crate::{
    cache::{
        body::Body,
        draft::Draft,
        entry::Entry,
        freshness::Times,
        key::Key,
        refresh::{self, Refreshed},
        refusal::Refusal,
        shared::{CachePlan, Room},
        storable::{self, Candidate},
        taken_back::TakenBack,
    },
    clock::Now,
    proxy::{
        context::Context,
        subrequest::attempt,
        upstream_request::{self, X_ATTEMPTS},
    },
    runtime::{Runtime, Shared, flights::Flight, purging},
    upstream::{
        Service,
        choice::{Choice, Chosen},
        concurrency::ConcurrencyLimit,
        exchange::Answer,
    },
};

/// What is asked, and for which place.
struct Refetch {
    shared: Arc<Shared>,
    runtime: Arc<Runtime>,
    plan: Arc<CachePlan>,
    key: Key,
    one_client: bool,
    flight: Flight,
    tickets: Tickets,
    entry: Arc<Entry>,
    /// As the client sent it.
    asked: RequestHeader,
}

/// Begins to fetch, if there is a backend to ask.
pub(super) fn begin(
    shared: &Arc<Shared>,
    head: &RequestHeader,
    context: &Context,
    plan: &Arc<CachePlan>,
    (key, one_client, flight): (Key, bool, Flight),
    entry: Arc<Entry>,
) {
    let (Some(service), Some(route), Some(connector)) = (context.service(), &context.route, shared.connector()) else {
        return;
    };
    let Ok(mut request) = upstream_request::alone(head, 0, context, route) else { return };
    request.set_method(Method::GET);
    // It is tried once.
    let attempt = request.headers.contains_key(X_ATTEMPTS).then(|| HeaderValue::from_static("1"));
    let asks = ask_again(&mut request, &entry);
    if asks.and(attempt.map_or(Ok(()), |one| request.insert_header(X_ATTEMPTS, one))).is_err() {
        return;
    }
    let choice = Choice::new(head, context.state.client, &[], Now::monotonic());
    // Clients come first: nobody waits for it, and at most half of the places are for such.
    let concurrency = service.resilience.concurrency();
    let permit = concurrency.map(ConcurrencyLimit::try_enter_half);
    if matches!(permit, Some(None)) {
        return;
    }
    let Ok(chosen) = service.choose(&choice) else { return };
    let tickets = Tickets::take(shared, one_client);
    let mut asked = head.clone();
    asked.set_method(Method::GET);
    let (shared, plan, runtime) = (shared.clone(), plan.clone(), context.runtime.clone());
    let refetch = Refetch { shared, runtime, plan, key, one_client, flight, tickets, entry, asked };
    tokio::spawn(async move {
        refetch.run(&connector, &service, chosen, request).await;
        drop(permit);
    });
}

impl Refetch {
    async fn run(self, connector: &Connector, service: &Service, chosen: Chosen, request: RequestHeader) {
        let begun = Now::read();
        if let Some(answer) = attempt::send_alone(connector, service, chosen, request, Bytes::new()).await {
            self.take(connector, answer, begun, service.timeouts().whole()).await;
        }
    }

    async fn take(self, connector: &Connector, answer: Answer, begun: Now, total: Duration) {
        let mut answer = answer;
        let memory = self.shared.cache.memory().clone();
        let (status, response) = (answer.head.status, answer.head.headers.clone());
        let candidate = Candidate {
            method: &Method::GET,
            request: &self.asked.headers,
            has_query: self.asked.uri.query().is_some(),
            one_client: self.one_client,
            status,
            response: &response,
            times: Times { asked: begun, answered: Now::read() },
            reserved: &self.runtime.reserved,
        };
        match refresh::by_304(&self.entry, &candidate, &self.plan.policy) {
            Refreshed::Updated(new) => {
                if self.tickets.refresh(&self.shared, &self.key, &self.entry, *new).is_ok() {
                    self.flight.stored();
                }
                return answer.release(connector).await;
            }
            Refreshed::Gone(_) | Refreshed::Other => return self.take_back(candidate.times.answered),
            Refreshed::Untouched => {}
        }
        if !storable::is_news(status) {
            return;
        }
        let draft = match Draft::of(&candidate, &self.plan.policy) {
            Ok(draft) => draft,
            Err(refusal) if storable::takes_back(refusal, &candidate) => {
                return self.take_back(candidate.times.answered);
            }
            Err(_) => return,
        };
        let most = memory.most().min(self.plan.policy.max_object as u64);
        if storable::content_length(&response).is_some_and(|length| length > most) {
            return self.take_back(candidate.times.answered);
        }
        // What it takes is given back when it is stored.
        let mut room = self.shared.cache.room();
        let read = whole_body(&mut answer, most, &mut room);
        let Ok(Ok(parts)) = tokio::time::timeout(total, read).await.map(|read| match read {
            // What the backend has now is not kept, and what it had before is not given again.
            Err(Cut::TooLarge) => {
                self.take_back(candidate.times.answered);
                Err(())
            }
            Err(Cut::Broken) => Err(()),
            Ok(parts) => Ok(parts),
        }) else {
            return;
        };
        let entry = draft.with(Body::copied(&parts, self.shared.cache.held()));
        match entry.and_then(|entry| self.tickets.insert(&self.shared, &self.key, entry)) {
            Ok(_) => self.flight.stored(),
            Err(Refusal::TooLarge | Refusal::Purged) => self.take_back(candidate.times.answered),
            Err(_) => {}
        }
        if answer.session.response_done() {
            answer.release(connector).await;
        }
    }
}

impl Refetch {
    /// What the backend has now, by an answer whose head came then, is not kept.
    fn take_back(&self, at: Now) {
        purging::take_back(
            &self.shared,
            &self.key,
            &TakenBack { request: &self.asked.headers, selection: &self.entry.selection, at },
        );
    }
}

/// Why a body is not whole.
enum Cut {
    Broken,
    TooLarge,
}

/// The body of an answer, if it comes to its end, is not larger than `most` and finds room.
async fn whole_body(answer: &mut Answer, most: u64, room: &mut Room) -> Result<Vec<Bytes>, Cut> {
    let (mut parts, mut length) = (Vec::new(), 0);
    while let Some(part) = answer.session.read_response_body().await.map_err(|_| Cut::Broken)? {
        length += part.len() as u64;
        if length > most || !room.grow(part.len()) {
            return Err(Cut::TooLarge);
        }
        parts.push(part);
    }
    Ok(parts)
}
