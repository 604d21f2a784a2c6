//! A stored answer as the client is to see it: whole, a part of it, or that it has it already.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;

use crate::cache::{
    conditional,
    entry::Entry,
    range::{self, Part},
};
use crate::clock::Now;

/// A head and the pieces of a body, which are those of the store.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) head: ResponseHeader,
    pub(crate) parts: Vec<Bytes>,
}

impl Served {
    /// Of an entry, for a request with this method and these fields.
    pub(super) fn of(entry: &Entry, method: &Method, request: &HeaderMap, now: Now) -> pingora::Result<Self> {
        if conditional::is_not_modified(method, request, entry) {
            return Self::build(entry, StatusCode::NOT_MODIFIED, Vec::new(), now);
        }
        let whole = 0..entry.body.len();
        let (status, range, content_range) = match range::part(method, request, entry) {
            Part::Whole => (entry.status, whole.clone(), None),
            Part::Bytes(range) => {
                let said = range::content_range(&range, whole.end);
                (StatusCode::PARTIAL_CONTENT, range, Some(said))
            }
            Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0, Some(range::unsatisfiable(whole.end))),
        };
        let parts =
            if range == whole { entry.body.parts().to_vec() } else { entry.body.slice(range.clone()).collect() };
        let mut served = Self::build(entry, status, parts, now)?;
        if let Some(said) = content_range {
            served.head.insert_header(header::CONTENT_RANGE, said)?;
        }
        if status != StatusCode::NO_CONTENT {
            served.head.insert_header(header::CONTENT_LENGTH, HeaderValue::from(range.len()))?;
        }
        if method == Method::HEAD {
            served.parts.clear();
        }
        Ok(served)
    }

    fn build(entry: &Entry, status: StatusCode, parts: Vec<Bytes>, now: Now) -> pingora::Result<Self> {
        let mut head = ResponseHeader::build_no_case(status, Some(entry.headers.len() + 8))?;
        let short = status == StatusCode::NOT_MODIFIED;
        for (name, value) in entry.headers.iter().filter(|(name, _)| !(short && conditional::is_left_out(name))) {
            head.append_header(name, value.clone())?;
        }
        head.insert_header(header::AGE, HeaderValue::from(entry.age(now).as_secs()))?;
        Ok(Self { head, parts })
    }
}
