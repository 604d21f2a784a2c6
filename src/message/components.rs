//! The components of a request that a signature may cover (RFC 9421, 2), and their values.

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::fields::single;

/// Whether a signature can cover a field of this value.
pub(crate) fn can_be_covered(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

/// A request, as its signer and whoever verifies it see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Components<'a> {
    pub(crate) method: &'a Method,
    /// As it is sent: a path is not normalised.
    pub(crate) target: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// It comes over TLS.
    pub(crate) secure: bool,
}

impl Components<'_> {
    /// Whether there is such a component: what is not there cannot be covered.
    pub(crate) fn has(&self, name: &str) -> bool {
        name.starts_with('@') || self.headers.contains_key(name)
    }

    /// The value of a component; `None` when there is none, or when it has no one reading.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let (path, query) = (self.target.path(), self.target.query());
        let path = if path.is_empty() { "/" } else { path };
        match name {
            "@method" => Some(self.method.as_str().to_owned()),
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
        if self.secure { "https" } else { "http" }
    }

    /// In lower case, without the port that the scheme has anyway (RFC 9421, 2.2.3).
    fn authority(&self) -> Option<String> {
        let host = single(self.headers, header::HOST)?.to_str().ok()?.to_ascii_lowercase();
        let usual = if self.secure { ":443" } else { ":80" };
        Some(host.strip_suffix(usual).map_or_else(|| host.clone(), str::to_owned))
    }

    /// All lines of a field, trimmed and joined (RFC 9421, 2.1).
    fn field(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all(name);
        let lines: Option<Vec<&str>> = lines.iter().map(|line| HeaderValue::to_str(line).ok().map(str::trim)).collect();
        lines.filter(|lines| !lines.is_empty()).map(|lines| lines.join(", "))
    }
}
