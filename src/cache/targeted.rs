//! Fields for caches like this one alone (RFC 9213): `Tollgate-Cache-Control`, and `CDN-Cache-Control`. They are dictionaries
//! of structured fields (RFC 9651 §3.2), which is a stricter grammar than that of `Cache-Control`: one that has a mistake
//! in it counts as if it were not there, and so does one in which a directive that is known here has a value of the wrong
//! type.
//!
//! `Tollgate-Cache-Control` is for this gateway, which takes it off the answer; `CDN-Cache-Control` goes on to the client,
//! for there may be more caches on the way (RFC 9213 §2.1).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::{ResponseDirectives, scope, widen};
use crate::message::fields;

/// For this gateway alone; not sent on.
pub const TOLLGATE_CACHE_CONTROL: HeaderName = HeaderName::from_static("tollgate-cache-control");
/// For all caches that stand before the backend.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

static FIELDS: [HeaderName; 2] = [TOLLGATE_CACHE_CONTROL, CDN_CACHE_CONTROL];

/// What the answer with these fields says to this cache: `Tollgate-Cache-Control`, or else `CDN-Cache-Control`, or else
/// `Cache-Control`. The first that is there, not empty and without a mistake counts, and no other.
pub fn read(headers: &HeaderMap) -> ResponseDirectives {
    of(headers).unwrap_or_else(|| ResponseDirectives::of_cache_control(headers))
}

fn of(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let there = fields::present(headers, &FIELDS);
    FIELDS.iter().zip(there).filter(|(_, there)| *there).find_map(|(field, _)| {
        let lines: Vec<&[u8]> = headers.get_all(field).iter().map(HeaderValue::as_bytes).collect();
        directives(dictionary(&lines.join(&b", "[..]))?)
    })
}

fn directives(members: Vec<(String, Value)>) -> Option<ResponseDirectives> {
    let mut this = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    if members.is_empty() {
        return None;
    }
    for (name, value) in members {
        // A negative number is stale.
        let seconds = |value: &Value| match value {
            Value::Integer(seconds) => Some(Some(u64::try_from(*seconds).unwrap_or(0).min(1 << 31))),
            _ => None,
        };
        match name.as_str() {
            "max-age" => this.max_age = seconds(&value)?,
            "s-maxage" => this.s_maxage = seconds(&value)?,
            "stale-while-revalidate" => this.stale_while_revalidate = seconds(&value)?,
            "stale-if-error" => this.stale_if_error = seconds(&value)?,
            "private" | "no-cache" => {
                let scope = match &value {
                    Value::Boolean(true) => scope(None),
                    Value::Boolean(false) => continue,
                    Value::Text(names) => scope(Some(names)),
                    _ => return None,
                };
                widen(if name == "private" { &mut this.private } else { &mut this.no_cache }, scope);
            }
            name if value == Value::Boolean(true) => this.flag(name.as_bytes()),
            _ => {}
        }
    }
    Some(this)
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Integer(i64),
    Boolean(bool),
    /// A string or a token.
    Text(Vec<u8>),
    /// What no directive has: a decimal, bytes, a date, an inner list.
    Other,
}

