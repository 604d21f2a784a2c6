//! Reading the two JSON objects of a token without leaving room for two opinions about what they say.
//!
//! A name that occurs twice is refused (RFC 7519, 4 allows that): parsers differ in which of the two they take, so that the
//! gateway and the service behind it could see two different tokens. Times are numbers and nothing else.

use std::{fmt, time::Duration};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::identity::{can_be_told, exact, lookup, same};
use crate::auth::jwt_error::JwtError;

/// A JSON object in which, and in the objects inside it, every name is unique: claims are found by path.
pub(super) struct Unique(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_map(Names)? {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(serde::de::Error::custom("not an object")),
        }
    }
}

/// Any value, with unique names.
struct UniqueValue(Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names).map(Self)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with unique names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueValue(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, UniqueValue(value))) = access.next_entry::<String, UniqueValue>()? {
            if map.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a name occurs twice"));
            }
        }
        Ok(map.into())
    }
}

/// When a token is good, leeway included: from `from` on, and until just before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Window {
    /// From `exp` (required), `nbf` and `iat`.
    pub(super) fn of(claims: &Map<String, Value>, leeway: Duration) -> Result<Self, JwtError> {
        let leeway = leeway.as_secs();
        let until = seconds(claims, "exp")?.ok_or_else(|| JwtError::MissingClaim("exp".to_owned()))?;
        let from = seconds(claims, "nbf")?.max(seconds(claims, "iat")?).unwrap_or(0);
        Ok(Self { from: from.saturating_sub(leeway), until: until.saturating_add(leeway) })
    }

    pub(super) fn check(self, now: u64) -> Result<(), JwtError> {
        if now >= self.until {
            Err(JwtError::Expired)
        } else if now < self.from {
            Err(JwtError::NotYet)
        } else {
            Ok(())
        }
    }
}

/// The end of the year 9999, the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

/// A NumericDate, which may have a fraction. Rounding up is exact, as our own clock is in whole seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is meant"
)]
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds =
        value.as_u64().or_else(|| value.as_f64().filter(|value| value.is_finite()).map(|value| value.ceil() as u64));
    // Beyond that it is no time but a slip, milliseconds for instance: a token that would never end.
    seconds.filter(|seconds| *seconds <= LAST).map(Some).ok_or(JwtError::Malformed)
}

/// Checks that the parties of a token, as far as it names them, are what they must be, whoever is accepted: others that read it would
/// make a name of their own out of a list or of null, and nobody is chosen by it here.
pub(super) fn parties(claims: &Map<String, Value>) -> Result<(), JwtError> {
    // A single text (RFC 7519 §4.1.1); a list would let one token speak for several issuers.
    if claims.get("iss").is_some_and(|issuer| !issuer.is_string()) {
        return Err(JwtError::Issuer);
    }
    // A text or a list of texts (§4.1.3).
    let is_audience =
        |value: &Value| value.as_array().map_or(value.is_string(), |all| all.iter().all(Value::is_string));
    if claims.get("aud").is_some_and(|audience| !is_audience(audience)) {
        return Err(JwtError::Audience);
    }
    // A text (§4.1.2), and with many issuers a number.
    if claims.get("sub").is_some_and(|subject| !subject.is_string() && !subject.is_number()) {
        return Err(JwtError::ClaimMismatch("sub".to_owned()));
    }
    Ok(())
}

/// Whether `claims` name one of `accepted` under `name`, as a text or in a list of texts.
pub(super) fn names_one_of(claims: &Map<String, Value>, name: &str, accepted: &[String]) -> Result<bool, JwtError> {
    let is_accepted =
        |value: &Value| value.as_str().is_some_and(|value| accepted.iter().any(|accepted| accepted == value));
    match claims.get(name) {
        None => Err(JwtError::MissingClaim(name.to_owned())),
        Some(Value::Array(values)) => Ok(values.iter().any(is_accepted)),
        Some(value) => Ok(is_accepted(value)),
    }
}

/// Checks that the claim at `path` is there and, with `wanted`, that it is this value or a list that holds it.
pub(super) fn require(claims: &Map<String, Value>, path: &str, wanted: Option<&Value>) -> Result<(), JwtError> {
    let holds = |found: &Value| {
        let is =
            |wanted| same(found, wanted) || found.as_array().is_some_and(|all| all.iter().any(|own| same(own, wanted)));
        wanted.is_none_or(is)
    };
    if lookup(claims, path).is_some_and(holds) { Ok(()) } else { Err(JwtError::NotAllowed(path.to_owned())) }
}

