//! Where a request carries its token: in one header, in one way, and nowhere else.

use http::{HeaderMap, HeaderName, header};

/// What a request carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<'h> {
    /// No token: the header is not there, or holds another kind of credentials.
    Nothing,
    /// This one.
    Token(&'h str),
    /// Something that is meant as a token and cannot be read as one.
    Malformed,
    /// More than one.
    Several,
}

/// What is carried in `name`: as `Bearer` in `Authorization`, bare in any other field.
pub(super) fn presented<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Presented<'h> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Presented::Nothing };
    if values.next().is_some() {
        return Presented::Several;
    }
    let Ok(text) = value.to_str() else { return Presented::Malformed };
    let token = if name == header::AUTHORIZATION {
        let (scheme, rest) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        // The scheme's name is case-insensitive (RFC 9110 §11.1).
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Presented::Nothing;
        }
        let Some(token) = rest.strip_prefix(' ') else { return Presented::Malformed };
        token.trim_matches(' ')
    } else {
        text
    };
    if token.is_empty() { Presented::Malformed } else { Presented::Token(token) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_stands_in_one_place_in_one_way() {
        use Presented::{Malformed, Nothing, Several, Token};
        let other = HeaderName::from_static("x-token");
        for (field, values, expected) in [
            (&header::AUTHORIZATION, vec![], Nothing),
            (&header::AUTHORIZATION, vec!["Bearer a.b.c"], Token("a.b.c")),
            (&header::AUTHORIZATION, vec!["bEARER  a.b.c "], Token("a.b.c")),
            (&header::AUTHORIZATION, vec!["Basic a"], Nothing),
            (&header::AUTHORIZATION, vec!["Bearera a"], Nothing),
            (&header::AUTHORIZATION, vec!["Bearer"], Malformed),
            (&header::AUTHORIZATION, vec!["Bearer "], Malformed),
            (&header::AUTHORIZATION, vec!["Bearer\ta.b.c"], Malformed),
            (&header::AUTHORIZATION, vec!["Bearer,a"], Malformed),
            (&header::AUTHORIZATION, vec!["Bearer caf\u{e9}"], Malformed),
            (&header::AUTHORIZATION, vec!["Bearer a", "Bearer a"], Several),
            (&header::AUTHORIZATION, vec!["Basic a", "Bearer a"], Several),
            (&other, vec!["a.b.c"], Token("a.b.c")),
            (&other, vec![""], Malformed),
            (&other, vec!["a", "b"], Several),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(field, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(presented(&headers, field), expected, "{values:?}");
        }
    }
}
