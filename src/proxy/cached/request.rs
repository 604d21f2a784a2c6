//! What the cache has to do with one request.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::keep::Tickets;
use crate::{
    cache::{
        body::{Body, Filling},
        bypass::Past,
        conditional::{self, CONDITIONS},
        draft::Draft,
        entry::Entry,
        freshness::Times,
        key::Key,
        memory::Ticket,
        refusal::Refusal,
        reuse::InPlaceOf,
        said::{CACHE_STATUS, Forwarded, Outcome, X_CACHE, X_CACHE_AGE},
        shared::{CachePlan, Room},
        storable::Candidate,
        targeted::TOLLGATE_CACHE_CONTROL,
    },
    clock::Now,
    message::{edit::Edit as _, fields, reserved::ReservedHeaders},
    runtime::{
        flights::Flight,
        underway::{Bringer, Underway},
    },
};

/// What backends say to this cache alone.
static OF_THIS_CACHE: [HeaderName; 1] = [TOLLGATE_CACHE_CONTROL];

/// A request on a route with a cache.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(super) plan: Arc<CachePlan>,
    pub(super) forwarded: Forwarded,
    /// Nothing, when it goes past the cache.
    pub(super) place: Option<Place>,
    /// The request waited for the fetch of another one.
    pub(super) collapsed: bool,
    /// What has been done; nothing while the backend is asked.
    pub(super) outcome: Option<Outcome>,
    /// Made of this entry, at this time.
    pub(super) served: Option<(Arc<Entry>, Now)>,
    /// How long the answer is fresh that is being stored, in seconds.
    pub(super) ttl: Option<i64>,
    /// An answer that is being stored.
    pub(super) fill: Option<Fill>,
}

/// Where the answer would be stored.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) one_client: bool,
    /// To be handed back with the answer.
    pub(super) tickets: Tickets,
    /// What there is, and may not be given as it is.
    pub(super) entry: Option<Arc<Entry>>,
    /// When it may be given all the same.
    pub(super) or: InPlaceOf,
    /// The backend is asked whether it is good still.
    pub(super) validates: bool,
    /// The backend is told the client's conditions and range.
    pub(super) conditions: bool,
    /// The others wait for it.
    pub(super) flight: Option<Flight>,
    /// When the backend was asked.
    pub(super) sent: Option<Now>,
}

/// An answer on its way into the store.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) draft: Draft,
    pub(super) body: FillBody,
    /// Its client is written what the backend sends, as it is: others may be given it, too.
    pub(super) may_open: bool,
    /// What was stored is not what the backend has now, whatever becomes of this one, whose head came then.
    pub(super) news: Option<Now>,
}

impl Fill {
    /// True when so many bytes more are not the whole of it, as far as that was said.
    pub(super) fn lacks(&self, more: usize) -> bool {
        self.draft.length().is_some_and(|length| ((self.body.len() + more) as u64) < length)
    }

    /// From now on others may be given it while it comes.
    pub(super) fn open(&mut self, ticket: Ticket) -> Option<&Arc<Underway>> {
        if let FillBody::Own(taken) = &mut self.body
            && let Some(head) = self.draft.head()
            && let Some((body, room)) = taken.take()
        {
            self.body = FillBody::Open(Bringer::new(head, ticket, body, room));
        }
        match &self.body {
            FillBody::Own(_) => None,
            FillBody::Open(bringer) => Some(bringer.underway()),
        }
    }
}

/// The body of such an answer: a copy, for what comes from a connection is a view of a buffer that may be much larger.
#[derive(Debug)]
pub(super) enum FillBody {
    /// Nothing, only while it is opened.
    Own(Option<(Filling, Room)>),
    /// Others are given it while it comes.
    Open(Bringer),
}

impl FillBody {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(own) => own.as_ref().map_or(0, |(body, _)| body.len()),
            Self::Open(bringer) => bringer.came(),
        }
    }

    /// Takes in a part; false when there is no room for it, or it is more than `most`. Of what others are given that was asked
    /// before.
    pub(super) fn extend(&mut self, part: &[u8], most: u64) -> bool {
        match self {
            Self::Own(own) => {
                let Some((body, room)) = own else { return false };
                let has_room = (body.len() + part.len()) as u64 <= most && room.grow(part.len());
                if has_room {
                    body.extend(part);
                }
                has_room
            }
            Self::Open(bringer) => bringer.extend(part),
        }
    }

    pub(super) fn finish(self) -> Body {
        match self {
            Self::Own(own) => own.map_or_else(Body::default, |(body, _)| body.finish()),
            Self::Open(bringer) => bringer.finish(),
        }
    }
}

