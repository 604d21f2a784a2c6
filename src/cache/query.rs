//! Which part of a query tells answers apart.
//!
//! A parameter that the key leaves out still reaches the backend, so that whoever can hide one parameter in another can
//! have a wrong answer kept for everybody. Names are therefore compared decoded, and what holds a `;`, which some backends
//! split at, always makes a difference. So does what some backends take for a parameter that counts: PHP leaves out spaces at the
//! beginning, reads `.`, a space and `[` as `_`, and ends names at a NUL; there and elsewhere `a[]`, `a[b]` and `[a]` are `a`; and
//! ASP.NET reads names without regard to case.

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
        let counts = |part: &&str| match self {
            Self::Whole => true,
            Self::Include(names) => part.contains(';') || may_be_one_of(part, names),
            Self::Exclude(names) => part.contains(';') || !is_one_of(part, names),
        };
        if query.split('&').all(|part| counts(&part)) {
            return Some(Cow::Borrowed(query));
        }
        let left: Vec<&str> = query.split('&').filter(counts).collect();
        if left.is_empty() { None } else { Some(Cow::Owned(left.join("&"))) }
    }
}

/// The name of a parameter, decoded.
fn name(part: &str) -> Cow<'_, [u8]> {
    percent_decode(part.split('=').next().unwrap_or_default().as_bytes()).into()
}

/// True when it has exactly one of these names.
fn is_one_of(part: &str, names: &[String]) -> bool {
    let name = name(part);
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => *name == *known.as_bytes(),
    })
}

/// True when some backend may take its name for one of these.
fn may_be_one_of(part: &str, names: &[String]) -> bool {
    let name = name(part);
    let base = name.trim_ascii_start();
    let base = base.split(|byte| b"[].\0".contains(byte)).find(|base| !base.is_empty()).unwrap_or_default();
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => begins(alike(&name), alike(start.as_bytes())) || begins(alike(base), alike(start.as_bytes())),
        None => alike(&name).eq(alike(known.as_bytes())) || alike(base).eq(alike(known.as_bytes())),
    })
}

/// A name as PHP reads it, and without regard to case.
fn alike(name: &[u8]) -> impl Iterator<Item = u8> {
    let bytes = name.iter().skip_while(|byte| matches!(byte, b' ' | b'+')).take_while(|byte| **byte != 0);
    bytes.map(|byte| if matches!(byte, b' ' | b'+' | b'.' | b'[') { b'_' } else { byte.to_ascii_lowercase() })
}

fn begins(name: impl Iterator<Item = u8>, start: impl Iterator<Item = u8>) -> bool {
    let mut name = name;
    start.into_iter().all(|byte| name.next() == Some(byte))
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
    fn what_a_backend_may_take_for_one_that_is_included_counts() {
        let rule = QueryRule::Include(names(&["a", "x.y", "page_*"]));
        for part in [
            "%20a=2",
            "+a=2",
            "%20+%20a",
            "%09a=2",
            "a[]=2",
            "a%5Bb%5D=2",
            "[a]=2",
            "a.b=2",
            "a%00b=2",
            "x_y=2",
            "x%20y=2",
            "x+y=2",
            "x[y=2",
            "+x.y=2",
            "page.size",
            "page+size=2",
            "page[size]=2",
            "+page_size=2",
            "p[a]ge;",
            "A=2",
            "X_Y=2",
            "Page_size=2",
        ] {
            assert_eq!(rule.apply(&format!("a=1&{part}&z")).as_deref(), Some(format!("a=1&{part}").as_str()), "{part}");
        }
        for part in ["ab=2", "a%20=2", "b[a]=2", "xy=2", "page=2", "_a=2", "", "=a", "[]", "+"] {
            assert_eq!(rule.apply(&format!("a=1&{part}")).as_deref(), Some("a=1"), "{part}");
        }
        // What is left out is so by its exact name.
        let rule = QueryRule::Exclude(names(&["a", "x.y"]));
        assert_eq!(rule.apply("a&+a&a[]&A&x_y&x.y").as_deref(), Some("+a&a[]&A&x_y"));
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
