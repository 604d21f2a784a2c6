//! An answer whose head has come: all of an entry but its body.

use http::{HeaderMap, StatusCode, header};

use super::{
    body::Body,
    date,
    entry::Entry,
    policy::Policy,
    refusal::Refusal,
    storable::{self, Candidate, Terms, content_length},
    tags::{self, Tags},
    targeted,
    vary::Selection,
};
use crate::clock::Now;

/// An answer that may be kept, if its body comes to its end.
#[derive(Debug)]
pub struct Draft {
    /// On what terms it is kept.
    pub terms: Terms,
    status: StatusCode,
    headers: HeaderMap,
    stored: Now,
    selection: Selection,
    tags: Tags,
    /// The length that was said.
    length: Option<u64>,
    most: usize,
}

impl Draft {
    /// Of an answer, as its head and the policy say.
    ///
    /// # Errors
    /// Why it must not be kept.
    pub fn of(candidate: &Candidate<'_>, policy: &Policy) -> Result<Self, Refusal> {
        Self::selected_by(candidate, candidate.request, policy)
    }

    /// The same, for the requests that are like `request`.
    pub(super) fn selected_by(
        candidate: &Candidate<'_>,
        request: &HeaderMap,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let said = targeted::read(candidate.response);
        let terms = storable::terms(candidate, &said, policy)?;
        let mut headers = storable::kept_fields(candidate.response, &said, policy);
        let stored = candidate.times.answered;
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, date::format(stored.unix));
        }
        // 204 has no body whatever is said.
        let length = content_length(candidate.response).filter(|_| candidate.status != StatusCode::NO_CONTENT);
        let selection = Selection::of(request, candidate.response)?;
        let (status, tags, most) = (candidate.status, tags::of(candidate.response), policy.max_object);
        Ok(Self { terms, status, headers, stored, selection, tags, length, most })
    }

    /// The length of the body, if it was said and may be believed.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The entry whose body is to come, of which the length was said.
    pub fn head(&self) -> Option<Entry> {
        let body = Body::to_come(usize::try_from(self.length?).ok()?);
        let (headers, selection, tags) = (self.headers.clone(), self.selection.clone(), self.tags.clone());
        Some(Entry::made_of(self.status, headers, self.terms.clone(), self.stored, selection, tags, body))
    }

    /// The entry, now that the body is complete.
    ///
    /// # Errors
    /// The body is too large, or not as long as was said.
    pub fn with(self, body: Body) -> Result<Entry, Refusal> {
        if body.len() > self.most {
            return Err(Refusal::TooLarge);
        }
        if self.length.is_some_and(|length| length != body.len() as u64) {
            return Err(Refusal::Incomplete);
        }
        Ok(Entry::made_of(self.status, self.headers, self.terms, self.stored, self.selection, self.tags, body))
    }
}
