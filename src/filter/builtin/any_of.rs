//! `any_of`: one of several ways to say who a client is.
//!
//! YAML: `any_of: [ api_key, { jwt: { ... } }, { anonymous: { tier: free } } ]`. The first that accepts a credential decides who the
//! client is. Every credential that comes must be good: a forged token beside a good key refuses the request, whatever their order,
//! for a client that shows one is mistaken or lying; and a wrong one never makes anybody `anonymous`. Two members that read the same
//! field are two ways to read one credential, of which one must accept it. Whoever accepted, backends see the credentials of no
//! member (unless that one says `forward`), and no identity but that one's. When nobody accepts, 401 has the challenges of all.

mod members;
mod refusals;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use self::{
    members::{Member, members},
    refusals::Refusals,
};
use super::challenges;
use crate::{
    auth::{Identities, Method},
    filter::{
        Background, Body, Configure, Env, Exchange, Fault, Filter, Flow, Invalid, RequestOutcome, State, chain::ask,
    },
    yaml::{Node, Spanned},
};

/// Settings of `any_of`: filters, as in a route's list.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Config(Vec<Spanned<Node>>);

pub(crate) struct AnyOf {
    members: Box<[Member]>,
    /// What is taken from the head for the backend: when nobody has accepted, and for each member that may have.
    stripped: Vec<Vec<HeaderName>>,
}

impl fmt::Debug for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyOf")?;
        f.debug_list().entries(&self.members).finish()
    }
}

/// Which members of which `any_of` have accepted.
#[derive(Debug, Clone, Default)]
struct Accepted(Vec<Choice>);

/// What one `any_of` has found.
#[derive(Debug, Clone)]
struct Choice {
    id: usize,
    /// The member that says who the client is.
    place: usize,
    /// Others that have found a credential of theirs good: what that says of the body counts, too.
    beside: Vec<usize>,
    /// Fields that the member could have read, and has not: they hold somebody else's credential.
    unread: Vec<HeaderName>,
}

/// What a member makes of a request.
enum Answer {
    /// It knows the client by what it shows.
    Accepts(Identities),
    /// The client shows nothing to it.
    Nothing,
    /// It has refused; that is noted.
    Refuses,
}

impl Configure for AnyOf {
    const NAME: &'static str = "any_of";
    const SAMPLES: [&'static str; 2] =
        ["[client_cert, { anonymous: { tier: a } }]", "[{ client_cert: { allow: [b] } }, { anonymous: { tier: b } }]"];
    type Config = Config;

    fn configure(config: Config, env: &Env) -> Result<Self, Invalid> {
        let members = members(&config.0, env)?;
        let stripped = std::iter::once(None).chain(members.iter().map(Some)).map(|kept| {
            let others = members.iter().flat_map(|member| member.fields.iter().chain(&member.told));
            // What the one that has accepted leaves, or sets, is its own affair.
            let is_kept =
                |name: &HeaderName| kept.is_some_and(|kept| kept.fields.contains(name) || kept.told.contains(name));
            others.filter(|name| !is_kept(name)).cloned().collect()
        });
        Ok(Self { stripped: stripped.collect(), members: members.into() })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "$ref": "#/$defs/Filter" } })
    }
}

impl AnyOf {
    fn id(&self) -> usize {
        self.members.as_ptr().addr()
    }

