//! Path patterns of routes: `/users` (exact), `/users/*` (the prefix and all below it), `/users/{id}/orders`.

use std::{borrow::Cow, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::message::path;

/// A path pattern, by segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    pub(crate) segments: Vec<Segment>,
    /// Ends with `/*`.
    pub(crate) prefix: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    Param(String),
}

impl PathPattern {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The values of `{name}` segments in a path that this pattern matches, and the rest below `/*` as `rest`.
    pub fn captures<'p>(&self, path: &'p str) -> Vec<(&str, &'p str)> {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        let mut found = Vec::new();
        for segment in &self.segments {
            let (value, tail) = rest.split_once('/').unwrap_or((rest, ""));
            if let Segment::Param(name) = segment {
                found.push((name.as_str(), value));
            }
            rest = tail;
        }
        if self.prefix {
            found.push(("rest", rest));
        }
        found
    }

    /// True when every path that `other` matches is matched by this pattern as well.
    pub fn covers(&self, other: &Self) -> bool {
        let longer = if self.prefix {
            self.segments.len() <= other.segments.len()
        } else {
            self.segments.len() == other.segments.len() && !other.prefix
        };
        longer
            && self.segments.iter().zip(&other.segments).all(|(mine, theirs)| match (mine, theirs) {
                (Segment::Param(_), _) => true,
                (Segment::Literal(mine), Segment::Literal(theirs)) => mine == theirs,
                (Segment::Literal(_), Segment::Param(_)) => false,
            })
    }

    /// True when both have the same shape: literals where the other has the same literals, names where it has names.
    pub fn same_shape(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// The names that a rewrite may use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let params = self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        });
        params.chain(self.prefix.then_some("rest"))
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let body = text.strip_prefix('/').ok_or_else(|| format!("'{text}' does not begin with a slash"))?;
        let (body, prefix) = match body.strip_suffix('*') {
            Some(rest) if rest.is_empty() || rest.ends_with('/') => (rest.trim_end_matches('/'), true),
            Some(_) => return Err(format!("'{text}': '*' stands for whole segments: write '/*' at the end")),
            None => (body, false),
        };
        let mut segments = Vec::new();
        for part in body.split('/').skip(usize::from(prefix && body.is_empty())) {
            segments.push(segment(part, text)?);
        }
        // Only a final slash leaves an empty segment; paths have none elsewhere once they are normalised.
        let empty = |segment: &Segment| *segment == Segment::Literal(String::new());
        if segments.iter().rev().skip(usize::from(!prefix)).any(empty) {
            return Err(format!("'{text}' is never seen in that spelling: slashes come one at a time"));
        }
        let names: Vec<_> = segments.iter().filter(|s| matches!(s, Segment::Param(_))).collect();
        if names.iter().enumerate().any(|(i, name)| names[..i].contains(name)) {
            return Err(format!("'{text}' uses one name twice"));
        }
        Ok(Self { text: text.to_owned(), segments, prefix })
    }
}

fn segment(part: &str, text: &str) -> Result<Segment, String> {
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let good = !name.is_empty() && name != "rest" && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return if good {
            Ok(Segment::Param(name.to_owned()))
        } else {
            Err(format!("'{{{name}}}' in '{text}' is not a name of letters, digits and '_' ('rest' is taken)"))
        };
    }
    if part.contains(['{', '}', '*', '?', '#']) {
        return Err(format!("'{part}' in '{text}': a segment is literal, or one whole {{name}}, or a final '*'"));
    }
    // The router compares with normalised paths: a pattern that no normalised path equals could never match.
    let spelled = format!("/{part}");
    match path::normalise(&spelled) {
        Ok(same) if same == spelled => Ok(Segment::Literal(part.to_owned())),
        Ok(other) => {
            // The whole of it, as it has to be written.
            let right = text.replacen(&format!("/{part}"), &other, 1);
            Err(format!("'{text}' is never seen in that spelling (did you mean '{right}'?)"))
        }
        Err(e) => Err(format!("'{text}': {}", e.detail())),
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^/",
            "description": "An exact path (/users), a prefix (/users/*) or a pattern (/users/{id})."
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap()
    }

    #[test]
    fn captures_names_and_the_rest() {
        assert_eq!(pattern("/users/{id}/*").captures("/users/7/a/b"), [("id", "7"), ("rest", "a/b")]);
        assert_eq!(pattern("/*").captures("/a/b"), [("rest", "a/b")]);
        assert_eq!(pattern("/users/*").captures("/users"), [("rest", "")]);
    }

    #[test]
    fn covers_what_it_matches() {
        assert!(pattern("/users/*").covers(&pattern("/users/{id}")));
        assert!(pattern("/users/{a}").same_shape(&pattern("/users/{b}")));
        assert!(!pattern("/users/{a}").covers(&pattern("/users/*")));
        assert!(pattern("/*").covers(&pattern("/users")));
    }

    #[test]
    fn refuses_what_could_never_match() {
        for wrong in ["users", "/users*", "/a/{b", "/a/{}", "/a//b", "/a/../b", "/{x}/{x}", "/a b", "/{rest}/*"] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong}");
        }
    }
}
