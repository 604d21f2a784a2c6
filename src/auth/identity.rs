//! What a verified credential says about its holder, whatever kind of credential it was.
//!
//! It does not decide what the holder may do.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Number, Value};

use super::Digest;

/// The kind of credential that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A secret that we know the digest of.
    ApiKey,
    /// A signed JSON Web Token.
    Jwt,
    /// The certificate of a TLS connection.
    Certificate,
    /// A MAC over the request.
    Signature,
    /// A name and a password.
    Basic,
    /// What another service has said.
    ForwardAuth,
    /// Nothing: whoever shows no credential.
    Anonymous,
}

impl Method {
    /// The name for logs and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
            Self::Signature => "signature",
            Self::Basic => "basic",
            Self::ForwardAuth => "forward_auth",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Who sent a request, by each kind of credential that was verified: a key of one owner and a token of another may come
/// together, and neither stands in for the other.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    known: Vec<Arc<Identity>>,
    unnamed: Option<Digest>,
    told: Option<Arc<[&'static str]>>,
}

impl Identities {
    /// Notes a verified credential; one of the same kind is replaced.
    pub fn note(&mut self, identity: Arc<Identity>) {
        self.known.retain(|known| known.method != identity.method);
        self.known.push(identity);
    }

    /// Notes what was shown by a client that has passed without a name: it is who that client is, for whatever keeps clients apart.
    pub fn note_unnamed(&mut self, shown: Digest) {
        self.unnamed = Some(shown);
    }

    /// What such a client has shown.
    pub fn unnamed(&self) -> Option<&Digest> {
        self.unnamed.as_ref()
    }

    /// Notes which claims [of a token](OF_THE_TOKEN) backends are told: answers may differ by them.
    pub fn note_told(&mut self, claims: Arc<[&'static str]>) {
        self.told = Some(claims);
    }

    /// Those claims.
    pub fn told(&self) -> &[&'static str] {
        self.told.as_deref().unwrap_or_default()
    }

    /// Notes all that another step has found.
    pub fn note_all(&mut self, found: Self) {
        let Self { known, unnamed, told } = found;
        for identity in known {
            self.note(identity);
        }
        self.unnamed = unnamed.or(self.unnamed.take());
        self.told = told.or(self.told.take());
    }

    /// The holder of the credential of this kind.
    pub fn by(&self, method: Method) -> Option<&Arc<Identity>> {
        self.known.iter().find(|identity| identity.method == method)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.known.iter()
    }

    /// The one that was verified last: with several steps, the most particular one.
    pub fn last(&self) -> Option<&Arc<Identity>> {
        self.known.last()
    }

    /// The claim at `path`: of the token, if there is one among the credentials, for tokens are what is known to have claims.
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        self.by(Method::Jwt).or_else(|| self.last())?.claim(path)
    }

    /// The same, and one that is a list or an object as JSON.
    pub fn whole_claim(&self, path: &str) -> Option<Cow<'_, str>> {
        self.by(Method::Jwt).or_else(|| self.last())?.whole_claim(path)
    }

    /// The id of the key that was used: of the API key, if there is one among the credentials.
    pub fn key_id(&self) -> Option<&str> {
        self.by(Method::ApiKey).or_else(|| self.last())?.key_id.as_deref()
    }
}

/// Claims that differ from one token to the next and say nothing about its holder (RFC 7519 §4.1).
pub const OF_THE_TOKEN: [&str; 6] = ["exp", "iat", "nbf", "jti", "auth_time", "nonce"];

/// A claim that no field can carry, or that would be another one when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untellable;

/// The holder of a verified credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Who it is: the owner of the key, or the subject of the token; empty for a token that names nobody.
    pub subject: String,
    /// How that was shown.
    pub method: Method,
    /// What the credential was issued for.
    pub scopes: Vec<String>,
    /// All else the credential says; for a token, its claims.
    pub claims: Map<String, Value>,
    /// Which key it was: the id of the API key, or the `kid` of the key that signed the token.
    pub key_id: Option<String>,
}

impl Identity {
    /// Who it is, when the credential says so.
    pub fn name(&self) -> Option<&str> {
        Some(self.subject.as_str()).filter(|name| !name.is_empty())
    }

