//! The name and the password of a request: in one field, in one way, and nowhere else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, header};

use crate::auth::LONGEST_CREDENTIALS;

/// A longer field is nobody's: four characters of base64 are three bytes.
const LONGEST: usize = LONGEST_CREDENTIALS / 3 * 4;

/// What a request carries.
#[derive(PartialEq, Eq)]
pub(super) enum Presented {
    /// No password: the field is not there, or holds credentials of another kind.
    Nothing,
    /// These.
    Credentials(Credentials),
    /// Something that is meant as a name with a password, and cannot be read in one way only.
    Malformed,
}

/// A name with a password.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    text: String,
    colon: usize,
}

impl Credentials {
    /// Without a colon: the first one ends it (RFC 7617 §2).
    pub(super) fn name(&self) -> &str {
        &self.text[..self.colon]
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.text.as_bytes()[self.colon + 1..]
    }
}

/// What is carried in `Authorization` as `Basic`.
pub(super) fn presented(headers: &HeaderMap) -> Presented {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Presented::Nothing };
    if values.next().is_some() {
        return Presented::Malformed;
    }
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at(bytes.iter().position(|byte| b" \t,".contains(byte)).unwrap_or(bytes.len()));
    // The scheme's name is case-insensitive (RFC 9110 §11.1).
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Presented::Nothing;
    }
    read(rest).map_or(Presented::Malformed, Presented::Credentials)
}

fn read(rest: &[u8]) -> Option<Credentials> {
    let token = rest.strip_prefix(b" ")?.trim_ascii();
    if token.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    // Neither of the two may have any (RFC 7617 §2).
    if text.contains(char::is_control) {
        return None;
    }
    let colon = text.find(':')?;
    Some(Credentials { text, colon })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use http::HeaderValue;

    use super::*;

    fn said(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        match presented(&headers) {
            Presented::Nothing => "nothing".to_owned(),
            Presented::Malformed => "malformed".to_owned(),
            Presented::Credentials(shown) => {
                format!("{} / {}", shown.name(), String::from_utf8_lossy(shown.password()))
            }
        }
    }

    #[test]
    fn a_password_stands_in_one_place_in_one_way() {
        let basic = |text: &[u8]| format!("Basic {}", STANDARD.encode(text)).into_bytes();
        for (values, expected) in [
            (vec![], "nothing"),
            (vec![b"Bearer a".to_vec()], "nothing"),
            (vec![b"Basicx YTpi".to_vec()], "nothing"),
            (vec![b"Basic YTpi".to_vec()], "a / b"),
            (vec![b"bASIC   YTpi ".to_vec()], "a / b"),
            (vec![basic(b"a:b:c")], "a / b:c"),
            (vec![basic(b"a:")], "a / "),
            (vec![basic(b":b")], " / b"),
            (vec![basic("ä:€".as_bytes())], "ä / €"),
            (vec![b"Basic".to_vec()], "malformed"),
            (vec![b"Basic ".to_vec()], "malformed"),
            (vec![b"Basic\tYTpi".to_vec()], "malformed"),
            (vec![b"Basic,YTpi".to_vec()], "malformed"),
            (vec![b"Basic YTpi YTpi".to_vec()], "malformed"),
            (vec![b"Basic YTpi,YTpi".to_vec()], "malformed"),
            (vec![b"Basic YTp".to_vec()], "malformed"),
            (vec![b"Basic YQ".to_vec()], "malformed"),
            (vec![b"Basic YTpj=".to_vec()], "malformed"),
            (vec![b"Basic \xff".to_vec()], "malformed"),
            (vec![b"Basic !!!!".to_vec()], "malformed"),
            (vec![basic(b"ab")], "malformed"),
            (vec![basic(b"a\n:b")], "malformed"),
            (vec![basic(b"a:b\0")], "malformed"),
            (vec![basic("a:b\u{85}".as_bytes())], "malformed"),
            (vec![basic(b"a:\xff")], "malformed"),
            (vec![basic(format!("a:{}", "b".repeat(1000)).as_bytes())], "malformed"),
            (vec![b"Basic YTpi".to_vec(), b"Basic YTpi".to_vec()], "malformed"),
            (vec![b"Bearer a".to_vec(), b"Basic YTpi".to_vec()], "malformed"),
        ] {
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            assert_eq!(said(&values), expected, "{:?}", values.first().map(|value| String::from_utf8_lossy(value)));
        }
    }
}
