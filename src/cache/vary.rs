//! Which requests an answer with `Vary` is for (RFC 9111 §4.1).
//!
//! Values are compared as what they say, not as how they are written: lines put together, no space around commas, and of
//! languages and codings not the case, and of codings not the order. A German page, marked as one, is also for whoever wants German most.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    list::{all, split},
    refusal::Refusal,
};
use crate::{
    auth::Digest,
    message::{fields, reserved::ReservedHeaders},
    units::Sha256,
};

/// The most fields that `Vary` may name.
const MOST_FIELDS: usize = 16;
/// The most bytes of the values that an answer is kept under.
const MOST_BYTES: usize = 4096;

/// The requests that an answer is for: fields that `Vary` names, in the order of their names, with the values that the
/// request had; `None` for a field that it did not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection(Box<[Selector]>);

/// A field, and its value if there was one.
pub(super) type Selector = (HeaderName, Option<Box<[u8]>>);

/// Fields that the gateway writes for every backend. Host and scheme are in every key, and may be named.
const OURS: [&str; 5] = ["x-forwarded-for", "x-real-ip", "forwarded", "via", "x-request-id"];

/// Checks that an answer can be told from its variants.
///
/// # Errors
/// `Vary` has a `*` in it, names too much or a field that the gateway writes, or the request's values are too long.
pub fn check(request: &HeaderMap, response: &HeaderMap, reserved: &ReservedHeaders) -> Result<(), Refusal> {
    if !response.contains_key(header::VARY) {
        return Ok(());
    }
    let names = names(response)?;
    // What the backend was told is not what the client has sent, by which answers are told apart.
    if names.iter().any(|name| OURS.contains(&name.as_str()) || reserved.has(name.as_str())) {
        return Err(Refusal::VaryAny);
    }
    // Many backends read `X_Field` as `X-Field`.
    if !fields::other_spellings(request, || names.iter()).is_empty() {
        return Err(Refusal::VaryAny);
    }
    small_enough(request, &names)
}

fn small_enough(request: &HeaderMap, names: &[HeaderName]) -> Result<(), Refusal> {
    let values = |name| request.get_all(name).iter().map(HeaderValue::len).sum::<usize>();
    let bytes: usize = names.iter().map(|name| name.as_str().len() + values(name)).sum();
    if bytes > MOST_BYTES { Err(Refusal::VaryTooLarge) } else { Ok(()) }
}

