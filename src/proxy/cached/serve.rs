//! A stored answer as the client is to see it: whole, a part of it, or that it has it already.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, response};
use pingora::http::ResponseHeader;

use crate::{
    cache::{
        conditional,
        entry::Entry,
        range::{self, Part},
    },
    message::fields::number,
    proxy::{compression, context::Context},
    runtime::underway::Follower,
};

/// A head and the pieces of a body, which are those of the store.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) head: ResponseHeader,
    pub(crate) parts: Vec<Bytes>,
    /// They are all of a body that is kept.
    pub(crate) whole: bool,
    /// Brings the rest of the body, which is still to come.
    pub(crate) rest: Option<Follower>,
}

impl Served {
    /// Of an entry, for a request with this method and these fields.
    pub(super) fn of(entry: &Entry, method: &Method, request: &HeaderMap, context: &Context) -> Self {
        Self::part_of(entry, method, request, context).0
    }

    /// Of an entry whose body is still to come.
    pub(super) fn following(follower: Follower, method: &Method, request: &HeaderMap, context: &Context) -> Self {
        let (served, part) = Self::part_of(follower.head(), method, request, context);
        Self { rest: (!part.is_empty()).then(|| follower.only(part)), ..served }
    }

    /// The same, and which part of the body it is.
    fn part_of(entry: &Entry, method: &Method, request: &HeaderMap, context: &Context) -> (Self, Range<usize>) {
        if conditional::is_not_modified(method, request, entry) {
            let head = fields(entry, StatusCode::NOT_MODIFIED).into();
            return (Self { head, parts: Vec::new(), whole: false, rest: None }, 0..0);
        }
        let whole = 0..entry.body.len();
        let (status, range, content_range) = match range::part(method, request, entry, || {
            compression::would_code(request, (entry.status, &entry.headers), context)
        }) {
            Part::Whole => (entry.status, whole.clone(), None),
            Part::Bytes(range) => {
                let said = range::content_range(&range, whole.end);
                (StatusCode::PARTIAL_CONTENT, range, Some(said))
            }
            Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0, Some(range::unsatisfiable(whole.end))),
        };
        let parts =
            if range == whole { entry.body.parts().to_vec() } else { entry.body.slice(range.clone()).collect() };
        let mut head = fields(entry, status);
        if let Some(said) = content_range {
            head.headers.insert(header::CONTENT_RANGE, said);
        }
        if status != StatusCode::NO_CONTENT {
            head.headers.insert(header::CONTENT_LENGTH, number(range.len() as u64));
        }
        let whole = range == whole && method == Method::GET && !parts.is_empty();
        let parts = if method == Method::HEAD { Vec::new() } else { parts };
        (Self { head: head.into(), parts, whole, rest: None }, range)
    }
}

/// A head of this status with the fields of an entry, and room for what is said of it.
fn fields(entry: &Entry, status: StatusCode) -> response::Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.headers.reserve(entry.headers.len() + 8);
    let short = status == StatusCode::NOT_MODIFIED;
    for (name, value) in entry.headers.iter().filter(|(name, _)| !(short && conditional::is_left_out(name))) {
        head.headers.append(name, value.clone());
    }
    head
}
