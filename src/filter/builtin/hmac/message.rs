//! The components of a request that a signature may cover (RFC 9421, 2), as the client has sent them.

use http::{HeaderName, HeaderValue, Uri, header};

use crate::{
    filter::Exchange,
    message::fields::{other_spellings, single},
};

/// Components that are no fields.
pub(super) const DERIVED: [&str; 7] =
    ["@method", "@authority", "@path", "@query", "@scheme", "@target-uri", "@request-target"];

/// A request, as its signer sees it.
pub(super) struct Message<'a, 'e> {
    exchange: &'a Exchange<'e>,
    target: &'a Uri,
}

impl<'a, 'e> Message<'a, 'e> {
    pub(super) fn new(exchange: &'a Exchange<'e>) -> Self {
        Self { exchange, target: exchange.target() }
    }

    /// Whether there is such a component: what is not there cannot be covered.
    pub(super) fn has(&self, name: &str) -> bool {
        name.starts_with('@') || self.exchange.request.headers.contains_key(name)
    }

    /// The value of a field that is there once.
    pub(super) fn text(&self, name: &HeaderName) -> Option<&'a str> {
        single(&self.exchange.request.headers, name)?.to_str().ok()
    }

    /// Some backends would read a field that is not covered as one of `fields`, which is (`X_Role` as `X-Role`).
    pub(super) fn spells_otherwise(&self, fields: &[HeaderName]) -> bool {
        !other_spellings(&self.exchange.request.headers, || fields.iter()).is_empty()
    }

    /// A body follows.
    pub(super) fn has_body(&self) -> bool {
        self.exchange.state.has_body
    }

    /// The value of a component; `None` when there is none, or when it has no one reading.
    pub(super) fn component(&self, name: &str) -> Option<String> {
        let (path, query) = (self.target.path(), self.target.query());
        let path = if path.is_empty() { "/" } else { path };
        match name {
            "@method" => Some(self.exchange.request.method.as_str().to_owned()),
            "@authority" => self.authority(),
            "@scheme" => Some(self.scheme().to_owned()),
            "@path" => Some(path.to_owned()),
            "@query" => Some(format!("?{}", query.unwrap_or_default())),
            "@request-target" => Some(query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))),
            "@target-uri" => {
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                Some(format!("{}://{}{path}{query}", self.scheme(), self.authority()?))
            }
            _ if name.starts_with('@') => None,
            _ => self.field(name),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.exchange.state.secure { "https" } else { "http" }
    }

    /// In lower case, without the port that the scheme has anyway (RFC 9421, 2.2.3).
    fn authority(&self) -> Option<String> {
        let host = single(&self.exchange.request.headers, header::HOST)?.to_str().ok()?.to_ascii_lowercase();
        let usual = if self.exchange.state.secure { ":443" } else { ":80" };
        Some(host.strip_suffix(usual).map_or_else(|| host.clone(), str::to_owned))
    }

    /// All lines of a field, trimmed and joined (RFC 9421, 2.1).
    fn field(&self, name: &str) -> Option<String> {
        let lines = self.exchange.request.headers.get_all(name);
        let lines: Option<Vec<&str>> = lines.iter().map(|line| HeaderValue::to_str(line).ok().map(str::trim)).collect();
        lines.filter(|lines| !lines.is_empty()).map(|lines| lines.join(", "))
    }
}
