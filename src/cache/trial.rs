//! What would become of a request and of an answer to it, and of the same request after that. For a configuration's own tests.

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    body::Body,
    bypass,
    draft::Draft,
    freshness::Times,
    held::Held,
    policy::Policy,
    reuse::{self, Asked, Reuse},
    storable::Candidate,
    whole,
};
use crate::{clock::Now, message::reserved::ReservedHeaders};

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// Its fields.
    pub request: &'a HeaderMap,
    /// Its query.
    pub query: Option<&'a str>,
    /// The key would be this client's own.
    pub one_client: bool,
    /// The status of the answer.
    pub status: StatusCode,
    /// Its fields.
    pub response: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
    /// Fields that only the gateway tells backends.
    pub reserved: &'a ReservedHeaders,
}

/// A word of `X-Cache` in small letters, that the second request would be answered with, and why if it is no hit.
pub type Verdict = (&'static str, Option<&'static str>);

impl Trial<'_> {
    /// What would come of it under these rules, at `now`.
    pub fn under(&self, policy: &Policy, now: Now) -> Verdict {
        if let Some(past) = bypass::past(policy, self.method, self.request, self.query) {
            return ("bypass", Some(past.label()));
        }
        let asked = Asked::of(self.request, policy);
        if reuse::without(&asked).is_some() {
            return ("miss", Some("only-if-cached"));
        }
        let whole = match whole::of(self.request, self.status, self.response) {
            Ok(whole) => whole,
            Err(refusal) => return ("miss", Some(refusal.label())),
        };
        let candidate = Candidate {
            method: self.method,
            request: self.request,
            has_query: self.query.is_some(),
            one_client: self.one_client,
            status: if whole.is_some() { StatusCode::OK } else { self.status },
            response: whole.as_ref().unwrap_or(self.response),
            times: Times { asked: now, answered: now },
            reserved: self.reserved,
        };
        let body = Body::copied(&[self.body], &Held::default());
        let entry = Draft::of(&candidate, policy).and_then(|draft| draft.with(body));
        let entry = match entry {
            Ok(entry) => entry,
            Err(refusal) => return ("miss", Some(refusal.label())),
        };
        // What has no validator is fetched anew.
        let validators = [header::ETAG, header::LAST_MODIFIED];
        let can_be_validated = validators.iter().any(|field| entry.headers.contains_key(field));
        match reuse::decide(&entry, &asked, now) {
            Reuse::Fresh => ("hit", None),
            Reuse::Stale | Reuse::StaleWhileRevalidate => ("stale", None),
            Reuse::Revalidate { why, .. } if can_be_validated => ("revalidated", Some(why.label())),
            Reuse::Revalidate { why, .. } | Reuse::Unusable(why) => ("miss", Some(why.label())),
            Reuse::Unavailable => ("miss", Some("only-if-cached")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::test_entry::Made, *};

    #[test]
    fn a_word_and_why() {
        let verdict = |made: &Made| {
            let trial = Trial {
                method: &made.method,
                request: &made.request,
                query: None,
                one_client: made.one_client,
                status: StatusCode::from_u16(made.status).unwrap_or_default(),
                response: &made.response,
                body: &made.body,
                reserved: &made.reserved,
            };
            trial.under(&made.policy, Made::later(0))
        };
        for (made, expected) in [
            (Made::saying("max-age=9"), ("hit", None)),
            (Made::ttl(), ("hit", None)),
            (Made::saying("private"), ("miss", Some("private"))),
            (Made::saying("no-cache").with("etag", "\"e\""), ("revalidated", Some("no-cache"))),
            (Made::saying("max-age=0, stale-while-revalidate=9"), ("stale", None)),
            (Made::saying("max-age=9").asked_with("cache-control", "no-cache"), ("miss", Some("request"))),
            (
                Made::saying("max-age=9").with("etag", "\"e\"").asked_with("cache-control", "no-cache"),
                ("revalidated", Some("request")),
            ),
            (Made::saying("max-age=9").asked_with("cache-control", "only-if-cached"), ("miss", Some("only-if-cached"))),
            (Made::saying("max-age=9").asked_with("range", "bytes=0-1"), ("hit", None)),
            (Made::saying("max-age=9").asked_with("range", "bytes=0-1").status(206), ("miss", Some("partial"))),
            (Made::saying("max-age=9").asked_with("if-none-match", "\"e\"").status(304), ("miss", Some("partial"))),
            (Made { method: Method::POST, ..Made::saying("max-age=9") }, ("bypass", Some("method"))),
        ] {
            assert_eq!(verdict(&made), expected);
        }
    }
}
