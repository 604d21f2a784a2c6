//! What a backend takes back: it was asked about an answer that is stored, and has another one now that is not kept.

use http::HeaderMap;

use super::{entry::Entry, vary::Selection};
use crate::clock::Now;

/// What came until a time, for requests like one. Whoever was asked earlier and answered later has said the last word.
#[derive(Debug, Clone, Copy)]
pub struct TakenBack<'a> {
    /// The fields of the request, as the client sent them.
    pub request: &'a HeaderMap,
    /// The requests that the answer is for that the backend was asked about.
    pub selection: &'a Selection,
    /// When the head of the answer came that says so.
    pub at: Now,
}

impl TakenBack<'_> {
    /// True for what nobody is to be given any more.
    pub fn is_about(&self, entry: &Entry) -> bool {
        let selection = &entry.selection;
        self.came_after(entry.stored)
            && (selection == self.selection || selection.matches(self.request, &entry.headers))
    }

    /// True for the file of such an answer, which came at that time.
    pub(super) fn is_about_file(&self, stored: Now, selection: &Selection) -> bool {
        self.came_after(stored) && (selection == self.selection || selection.is_of(self.request))
    }

    fn came_after(&self, stored: Now) -> bool {
        stored.since_start <= self.at.since_start
    }
}