fn names(response: &HeaderMap) -> Result<Vec<HeaderName>, Refusal> {
    let mut names = Vec::new();
    for item in all(response, &header::VARY) {
        // What is not even a name is nothing to compare: as good as any field.
        let name = HeaderName::from_bytes(item).ok().filter(|_| item != b"*").ok_or(Refusal::VaryAny)?;
        names.push(name);
        if names.len() > MOST_FIELDS {
            return Err(Refusal::VaryTooLarge);
        }
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Ok(names)
}

impl Selection {
    /// The requests that the answer is for.
    ///
    /// # Errors
    /// `Vary` has a `*` in it or names too much, or the request's values are too long.
    pub fn of(request: &HeaderMap, response: &HeaderMap) -> Result<Self, Refusal> {
        Self::by(names(response)?, request)
    }

    /// By the fields with these names.
    fn by(names: Vec<HeaderName>, request: &HeaderMap) -> Result<Self, Refusal> {
        small_enough(request, &names)?;
        let pair = |name: HeaderName| {
            let value = value(request, &name).map(|value| value.into_owned().into_boxed_slice());
            (name, value)
        };
        Ok(Self(names.into_iter().map(pair).collect()))
    }

    /// True when the answer, which has these fields, is for this request.
    pub fn matches(&self, request: &HeaderMap, response: &HeaderMap) -> bool {
        self.0.iter().all(|(name, stored)| {
            value(request, name).as_deref() == stored.as_deref()
                || (*name == header::ACCEPT_LANGUAGE && is_wanted_most(request, response))
        })
    }

    /// True when a request with these fields has the same in all that count.
    pub fn is_of(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, stored)| value(request, name).as_deref() == stored.as_deref())
    }

    /// True when an answer for these requests takes the place of one for the `other` ones: it is for the same, or for all.
    pub fn replaces(&self, other: &Self) -> bool {
        self.is_any() || other.is_any() || self == other
    }

    /// True when the answer is for all requests.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells it from other selections by the same fields, and tells nothing of their values.
    pub fn name(&self) -> String {
        if self.is_any() {
            return String::new();
        }
        let mut digest = Sha256::new();
        for (name, value) in &self.0 {
            let value = value.as_deref();
            for part in [name.as_str().as_bytes(), &[u8::from(value.is_some())], value.unwrap_or_default()] {
                digest.update(&(part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        Digest::from_bytes(digest.finish()).to_string()
    }

    /// What the selection is called that a request with these fields makes by the same names; `None` when its values are too long.
    pub fn wanted(&self, request: &HeaderMap) -> Option<String> {
        Some(Self::by(self.names().cloned().collect(), request).ok()?.name())
    }

    /// A request that it is for; `None` where a value cannot stand in one line.
    pub fn request(&self) -> Option<HeaderMap> {
        let mut request = HeaderMap::new();
        for (name, value) in &self.0 {
            if let Some(value) = value {
                request.insert(name, HeaderValue::from_bytes(value).ok()?);
            }
        }
        Some(request)
    }

    /// The fields, and their values.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// Of what [`Self::parts`] has said.
    pub(super) fn of_parts(parts: Vec<Selector>) -> Self {
        Self(parts.into())
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        let one = |(name, value): &Selector| {
            size_of::<Selector>() + name.as_str().len() + value.as_ref().map_or(0, |v| v.len())
        };
        self.0.iter().map(one).sum()
    }
}

/// The value of a field in the form that is compared.
fn value<'h>(request: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut lines = request.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    // What is no list is what it is, byte by byte.
    if [header::COOKIE, header::AUTHORIZATION, header::USER_AGENT, header::REFERER].contains(name) {
        let more: Vec<&[u8]> = lines.collect();
        return Some(if more.is_empty() {
            Cow::Borrowed(first)
        } else {
            Cow::Owned([&[first][..], &more].concat().join(&b'\n'))
        });
    }
    if [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING].contains(name) {
        return Some(Cow::Owned(preferences(request, name)));
    }
    // Nearly always one line without a comma.
    let Some(second) = lines.next() else {
        let plain = !first.contains(&b',');
        return Some(if plain { Cow::Borrowed(first.trim_ascii()) } else { Cow::Owned(joined(split(first, b','))) });
    };
    let all = [first, second].into_iter().chain(lines);
    Some(Cow::Owned(joined(all.flat_map(|line| split(line, b',')))))
}

fn joined<'l>(items: impl Iterator<Item = &'l [u8]>) -> Vec<u8> {
    items.collect::<Vec<_>>().join(&b',')
}

/// Languages or codings in lower case, without the space around `;`; codings in the order of their names. Of languages that
/// are wanted alike, many backends take the first: their order says something.
fn preferences(request: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let plain = |item: &[u8]| -> Vec<u8> {
        let parts: Vec<&[u8]> = split(item, b';').map(<[u8]>::trim_ascii).collect();
        let item = parts.join(&b';').to_ascii_lowercase();
        [&b";q=1"[..], b";q=1.0", b";q=1.00", b";q=1.000"]
            .iter()
            .find_map(|most| item.strip_suffix(*most))
            .map_or(item.clone(), <[u8]>::to_vec)
    };
    let mut items: Vec<Vec<u8>> = all(request, name).map(plain).collect();
    if *name != header::ACCEPT_LANGUAGE {
        items.sort_unstable();
    }
    items.join(&b',')
}

/// True when the answer is in the one language that the request wants more than any other.
fn is_wanted_most(request: &HeaderMap, response: &HeaderMap) -> bool {
    let mut languages = all(response, &header::CONTENT_LANGUAGE);
    let (Some(language), None) = (languages.next(), languages.next()) else { return false };
    let mut best: Option<(&[u8], u16)> = None;
    let mut alone = false;
    for item in all(request, &header::ACCEPT_LANGUAGE) {
        let mut parts = split(item, b';');
        let tag = parts.next().unwrap_or_default();
        let Some(quality) = parts.next().map_or(Some(1000), quality) else { return false };
        match best {
            Some((_, known)) if quality < known => {}
            Some((_, known)) if quality == known => alone = false,
            _ => (best, alone) = (Some((tag, quality)), true),
        }
    }
    alone && best.is_some_and(|(tag, quality)| quality > 0 && tag.eq_ignore_ascii_case(language))
}

/// `q=0.5` in thousandths.
fn quality(parameter: &[u8]) -> Option<u16> {
    let text = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let (whole, fraction) = text.split_first()?;
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0u16,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, place) in digits.iter().zip([100u16, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * place;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// `Vary`, the fields of the request that an answer is stored for and of another one, and whether it is for that too.
    type Case = (&'static str, &'static [Field], &'static [Field], bool);
    type Field = (&'static str, &'static str);

    #[test]
    fn values_are_compared_as_what_they_say() {
        let cases: &[Case] = &[
            ("foo", &[("foo", "1")], &[("foo", "1"), ("other", "3")], true),
            ("foo", &[("foo", "1")], &[("foo", "2")], false),
            ("foo", &[], &[("foo", "1")], false),
            ("foo", &[("foo", "1")], &[], false),
            ("foo", &[], &[], true),
            ("foo", &[("foo", "")], &[], false),
            ("Foo, BAR", &[("foo", "1"), ("bar", "a")], &[("bar", "a"), ("foo", "1")], true),
            ("foo, bar", &[("foo", "1"), ("bar", "a")], &[("bar", "b"), ("foo", "1")], false),
            ("foo, bar, baz", &[("foo", "1"), ("baz", "7")], &[("baz", "7"), ("foo", "1")], true),
            ("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")], true),
            ("foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")], true),
            ("foo", &[("foo", "1,2")], &[("foo", "2,1")], false),
            ("cookie", &[("cookie", "a=1,b")], &[("cookie", "a=1, b")], false),
            ("cookie", &[("cookie", "a=1,b")], &[("cookie", "a=1,b")], true),
            ("foo", &[("foo", "a")], &[("foo", "A")], false),
            ("foo", &[("foo", "\"a, b\"")], &[("foo", "\"a,b\"")], false),
            ("accept-language", &[("accept-language", "en, de")], &[("accept-language", "En,dE")], true),
            ("accept-language", &[("accept-language", "en, de")], &[("accept-language", "de, en")], false),
            ("accept-language", &[("accept-language", "d e")], &[("accept-language", "de")], false),
            ("accept-encoding", &[("accept-encoding", "br, gzip")], &[("accept-encoding", "gzip ,BR")], true),
            ("accept-language", &[("accept-language", "en")], &[("accept-language", "en;q=1.0")], true),
            ("accept-language", &[("accept-language", "en, de")], &[("accept-language", "en, de;q=0.5")], false),
            ("accept-encoding", &[("accept-encoding", "gzip, br")], &[("accept-encoding", "BR, gzip")], true),
            ("accept-encoding", &[("accept-encoding", "gzip, br")], &[("accept-encoding", "gzip")], false),
        ];
        for (vary, stored, request, expected) in cases {
            let response = headers(&[("vary", vary)]);
            let selection = Selection::of(&headers(stored), &response).unwrap();
            assert_eq!(selection.matches(&headers(request), &response), *expected, "{vary}: {stored:?} {request:?}");
        }
        assert!(Selection::of(&headers(&[("foo", "1")]), &HeaderMap::new()).unwrap().is_any());
    }

    #[test]
    fn the_language_that_is_wanted_most() {
        let response = headers(&[("vary", "accept-language"), ("content-language", "de")]);
        let selection = Selection::of(&headers(&[("accept-language", "en, de")]), &response).unwrap();
        for (request, expected) in [
            ("fr;q=0.5, de;q=1.0", true),
            ("DE", true),
            ("fr, de", false),
            ("fr;q=0.5, de;q=0.4", false),
            ("de;q=0", false),
            ("de;q=x, fr;q=0.1", false),
            ("de-AT, fr;q=0.1", false),
        ] {
            let request = headers(&[("accept-language", request)]);
            assert_eq!(selection.matches(&request, &response), expected, "{request:?}");
        }
        let both = headers(&[("vary", "accept-language"), ("content-language", "de, en")]);
        assert!(!selection.matches(&headers(&[("accept-language", "de")]), &both));
    }

    #[test]
    fn what_cannot_be_told_apart() {
        let check = |request: &HeaderMap, response: &HeaderMap| check(request, response, &ReservedHeaders::default());
        for vary in ["via", "Accept, X-Forwarded-For"] {
            assert_eq!(check(&HeaderMap::new(), &headers(&[("vary", vary)])), Err(Refusal::VaryAny), "{vary}");
        }
        for vary in ["*", "*, *", ", *", "*, foo", "foo, *", "foo bar"] {
            let response = headers(&[("vary", vary)]);
            assert_eq!(check(&HeaderMap::new(), &response), Err(Refusal::VaryAny), "{vary}");
        }
        let lines = headers(&[("vary", ""), ("vary", "*")]);
        assert_eq!(check(&HeaderMap::new(), &lines), Err(Refusal::VaryAny));
        let many: Vec<String> = (0..=MOST_FIELDS).map(|number| format!("x{number}")).collect();
        let many = headers(&[("vary", &many.join(","))]);
        assert_eq!(check(&HeaderMap::new(), &many), Err(Refusal::VaryTooLarge));
        let long = headers(&[("foo", &"x".repeat(MOST_BYTES))]);
        assert_eq!(check(&long, &headers(&[("vary", "foo")])), Err(Refusal::VaryTooLarge));
    }

    proptest! {
        #[test]
        fn a_request_is_for_its_own_answer(foo in "[ -~]{0,20}", language in "[ -~]{0,20}") {
            let request = headers(&[("foo", &foo), ("accept-language", &language)]);
            let response = headers(&[("vary", "foo, accept-language, accept"), ("content-language", "de")]);
            prop_assert!(Selection::of(&request, &response).unwrap().matches(&request, &response));
        }
    }
}
