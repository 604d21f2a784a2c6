//! `bypass_if`: what a request has for which no stored answer is.

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode;

/// A name, or a name and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The name.
    pub name: String,
    /// The value that it must have; without one, any.
    pub value: Option<String>,
}

impl Condition {
    /// Reads `name`, or `name=value`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, value)) => Self { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Self { name: text.to_owned(), value: None },
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        self.value.as_ref().is_none_or(|wanted| wanted.as_bytes() == value)
    }
}

/// `bypass_if`: one that holds is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bypass {
    /// Fields; the condition's own name is not looked at.
    pub headers: Vec<(HeaderName, Condition)>,
    /// Cookies.
    pub cookies: Vec<Condition>,
    /// Parameters of the query.
    pub query: Vec<Condition>,
}

impl Bypass {
    /// True when one of them holds.
    pub fn holds(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let header = |(name, condition): &(HeaderName, Condition)| {
            headers.get_all(name).iter().any(|value| condition.holds(value.as_bytes()))
        };
        // Of two cookies with one name, either may be the one that the backend reads.
        let cookie = |condition: &Condition| {
            let lines = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
            lines.map(<[u8]>::trim_ascii).any(|pair| named(pair, condition, false))
        };
        let parameter = |condition: &Condition| {
            query.is_some_and(|query| query.split(['&', ';']).any(|part| named(part.as_bytes(), condition, true)))
        };
        self.headers.iter().any(header) || self.cookies.iter().any(cookie) || self.query.iter().any(parameter)
    }
}

fn named(pair: &[u8], condition: &Condition, encoded: bool) -> bool {
    let at = pair.iter().position(|byte| *byte == b'=');
    let (name, value) = at.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
    if !encoded {
        return name == condition.name.as_bytes() && condition.holds(value);
    }
    let decoded = |text| percent_decode(text).collect::<Vec<u8>>();
    decoded(name) == condition.name.as_bytes() && condition.holds(&decoded(value))
}
