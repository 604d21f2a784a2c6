//! A request, as its signer has sent it.

use http::HeaderName;

use crate::{
    filter::Exchange,
    message::{
        components::Components,
        fields::{other_spellings, single},
    },
};

/// A request whose signature is looked at.
pub(super) struct Message<'a> {
    pub(super) components: Components<'a>,
    /// A body follows.
    pub(super) has_body: bool,
}

impl<'a> Message<'a> {
    pub(super) fn new(exchange: &'a Exchange<'_>) -> Self {
        let components = Components {
            method: &exchange.request.method,
            target: exchange.target(),
            headers: &exchange.request.headers,
            secure: exchange.state.secure,
        };
        Self { components, has_body: exchange.state.has_body }
    }

    /// The value of a field that is there once.
    pub(super) fn text(&self, name: &HeaderName) -> Option<&'a str> {
        single(self.components.headers, name)?.to_str().ok()
    }

    /// Some backends would read a field that is not covered as one of `fields`, which is (`X_Role` as `X-Role`).
    pub(super) fn spells_otherwise(&self, fields: &[HeaderName]) -> bool {
        !other_spellings(self.components.headers, || fields.iter()).is_empty()
    }
}