/// The scopes of a token: `scope` as RFC 8693 has it, else `scp` or `scopes` as others do; each a text with spaces or a list of texts
/// and numbers.
pub(super) fn scopes(claims: &Map<String, Value>) -> Vec<String> {
    match ["scope", "scp", "scopes"].iter().find_map(|name| claims.get(*name)) {
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(values)) => values.iter().filter_map(scope).collect(),
        Some(value) => scope(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A scope by itself. A number is one, too: what denies it must see it.
fn scope(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => exact(number),
        _ => None,
    }
}

/// The name of the holder at `path`: a text that is not empty, or a number. Empty when there is none and none is `required`.
pub(super) fn subject(claims: &Map<String, Value>, path: &str, required: bool) -> Result<String, JwtError> {
    match lookup(claims, path) {
        // `sub` is optional (RFC 7519 §4.1.2).
        None if !required => Ok(String::new()),
        // Backends and logs are told it.
        Some(Value::String(text)) if !text.is_empty() && can_be_told(text) => Ok(text.clone()),
        Some(Value::Number(number)) => exact(number).ok_or_else(|| JwtError::ClaimMismatch(path.to_owned())),
        None => Err(JwtError::MissingClaim(path.to_owned())),
        Some(_) => Err(JwtError::ClaimMismatch(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_number_that_was_rounded_names_nobody() {
        let of = |text: &str| {
            let Unique(claims) = serde_json::from_str(&format!("{{\"sub\":{text}}}")).unwrap();
            subject(&claims, "sub", true)
        };
        assert_eq!(of("18446744073709551615").unwrap(), "18446744073709551615");
        assert_eq!(of("1.5").unwrap(), "1.5");
        for rounded in ["18446744073709551616", "10000000000000000000001", "1e22", "-1e22", "9007199254740993.0"] {
            assert!(of(rounded).is_err(), "{rounded}");
        }
    }

    #[test]
    fn parties_are_texts() {
        for (claims, error) in [
            (json!({"iss": ["id"]}), Some(JwtError::Issuer)),
            (json!({"iss": null}), Some(JwtError::Issuer)),
            (json!({"iss": 7}), Some(JwtError::Issuer)),
            (json!({"aud": {"api": true}}), Some(JwtError::Audience)),
            (json!({"aud": null}), Some(JwtError::Audience)),
            (json!({"aud": ["api", 7]}), Some(JwtError::Audience)),
            (json!({"sub": ["alice"]}), Some(JwtError::ClaimMismatch("sub".to_owned()))),
            (json!({"sub": null}), Some(JwtError::ClaimMismatch("sub".to_owned()))),
            (json!({"iss": "id", "aud": ["api", "web"], "sub": 7}), None),
            (json!({}), None),
        ] {
            assert_eq!(parties(&map(&claims)).err(), error, "{claims}");
        }
    }

    #[test]
    fn a_name_may_occur_once() {
        let names = |json: &str| serde_json::from_str::<Unique>(json).map(|unique| unique.0.len()).ok();
        assert_eq!(names(r#"{"a": 1, "b": {"a": 2, "c": [null, -1, 1.5, "x", {"a": true}]}}"#), Some(2));
        assert_eq!(names(r#"{"a": 1, "b": {"a": 2, "a": 3}}"#), None);
        assert_eq!(names(r#"{"a": [{"b": 2, "b": 2}]}"#), None);
        assert_eq!(names(r#"{"a": 1, "a": 1}"#), None);
        assert_eq!(names(r#"{"a": 1, "\u0061": 1}"#), None);
        assert_eq!(names("[]"), None);
        assert_eq!(names("{} {}"), None);
    }

    #[test]
    fn a_window_has_both_ends() {
        let window = |claims| Window::of(&map(&claims), Duration::from_secs(5));
        assert_eq!(window(json!({"exp": 100})), Ok(Window { from: 0, until: 105 }));
        assert_eq!(window(json!({"exp": 100.5, "nbf": 50, "iat": 60.1})), Ok(Window { from: 56, until: 106 }));
        assert_eq!(window(json!({"exp": LAST, "nbf": -7})), Ok(Window { from: 0, until: LAST + 5 }));
        for never in [json!(1e300), json!(LAST + 1), json!(u64::MAX), json!(1_700_000_000_000_u64)] {
            assert_eq!(window(json!({ "exp": never })), Err(JwtError::Malformed), "{never}");
        }
        assert_eq!(window(json!({})), Err(JwtError::MissingClaim("exp".to_owned())));
        for wrong in
            [json!({"exp": "100"}), json!({"exp": null}), json!({"exp": 1, "nbf": true}), json!({"exp": 1, "iat": [1]})]
        {
            assert_eq!(window(wrong.clone()), Err(JwtError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn a_deadline_is_already_too_late() {
        let window = Window { from: 10, until: 20 };
        assert_eq!(window.check(9), Err(JwtError::NotYet));
        assert_eq!(window.check(10), Ok(()));
        assert_eq!(window.check(19), Ok(()));
        assert_eq!(window.check(20), Err(JwtError::Expired));
    }

    #[test]
    fn scopes_come_in_many_spellings() {
        let held = |claims| scopes(&map(&claims));
        assert_eq!(held(json!({"scope": " a  b "})), ["a", "b"]);
        assert_eq!(held(json!({"scp": ["a", "b", 7]})), ["a", "b", "7"]);
        assert_eq!(held(json!({"scopes": "a"})), ["a"]);
        assert_eq!(held(json!({"scope": "a", "scopes": "b"})), ["a"]);
        assert_eq!(held(json!({"scope": ["a", 7]})), ["a", "7"]);
        assert_eq!(held(json!({"scope": 7})), ["7"]);
        assert!(held(json!({"scope": {"a": true}})).is_empty());
    }

    #[test]
    fn a_required_claim_may_be_in_a_list() {
        let claims = map(&json!({"realm": {"roles": ["a", "b"]}, "tier": "gold"}));
        assert_eq!(require(&claims, "realm.roles", Some(&json!("b"))), Ok(()));
        assert_eq!(require(&claims, "tier", None), Ok(()));
        let numbers: Unique =
            serde_json::from_str(r#"{"tier": 7, "text": "7", "big": 10000000000000000000001, "all": [7]}"#).unwrap();
        for (path, wanted) in [("tier", json!(7)), ("tier", json!("7")), ("text", json!(7)), ("all", json!("7"))] {
            assert_eq!(require(&numbers.0, path, Some(&wanted)), Ok(()), "{path} {wanted}");
        }
        assert!(require(&numbers.0, "big", Some(&json!(1e22))).is_err(), "another number, before it was rounded");
        assert_eq!(require(&claims, "tier", Some(&json!("go"))), Err(JwtError::NotAllowed("tier".to_owned())));
        assert_eq!(require(&claims, "realm.x", None), Err(JwtError::NotAllowed("realm.x".to_owned())));
    }
}
