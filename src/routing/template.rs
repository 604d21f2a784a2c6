//! Texts with `{names}` in them, that are filled in for each request: where a redirect leads, what a path becomes.

use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::pattern::PathPattern;

/// Text with `{names}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or_else(|| format!("'{text}': a '{{' without its '}}'"))?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Name(name.to_owned()));
            rest = tail;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }
}

impl Template {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// True when it has `{name}` in it.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.names().any(|used| used == name)
    }

    /// Checks that every name will have a value.
    pub(super) fn check(&self, extra: &[&str], paths: &[PathPattern]) -> Result<(), String> {
        for name in self.names() {
            if !extra.contains(&name) && !paths.iter().all(|path| path.names().any(|known| known == name)) {
                let known: Vec<_> = extra.iter().copied().chain(paths.iter().flat_map(PathPattern::names)).collect();
                return Err(match crate::units::nearest(name, known.iter().copied()) {
                    Some(right) => format!("nothing is called '{{{name}}}' here (did you mean '{{{right}}}'?)"),
                    None => format!("nothing is called '{{{name}}}' here (known: {})", known.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// Checks that what follows the query can only be a fragment: a query in a fragment is none.
    pub(super) fn check_fragment(&self) -> Result<(), String> {
        let mut fragment = false;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => fragment |= text.contains('#'),
                Piece::Name(name) if fragment && name == "query" => {
                    return Err("{query} belongs before the '#': what follows that is not sent".to_owned());
                }
                Piece::Name(_) => {}
            }
        }
        Ok(())
    }

    /// Checks that `text`, which it was read from, is a path as backends are sent it.
    pub(super) fn check_path(&self, text: &str) -> Result<(), String> {
        for piece in &self.0 {
            if let Piece::Text(literal) = piece {
                path_only(literal).map_err(|why| format!("'{text}': {why}"))?;
            }
        }
        // Any value would do: names stand for whole or parts of segments.
        let sample = self.fill(|_, out| out.push('x'));
        match crate::message::path::normalise(&sample) {
            Ok(same) if same == sample => Ok(()),
            Ok(other) if sample == text => {
                Err(format!("'{text}' is not sent in that spelling (did you mean '{other}'?)"))
            }
            Ok(_) => Err(format!("'{text}' is not sent in that spelling")),
            Err(e) => Err(format!("'{text}': {}", e.detail())),
        }
    }

    pub(super) fn fill(&self, value: impl Fn(&str, &mut String)) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Name(name) => value(name, &mut out),
            }
        }
        out
    }
}

/// Says what in a literal part of a path is none (RFC 3986 §3.3).
fn path_only(text: &str) -> Result<(), String> {
    for (at, found) in text.char_indices() {
        match found {
            '?' => return Err("a query stays as it is: write the path alone".to_owned()),
            '%' => {
                let hex = |i: usize| text.as_bytes().get(at + i).is_some_and(u8::is_ascii_hexdigit);
                if !(hex(1) && hex(2)) {
                    return Err("'%' is not followed by two hexadecimal digits".to_owned());
                }
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' => {}
            _ if "/-._~!$&'()*+,;=:@".contains(found) => {}
            _ => {
                let mut utf8 = [0; 4];
                let escaped = percent_encode(found.encode_utf8(&mut utf8).as_bytes(), NON_ALPHANUMERIC);
                return Err(format!("'{found}' in it must be written {escaped}"));
            }
        }
    }
    Ok(())
}