    fn choice<'s>(&self, state: &'s State) -> Option<&'s Choice> {
        state.extensions.get::<Accepted>()?.0.iter().find(|choice| choice.id == self.id())
    }

    /// The place of the member that has accepted this request.
    fn accepted(&self, state: &State) -> Option<usize> {
        self.choice(state).map(|choice| choice.place)
    }

    fn member(&self, state: &State) -> Option<&dyn Filter> {
        self.accepted(state).and_then(|place| self.members.get(place)).map(|member| &*member.filter)
    }

    /// Asks one member, as if nobody were known.
    async fn ask(&self, place: usize, exchange: &mut Exchange<'_>, refusals: &mut Refusals) -> Result<Answer, Fault> {
        let before = std::mem::take(&mut exchange.state.identities);
        let flow = ask(&*self.members[place].filter, exchange).await;
        let found = std::mem::replace(&mut exchange.state.identities, before);
        Ok(match flow? {
            Flow::Next if found.last().is_some() => Answer::Accepts(found),
            Flow::Next => {
                if self.members[place].asks_a_service {
                    refusals.unanswered = true;
                }
                Answer::Nothing
            }
            Flow::Reply(reply) => {
                refusals.note(place, reply, found);
                Answer::Refuses
            }
        })
    }

    /// The first member that accepts.
    async fn first(&self, exchange: &mut Exchange<'_>, refusals: &mut Refusals) -> Option<(usize, Identities)> {
        for (place, member) in self.members.iter().enumerate() {
            if member.anonymous && (refusals.any_wrong() || self.shows_something(exchange)) {
                return None;
            }
            if member.anonymous && exchange.state.identities.last().is_some() {
                // A step before this one knows the client.
                return Some((place, Identities::default()));
            }
            match self.ask(place, exchange, refusals).await {
                Ok(Answer::Accepts(found)) => return Some((place, found)),
                Ok(_) => {}
                Err(fault) => refusals.fault(fault),
            }
        }
        None
    }

    /// The client shows a credential to some member, whether or not it can be read.
    fn shows_something(&self, exchange: &Exchange<'_>) -> bool {
        let headers = &exchange.request.headers;
        self.members.iter().flat_map(|member| &member.fields).any(|name| headers.contains_key(name))
    }

    /// Looks at what was shown beside the credential that `accepted` has read: the members that have found theirs good, or
    /// nothing when some of it is not good.
    async fn beside(
        &self,
        accepted: usize,
        exchange: &mut Exchange<'_>,
        refusals: &mut Refusals,
    ) -> Option<Vec<usize>> {
        let mut good = Vec::new();
        let has_read = &self.members[accepted];
        for (place, member) in self.members.iter().enumerate() {
            let headers = &exchange.request.headers;
            let apart = |name: &HeaderName| headers.contains_key(name) && !has_read.reads(headers, name);
            let shown = member.fields.iter().any(apart) || member.certificate && exchange.state.certificate.is_some();
            if place == accepted || !shown {
                continue;
            }
            // Those before it have been asked.
            if place > accepted {
                match self.ask(place, exchange, refusals).await {
                    Ok(Answer::Accepts(_)) => good.push(place),
                    Ok(_) => {}
                    Err(fault) => {
                        refusals.fault(fault);
                        return None;
                    }
                }
            }
            if refusals.is_wrong(place) {
                refusals.keep_only(place);
                return None;
            }
        }
        let read_by_good = |name: &HeaderName| {
            good.iter().any(|place: &usize| self.members[*place].reads(&exchange.request.headers, name))
        };
        if self.unread(accepted, &exchange.request.headers).iter().any(|name| !read_by_good(name))
            && !self.also(accepted, exchange, refusals).await
        {
            refusals.keep_only(accepted);
            return None;
        }
        Some(good)
    }

    /// Whether the member that has accepted one credential finds no fault with what stands in its other fields.
    async fn also(&self, accepted: usize, exchange: &mut Exchange<'_>, refusals: &mut Refusals) -> bool {
        let member = &self.members[accepted];
        let mut rest = exchange.request.clone();
        for name in member.fields.iter().filter(|name| member.reads(&exchange.request.headers, name)) {
            rest.remove_header(name);
        }
        let mut again = Exchange::new(&rest, &mut *exchange.state, exchange.now);
        match self.ask(accepted, &mut again, refusals).await {
            Ok(_) => !refusals.is_wrong(accepted),
            Err(fault) => {
                refusals.fault(fault);
                false
            }
        }
    }

    /// Fields of the member that it has not read, though they are there.
    fn unread(&self, accepted: usize, headers: &HeaderMap) -> Vec<HeaderName> {
        let member = &self.members[accepted];
        let unread = |name: &&HeaderName| headers.contains_key(*name) && !member.reads(headers, name);
        member.fields.iter().filter(unread).cloned().collect()
    }
}