    /// The text, number or boolean at `path`; its parts are separated by dots, as in `realm.tenant`.
    ///
    /// A name that contains dots itself, such as `https://example.com/role`, is found too. Lists, objects and null are `None`.
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        text(self.lookup(path)?)
    }

    /// The claim at `path` as a text, and one that is a list or an object as JSON: whoever has another one is told apart. `None` when it
    /// is absent or null.
    pub fn whole_claim(&self, path: &str) -> Option<Cow<'_, str>> {
        let value = self.lookup(path)?;
        text(value).or_else(|| (!value.is_null()).then(|| value.to_string().into()))
    }

    /// What a service has said stands under the names of fields, which have no case.
    fn lookup(&self, path: &str) -> Option<&Value> {
        match self.method {
            Method::ForwardAuth => lookup(&self.claims, &path.to_ascii_lowercase()),
            _ => lookup(&self.claims, path),
        }
    }

    /// The claim at `path` as a field tells it to backends: a list with commas between its members. `None` when it is absent,
    /// null, or a list without members.
    ///
    /// # Errors
    /// It is an object, or a backend would read something else in it.
    pub fn told(&self, path: &str) -> Result<Option<Cow<'_, str>>, Untellable> {
        let tellable = |value| text(value).filter(|text| can_be_told(text)).ok_or(Untellable);
        match lookup(&self.claims, path) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(members)) => {
                let member = |value| tellable(value).ok().filter(|text| !text.is_empty() && !text.contains(','));
                let members: Option<Vec<_>> = members.iter().map(member).collect();
                let list = members.ok_or(Untellable)?.join(", ");
                Ok((!list.is_empty()).then_some(Cow::Owned(list)))
            }
            Some(value) => tellable(value).map(Some),
        }
    }

    /// Whether one of `wanted` is at `path`: in a list of texts and numbers, or in a text of words. What was read from a field is a list of what
    /// stands between commas, also when that is one: a space is part of a group's name there.
    pub fn holds_one_of(&self, path: &str, wanted: &[String]) -> bool {
        match self.lookup(path) {
            Some(Value::String(words)) if self.method != Method::ForwardAuth => {
                words.split_ascii_whitespace().any(|word| wanted.iter().any(|wanted| wanted == word))
            }
            _ => self.is_one_of(path, wanted),
        }
    }

    /// Whether what is at `path`, or one of the members of a list there, is one of `wanted`.
    pub fn is_one_of(&self, path: &str, wanted: &[String]) -> bool {
        let is_wanted = |held: &Value| text(held).is_some_and(|held| wanted.iter().any(|wanted| *wanted == held));
        match self.lookup(path) {
            Some(Value::Array(members)) => members.iter().any(is_wanted),
            Some(value) => is_wanted(value),
            None => false,
        }
    }

    /// Whether the credential was issued for `scope`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }
}

/// Whether a text comes to a backend as it is: without control characters, and without spaces around it, which whoever reads a
/// field takes away (RFC 9110, 5.5), so that it would be another's name there.
pub(super) fn can_be_told(text: &str) -> bool {
    !text.contains(char::is_control) && text.trim() == text
}

/// A number as a text; nothing when it has been rounded as it was read, and may stand for others, too.
pub(super) fn exact(number: &Number) -> Option<String> {
    // Whole numbers of 64 bits are read as they are, all others as `f64` (RFC 8259 §6).
    const ROUNDED: f64 = 9_007_199_254_740_992.0;
    let is_exact = !number.is_f64() || number.as_f64().is_some_and(|value| value.abs() < ROUNDED);
    is_exact.then(|| number.to_string())
}

/// A text, number or boolean.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => exact(number).map(Cow::Owned),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The value at a dotted path; the whole path as one name comes first, then the shortest name that leads further.
pub(super) fn lookup<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| match claims.get(&path[..dot]) {
            Some(Value::Object(inner)) => lookup(inner, &path[dot + 1..]),
            _ => None,
        })
    })
}

