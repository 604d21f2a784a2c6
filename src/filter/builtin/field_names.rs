//! Names of fields in the settings of one step: those that hold a credential, and those that tell backends something.
//!
//! What the framing of a message or its connection depends on is neither, and no name is two things: the step would take away
//! what it has just written.

use http::{HeaderName, header};

use crate::{filter::Invalid, message::hop_by_hop};

/// Fields that hold no credential of ours: without them the message is another one.
const NO_CREDENTIAL: [HeaderName; 4] = [header::COOKIE, header::SET_COOKIE, header::EXPECT, header::CONTENT_ENCODING];

/// Fields that hold what others have said: a backend would take a name or a claim for it.
const NOT_TOLD: [HeaderName; 2] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION];

/// The names that a step has so far.
pub(super) struct FieldNames<'a> {
    invalid: &'a mut Invalid,
    taken: Vec<(HeaderName, String)>,
}

/// Many a backend reads both spellings as one (CGI's variables, WSGI).
fn same(one: &HeaderName, other: &HeaderName) -> bool {
    one == other || one.as_str().replace('_', "-") == other.as_str().replace('_', "-")
}

impl<'a> FieldNames<'a> {
    /// None so far; what is wrong goes to `invalid`.
    pub(super) fn new(invalid: &'a mut Invalid) -> Self {
        Self { invalid, taken: Vec::new() }
    }

    /// Takes a name that is none of the settings; `what` says whose it is.
    pub(super) fn take(&mut self, name: &HeaderName, what: &str) {
        self.taken.push((name.clone(), what.to_owned()));
    }

    /// The field with a credential.
    pub(super) fn credential(&mut self, path: &str, text: &str) -> HeaderName {
        self.name(path, text, &[])
    }

    /// A field that tells backends something.
    pub(super) fn told(&mut self, path: &str, text: &str) -> HeaderName {
        self.name(path, text, &NOT_TOLD)
    }

    fn name(&mut self, path: &str, text: &str, refused: &[HeaderName]) -> HeaderName {
        match self.check(text, refused) {
            Ok(name) => {
                self.take(&name, path);
                name
            }
            Err(message) => {
                self.invalid.push(path, message);
                header::AUTHORIZATION
            }
        }
    }

    fn check(&self, text: &str, refused: &[HeaderName]) -> Result<HeaderName, String> {
        let name: HeaderName = text.parse().map_err(|_| format!("'{text}' is not a header name"))?;
        if hop_by_hop::NOT_EDITABLE.contains(&name) {
            return Err(format!("'{text}' belongs to the connection and cannot be used for this"));
        }
        if NO_CREDENTIAL.contains(&name) || refused.contains(&name) {
            return Err(format!("'{text}' has a meaning of its own: take another name, as 'X-{text}'"));
        }
        match self.taken.iter().find(|(taken, _)| same(taken, &name)) {
            Some((_, by)) => Err(format!("'{text}' is taken already (by {by})")),
            None => Ok(name),
        }
    }
}
