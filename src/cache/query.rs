//! Which part of a query tells answers apart.
//!
//! A parameter that the key leaves out still reaches the backend, so that whoever can hide one parameter in another can
//! have a wrong answer kept for everybody. Names are therefore compared decoded, and what holds a `;`, which some backends
//! split at, always makes a difference.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Which parameters make a difference. A final `*` of a name stands for any end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryRule {
    /// All of them, and their order.
    Whole,
    /// Only these, in the order of the request.
    Include(Vec<String>),
    /// All but these.
    Exclude(Vec<String>),
}

impl QueryRule {
    /// The part of `query` (without its `?`) that makes a difference; `None` when nothing of it is left.
    pub fn apply<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        let (names, named) = match self {
            Self::Whole => return Some(Cow::Borrowed(query)),
            Self::Include(names) => (names, true),
            Self::Exclude(names) => (names, false),
        };
        let counts = |part: &&str| part.contains(';') || (is_one_of(part, names) == named);
        if query.split('&').all(|part| counts(&part)) {
            return Some(Cow::Borrowed(query));
        }
        let left: Vec<&str> = query.split('&').filter(counts).collect();
        if left.is_empty() { None } else { Some(Cow::Owned(left.join("&"))) }
    }
}

fn is_one_of(part: &str, names: &[String]) -> bool {
    let name = part.split('=').next().unwrap_or_default();
    let name: Cow<'_, [u8]> = percent_decode(name.as_bytes()).into();
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => *name == *known.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn include() {
        let rule = QueryRule::Include(names(&["id", "page*"]));
        for (query, expected) in [
            ("id=1", Some("id=1")),
            ("x=1&id=1&page_size=2&y", Some("id=1&page_size=2")),
            ("page_size=2&id=1", Some("page_size=2&id=1")),
            ("x=1", None),
            ("", None),
            // Hidden ones make a difference.
            ("%69d=5", Some("%69d=5")),
            ("x=1;id=5", Some("x=1;id=5")),
        ] {
            assert_eq!(rule.apply(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn exclude() {
        let rule = QueryRule::Exclude(names(&["utm_*", "fbclid"]));
        for (query, expected) in [
            ("a=1&b=2", Some("a=1&b=2")),
            ("utm_source=x&a=1&fbclid=2", Some("a=1")),
            ("fbclid2=1", Some("fbclid2=1")),
            ("utm_source=x", None),
            ("", Some("")),
            ("%75tm_source=x&a", Some("a")),
            ("utm_source=x;a=2", Some("utm_source=x;a=2")),
        ] {
            assert_eq!(rule.apply(query).as_deref(), expected, "{query}");
        }
        assert_eq!(QueryRule::Whole.apply("a&b").as_deref(), Some("a&b"));
    }
}