/// Whether two values are the same; a number is compared with a number or a text as it is written, and one that was rounded is none.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    if one.is_number() || other.is_number() {
        text(one).is_some_and(|one| text(other).is_some_and(|other| one == other))
    } else {
        one == other
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(claims: Value) -> Identity {
        let Value::Object(claims) = claims else { panic!("an object") };
        let scopes = vec!["read".to_owned(), "write".to_owned()];
        Identity { subject: "alice".to_owned(), method: Method::Jwt, scopes, claims, key_id: None }
    }

    #[test]
    fn a_claim_is_found_by_its_path() {
        let identity = identity(json!({
            "tier": "gold", "age": 7, "admin": true, "off": false, "none": null, "list": ["x"],
            "realm": { "tenant": "acme", "deep": { "er": 1.5 } }, "https://example.com/role": "owner", "a.b": { "c.d": "e" },
        }));
        let claim = |path| identity.claim(path);
        assert_eq!(claim("tier").as_deref(), Some("gold"));
        assert_eq!(claim("age").as_deref(), Some("7"));
        assert_eq!(claim("admin").as_deref(), Some("true"));
        assert_eq!(claim("off").as_deref(), Some("false"));
        assert_eq!(claim("realm.tenant").as_deref(), Some("acme"));
        assert_eq!(claim("realm.deep.er").as_deref(), Some("1.5"));
        assert_eq!(claim("https://example.com/role").as_deref(), Some("owner"));
        assert_eq!(claim("a.b.c.d").as_deref(), Some("e"));
        for absent in ["", ".", "realm", "realm.", "realm.none", "none", "list", "list.0", "tier.x"] {
            assert_eq!(claim(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_single_group_with_a_space_is_one_group() {
        let token = identity(json!({ "groups": "not admin", "list": ["not admin"] }));
        let service = Identity { method: Method::ForwardAuth, ..token.clone() };
        let [admin, whole] = ["admin", "not admin"].map(|role| vec![role.to_owned()]);
        assert!(token.holds_one_of("groups", &admin) && !token.holds_one_of("groups", &whole));
        assert!(!service.holds_one_of("groups", &admin) && service.holds_one_of("groups", &whole));
        assert!(service.holds_one_of("list", &whole) && !service.holds_one_of("list", &admin));
    }

    #[test]
    fn a_number_is_compared_as_it_is_written() {
        let claims = r#"{"list": [99, "a"], "one": 99, "text": "99", "big": 1e22, "huge": [18446744073709551615]}"#;
        let identity = identity(serde_json::from_str(claims).unwrap_or_default());
        let of = |path: &str, wanted: &str| {
            let wanted = [wanted.to_owned()];
            (identity.holds_one_of(path, &wanted), identity.is_one_of(path, &wanted))
        };
        for path in ["list", "one", "text"] {
            assert_eq!((of(path, "99"), of(path, "9")), ((true, true), (false, false)), "{path}");
        }
        assert_eq!(of("huge", "18446744073709551615"), (true, true));
        assert_eq!(of("big", "1e22"), (false, false));
    }

    #[test]
    fn a_list_is_told_with_commas() {
        let told = |value: Value| {
            let identity = identity(json!({ "c": value }));
            identity.told("c").map(|told| told.map(Cow::into_owned))
        };
        let good = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(told(json!("a, b")), good("a, b"));
        assert_eq!(told(json!(["a", 1, true])), good("a, 1, true"));
        assert_eq!((told(json!([])), told(json!(null))), (Ok(None), Ok(None)));
        assert_eq!(identity(json!({})).told("c"), Ok(None));
        for other in [json!({}), json!(["a,b"]), json!([""]), json!([" a"]), json!([["a"]]), json!([null]), json!("a ")]
        {
            assert_eq!(told(other.clone()), Err(Untellable), "{other}");
        }
    }

    #[test]
    fn each_kind_of_credential_has_its_own_holder() {
        let of = |method, subject: &str, key: &str| {
            Arc::new(Identity { subject: subject.into(), method, key_id: Some(key.into()), ..identity(json!({})) })
        };
        let mut known = Identities::default();
        assert!(known.last().is_none() && known.key_id().is_none());
        known.note(of(Method::ApiKey, "acme", "k1"));
        known.note(of(Method::Jwt, "alice", "k2"));
        assert_eq!(known.by(Method::ApiKey).map(|identity| identity.subject.as_str()), Some("acme"));
        assert_eq!(known.last().map(|identity| identity.subject.as_str()), Some("alice"));
        assert_eq!(known.key_id(), Some("k1"));
        assert!(known.by(Method::Certificate).is_none());
        known.note(of(Method::ApiKey, "other", "k3"));
        assert_eq!(known.by(Method::ApiKey).map(|identity| identity.subject.as_str()), Some("other"));
    }

    #[test]
    fn scopes_are_whole_words() {
        let identity = identity(json!({}));
        assert!(identity.has_scope("read") && identity.has_scope("write"));
        assert!(!identity.has_scope("rea") && !identity.has_scope("read write") && !identity.has_scope(""));
    }
}