/// Reads a dictionary (RFC 9651 §4.2.2); of members with one name the last counts.
fn dictionary(text: &[u8]) -> Option<Vec<(String, Value)>> {
    let text = text.trim_ascii();
    let mut reader = Reader { rest: text };
    let mut members: Vec<(String, Value)> = Vec::new();
    while !reader.rest.is_empty() {
        let name = reader.key()?;
        let value = if reader.take(b'=') { reader.item_or_list()? } else { Value::Boolean(true) };
        reader.parameters()?;
        members.retain(|(known, _)| *known != name);
        members.push((name, value));
        reader.space();
        if reader.rest.is_empty() {
            break;
        }
        if !reader.take(b',') {
            return None;
        }
        reader.space();
        if reader.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl<'t> Reader<'t> {
    fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn while_in(&mut self, allowed: impl Fn(u8) -> bool) -> &'t [u8] {
        let end = self.rest.iter().position(|byte| !allowed(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        if !matches!(self.rest.first()?, b'a'..=b'z' | b'*') {
            return None;
        }
        let key = self.while_in(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'));
        String::from_utf8(key.to_vec()).ok()
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.rest = self.rest.trim_ascii_start();
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            self.space();
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.rest.first()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Value> {
        match *self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'a'..=b'z' | b'A'..=b'Z' | b'*' => {
                let token = self.while_in(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Value::Text(token.to_vec()))
            }
            b'?' => {
                self.take(b'?');
                if self.take(b'1') {
                    return Some(Value::Boolean(true));
                }
                self.take(b'0').then_some(Value::Boolean(false))
            }
            b':' => {
                self.take(b':');
                self.while_in(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':').then_some(Value::Other)
            }
            b'@' => {
                self.take(b'@');
                self.number().filter(|value| *value != Value::Other).map(|_| Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let digits = self.while_in(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.while_in(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Value::Other);
        }
        if !(1..=15).contains(&digits.len()) {
            return None;
        }
        let number = digits.iter().fold(0i64, |number, byte| number * 10 + i64::from(byte - b'0'));
        Some(Value::Integer(sign * number))
    }

    fn string(&mut self) -> Option<Value> {
        self.take(b'"');
        let mut out = Vec::new();
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(Value::Text(out)),
                b'\\' => {
                    let (byte, rest) = self.rest.split_first().filter(|(byte, _)| matches!(byte, b'"' | b'\\'))?;
                    self.rest = rest;
                    out.push(*byte);
                }
                0x20..=0x7e => out.push(*byte),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::header;
    use proptest::prelude::*;

    use super::{super::directives::Scope, *};

    fn cdn(lines: &[&str]) -> Option<ResponseDirectives> {
        of(&lines.iter().map(|line| (CDN_CACHE_CONTROL, HeaderValue::from_str(line).unwrap())).collect())
    }

    #[test]
    fn a_dictionary_without_a_mistake_counts() {
        for (text, expected) in [
            ("max-age=3600", Some(3600)),
            ("max-age=99999999999", Some(1 << 31)),
            ("foobar, max-age=3600", Some(3600)),
            ("max-age=1;x=2;y, foo=(a b;c \"d\"), bar=?0, baz=:YQ==:, at=@12, dec=-1.5", Some(1)),
            ("max-age=1, max-age=2", Some(2)),
            ("max-age=-1", Some(0)),
            ("foo", None),
        ] {
            let read = cdn(&[text]).unwrap();
            assert!(read.targeted);
            assert_eq!(read.max_age, expected, "{text}");
        }
        assert_eq!(cdn(&["foo", "max-age=2"]).unwrap().max_age, Some(2));
        let flags = cdn(&["no-store, must-revalidate=?1, public=?0, private=\"a\", no-cache"]).unwrap();
        assert!(flags.no_store && flags.must_revalidate && !flags.public);
        assert_eq!(flags.private, Some(Scope::Fields(vec![HeaderName::from_static("a")])));
        assert_eq!(flags.no_cache, Some(Scope::Everything));
    }

    #[test]
    fn any_mistake_makes_it_nothing() {
        for text in [
            "",
            " ",
            "max-age=10000, &&&&&",
            "max-age=\"10000\"",
            "max-age=a",
            "max-age",
            "max-age =100",
            "max-age= 100",
            "MaX-aGe=3600",
            "max-age=1,",
            "max-age=1 foo",
            "max-age=1234567890123456",
            "max-age=1.",
            "max-age=1.5",
            "private=1",
            "a=\"b",
            "a=(b",
            "a=(b\"c\")",
            "a=?2",
            "a=:b",
            "a=@1.5",
            "a;B",
        ] {
            assert_eq!(cdn(&[text]), None, "{text}");
        }
    }

    #[test]
    fn our_own_goes_first() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3"));
        let read = |headers: &HeaderMap| {
            let read = read(headers);
            (read.max_age, read.targeted)
        };
        assert_eq!(read(&headers), (Some(3), false));
        headers.insert(CDN_CACHE_CONTROL, HeaderValue::from_static("max-age=2"));
        assert_eq!(read(&headers), (Some(2), true));
        headers.insert(TOLLGATE_CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        assert_eq!(read(&headers), (Some(1), true));
        headers.insert(TOLLGATE_CACHE_CONTROL, HeaderValue::from_static("max-age=x"));
        assert_eq!(read(&headers), (Some(2), true));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c\",\\\\ =0-9;()?:@*.-]{0,40}") {
            let _ = cdn(&[&text]);
        }
    }
}