impl Place {
    /// What a backend has `answered`, at this time, to what was asked for this place.
    pub(super) fn candidate<'a>(
        &self,
        asked: &'a RequestHeader,
        (status, response): (StatusCode, &'a HeaderMap),
        answered: Now,
        reserved: &'a ReservedHeaders,
    ) -> Candidate<'a> {
        Candidate {
            method: &asked.method,
            request: &asked.headers,
            has_query: asked.uri.query().is_some(),
            one_client: self.one_client,
            status,
            response,
            times: Times { asked: self.sent.unwrap_or(answered), answered },
            reserved,
        }
    }
}

/// Makes the head that goes to a backend one that asks whether `entry` is good still; false when it can only ask for a whole
/// answer.
pub(super) fn ask_again(head: &mut RequestHeader, entry: &Entry) -> pingora::Result<bool> {
    let mut fields = head.headers.clone();
    let asked = conditional::ask_again(&mut fields, entry);
    for name in &CONDITIONS {
        match fields.get(name) {
            Some(value) => head.insert_header(name, value.clone())?,
            None => drop(head.remove_header(name)),
        }
    }
    Ok(asked)
}

impl Cached {
    pub(super) fn new(plan: Arc<CachePlan>, forwarded: Forwarded, place: Option<Place>) -> Box<Self> {
        Box::new(Self { plan, forwarded, place, collapsed: false, outcome: None, served: None, ttl: None, fill: None })
    }

    /// Of a request that is answered out of the store, which may have `waited` for another one to fill it.
    pub(super) fn collapsed(plan: Arc<CachePlan>, waited: bool) -> Box<Self> {
        let mut cached = Self::new(plan, Forwarded::UriMiss, None);
        cached.collapsed = waited;
        cached
    }

    pub(super) fn past(plan: Arc<CachePlan>, past: Past) -> Box<Self> {
        Self::new(plan, Forwarded::Past(past), None)
    }

    /// True when the client is given what was stored.
    pub(crate) fn serves(&self) -> bool {
        self.served.is_some()
    }

    /// The body of what was stored, if the client is given that.
    pub(crate) fn body(&self) -> Option<&Body> {
        self.served.as_ref().map(|(entry, _)| &entry.body)
    }

    /// The word for metrics and the access log.
    pub(crate) fn label(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::label)
    }

    /// Makes the head that goes to a backend one that asks whether an entry is good still, if that is what is asked.
    pub(crate) fn prepare(&mut self, head: &mut RequestHeader) -> pingora::Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        place.sent = Some(Now::read());
        let (true, Some(entry)) = (place.validates, &place.entry) else { return Ok(()) };
        place.validates = ask_again(head, entry)?;
        Ok(())
    }

    /// The answer is not kept, and nobody waits for it any longer, nor for the next ones.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(flight) = self.refused(refusal) {
            flight.pass(Now::monotonic());
        }
    }

    /// The answer is not kept because of what this request is: another one fetches it for those who wait.
    pub(super) fn refuse_to_asker(&mut self, refusal: Refusal) {
        drop(self.refused(refusal));
    }

    fn refused(&mut self, refusal: Refusal) -> Option<Flight> {
        self.fill = None;
        self.outcome = Some(Outcome::Miss { forwarded: self.forwarded, status: None, stored: Some(Err(refusal)) });
        self.place.as_mut().and_then(|place| place.flight.take())
    }

    /// Says on an answer what has been done, and takes off what was said to this cache alone.
    pub(crate) fn say(&self, head: &mut ResponseHeader) -> pingora::Result<()> {
        if fields::present(&head.headers, &OF_THIS_CACHE) == [true] {
            head.remove_header(&TOLLGATE_CACHE_CONTROL);
        }
        let miss = || Outcome::Miss { forwarded: self.forwarded, status: None, stored: None };
        let outcome = self.outcome.unwrap_or_else(miss);
        let entry = self.served.as_ref().map(|(entry, now)| (&**entry, *now));
        let said = outcome.said(entry, self.ttl, self.collapsed);
        head.edit(|fields| {
            fields.append(CACHE_STATUS, said.status)?;
            fields.insert(X_CACHE, said.word)?;
            let Some(age) = said.age else { return Ok(()) };
            fields.insert(header::AGE, age.clone())?;
            fields.insert(X_CACHE_AGE, age)
        })
    }
}