#[async_trait]
impl Filter for AnyOf {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let mut refusals = Refusals::default();
        let Some((place, found)) = self.first(exchange, &mut refusals).await else {
            return refusals.flow(exchange.state);
        };
        let Some(beside) = self.beside(place, exchange, &mut refusals).await else {
            return refusals.flow(exchange.state);
        };
        let challenges: Vec<HeaderValue> =
            if self.members[place].anonymous { refusals.challenges() } else { Vec::new() };
        for challenge in challenges {
            challenges::note(exchange.state, challenge);
        }
        exchange.state.identities.note_all(found);
        let choice = Choice { id: self.id(), place, beside, unread: self.unread(place, &exchange.request.headers) };
        exchange.state.extensions.get_or_insert_default::<Accepted>().0.push(choice);
        Ok(Flow::Next)
    }

    fn credentials(&self) -> Option<Vec<HeaderName>> {
        Some(self.members.iter().flat_map(|member| member.fields.clone()).collect())
    }

    fn sole_methods(&self) -> Vec<Method> {
        self.members.iter().flat_map(|member| member.filter.sole_methods()).collect()
    }

    fn tells_backends(&self) -> Vec<HeaderName> {
        self.members.iter().flat_map(|member| member.told.clone()).collect()
    }

    fn known_names(&self) -> Vec<(HeaderName, String)> {
        self.members.iter().flat_map(|member| member.filter.known_names()).collect()
    }

    fn upstream(&self, head: &mut RequestHeader, state: &State) -> Result<(), Fault> {
        let choice = self.choice(state);
        let others = self.stripped.get(choice.map_or(0, |choice| choice.place + 1)).into_iter().flatten();
        for name in others.chain(choice.into_iter().flat_map(|choice| &choice.unread)) {
            head.remove_header(name);
        }
        self.member(state).map_or(Ok(()), |member| member.upstream(head, state))
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        let Some(place) = self.accepted(state) else { return Ok(()) };
        self.members[place].filter.response(head, state)
    }

    fn log(&self, state: &State, outcome: &RequestOutcome) {
        if let Some(member) = self.member(state) {
            member.log(state, outcome);
        }
    }

    fn background(&self) -> Option<Background> {
        let all: Vec<Background> = self.members.iter().filter_map(|member| member.filter.background()).collect();
        (!all.is_empty()).then(|| -> Background {
            Box::pin(async move {
                futures_util::future::join_all(all).await;
            })
        })
    }

    fn body(&self) -> Body {
        let wants = |either: [Body; 2]| self.members.iter().any(|member| either.contains(&member.filter.body()));
        match (wants([Body::Request, Body::Both]), wants([Body::Response, Body::Both])) {
            (true, true) => Body::Both,
            (true, false) => Body::Request,
            (false, true) => Body::Response,
            (false, false) => Body::Skip,
        }
    }

    fn request_body(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Result<Flow, Fault> {
        let Some(place) = self.accepted(state) else { return Ok(Flow::Next) };
        if let Flow::Reply(reply) = self.members[place].filter.request_body(chunk, end, state)? {
            return Ok(Flow::Reply(reply));
        }
        // By number: the list cannot be kept while the state changes.
        let mut next = 0;
        while let Some(place) = self.choice(state).and_then(|choice| choice.beside.get(next).copied()) {
            if let Flow::Reply(reply) = self.members[place].filter.request_body(chunk, end, state)? {
                return Ok(Flow::Reply(reply));
            }
            next += 1;
        }
        Ok(Flow::Next)
    }

    fn response_body(&self, chunk: &mut Option<Bytes>, end: bool, state: &mut State) -> Result<(), Fault> {
        let Some(place) = self.accepted(state) else { return Ok(()) };
        self.members[place].filter.response_body(chunk, end, state)
    }
}
