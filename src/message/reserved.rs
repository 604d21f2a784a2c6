//! Fields that only the gateway may send to backends: who the client is, as the steps of any route tell it. A backend that
//! believes such a field on one path believes it on every path, so a client's own is taken away on all routes, also on
//! those without the step. Underscore spellings are the same field to many a backend (CGI's variables, WSGI).

use http::HeaderName;

/// Names that are the gateway's by default, whatever is configured.
const ALWAYS: [&str; 3] = ["x-consumer-id", "x-auth-subject", "x-attempts"];

/// The reserved names of one configuration.
#[derive(Debug, Clone, Default)]
pub struct ReservedHeaders {
    /// With dashes for underscores, sorted, each once; without those of `ALWAYS`.
    names: Vec<Box<str>>,
    /// A bit for each length (modulo 64) of a name: nearly every other field is told apart by it alone.
    lengths: u64,
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

impl ReservedHeaders {
    /// Reserves `names` beside those that always are.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names = names.into_iter().map(|name| dashed(name.as_str()).into_boxed_str());
        let mut names: Vec<_> = names.filter(|name| !ALWAYS.contains(&&**name)).collect();
        names.sort_unstable();
        names.dedup();
        let lengths = ALWAYS.into_iter().chain(names.iter().map(AsRef::as_ref)).fold(0, |sum, name| sum | bit(name));
        Self { names, lengths }
    }

    /// True for a field that no client may send, in either spelling. `name` is in lower case, as parsed names are.
    pub(crate) fn has(&self, name: &str) -> bool {
        if self.lengths & bit(name) == 0 {
            return false;
        }
        if name.bytes().any(|byte| byte == b'_') { self.has_dashed(&dashed(name)) } else { self.has_dashed(name) }
    }

    fn has_dashed(&self, name: &str) -> bool {
        ALWAYS.contains(&name) || self.names.binary_search_by(|known| (**known).cmp(name)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_reserved() {
        let reserved = ReservedHeaders::new([HeaderName::from_static("x_role"), HeaderName::from_static("x-user")]);
        for name in ["x-role", "x_role", "x-user", "x_user", "x-consumer-id", "x_consumer-id", "x-attempts"] {
            assert!(reserved.has(name), "{name}");
        }
        for name in ["x-roles", "role", "x-rolf", "x-forwarded-for", ""] {
            assert!(!reserved.has(name), "{name}");
        }
    }
}
