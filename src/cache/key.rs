//! Under what an answer is found: everything that may make it a different one, except what its `Vary` names.
//!
//! Each part is written with its length before it, so that no two requests that differ write the same bytes. The hash is
//! keyed by what only this process knows, and the bytes themselves are compared too: nobody can make two keys that are
//! taken for one.

use std::{borrow::Cow, fmt, hash::Hash, sync::Arc};

use ahash::RandomState;
use http::{HeaderMap, HeaderValue, header};

use super::policy::Policy;
use crate::auth::Digest;

/// What a key is made of.
#[derive(Debug, Clone, Copy)]
pub struct KeyParts<'a> {
    /// Differs between routes whose answers may differ: path rules, backends, filters that change answers.
    pub route: u64,
    /// The route's rules for its cache; their fingerprint is part of the key.
    pub policy: &'a Policy,
    /// The request came by `https`.
    pub secure: bool,
    /// The host as it was sent, with its port: backends get it so, and may answer each spelling as they like.
    pub host: &'a str,
    /// The path as it is compared (`message::path`), without the query.
    pub path: &'a str,
    /// As backends get it, where that is spelled differently: they may answer each spelling as they like.
    pub spelled: Option<&'a str>,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// Who asks, in as many parts as there are: the kind of credential, the name. Empty for nobody. Who has shown a
    /// credential that names nobody has that credential as its identity.
    pub identity: &'a [&'a [u8]],
    /// The fields of the request.
    pub request: &'a HeaderMap,
    /// What the backend is told beside all this, and may put into its answer.
    pub told: &'a [&'a [u8]],
}

impl KeyParts<'_> {
    /// True when the key is one client's own: by its identity, or by its `Authorization`.
    pub fn one_client(&self) -> bool {
        let authorized = self.policy.authorized && self.request.contains_key(header::AUTHORIZATION);
        !self.policy.shared && (!self.identity.is_empty() || authorized)
    }
}

/// A key: comparing two is comparing all of their bytes.
#[derive(Clone)]
pub struct Key {
    hash: u128,
    /// The length of the URL, the URL, and all else.
    bytes: Arc<[u8]>,
    /// See [`KeyParts::one_client`].
    one_client: bool,
}

const PREFIX: usize = size_of::<u32>();

impl Key {
    /// A hash of the bytes, other in each process.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// What it is called outside of this process: the same for the same bytes in the same `realm`, and telling
    /// nothing of them.
    pub fn name(&self, realm: u64) -> String {
        Digest::of(&[&realm.to_le_bytes(), &*self.bytes].concat()).to_string()
    }

    /// The URL, as [`url`] writes it, with the part of the query that counts.
    pub fn url(&self) -> &str {
        let length = self.bytes.first_chunk::<PREFIX>().map_or(0, |length| u32::from_le_bytes(*length));
        let end = PREFIX.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        std::str::from_utf8(self.bytes.get(PREFIX..end).unwrap_or_default()).unwrap_or_default()
    }

    /// The bytes of one with the hash of another.
    #[cfg(test)]
    pub(super) fn forged(bytes: &Self, hash: &Self) -> Self {
        Self { hash: hash.hash, bytes: Arc::clone(&bytes.bytes), one_client: false }
    }

    /// True when it is one client's own.
    pub fn is_one_clients(&self) -> bool {
        self.one_client
    }

    /// All of it, for a store outside of this process.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    /// The URL alone: the rest may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.url())
    }
}

/// Makes keys; one for each process, because its seed is part of every hash.
#[derive(Clone)]
pub struct Keys([RandomState; 2]);

impl Default for Keys {
    fn default() -> Self {
        Self([RandomState::new(), RandomState::new()])
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// A hash of a part of what is under a key, other in each process.
    pub fn within(&self, key: &Key, part: &[&[u8]]) -> u128 {
        self.hash(&(key.hash, part))
    }

    fn hash(&self, of: &impl Hash) -> u128 {
        let [high, low] = self.0.each_ref().map(|state| u128::from(state.hash_one(of)));
        (high << 64) | low
    }

    /// The key of a request.
    pub fn key(&self, parts: &KeyParts<'_>) -> Key {
        let policy = parts.policy;
        let query = parts.query.and_then(|query| policy.query.apply(query));
        let url = 2 * parts.host.len() + parts.path.len() + parts.query.map_or(0, str::len);
        let mut out = Vec::with_capacity(96 + url);
        out.extend_from_slice(&[0; PREFIX]);
        write_url(&mut out, parts.secure, parts.host, parts.path, query.as_deref());
        let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
        out[..PREFIX].copy_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&parts.route.to_le_bytes());
        out.extend_from_slice(&policy.fingerprint.to_le_bytes());
        let identity = if policy.shared { &[] } else { parts.identity };
        put_all(&mut out, identity.iter().copied());
        put_all(&mut out, [parts.host.as_bytes()].into_iter().chain(parts.spelled.map(str::as_bytes)));
        put_all(&mut out, parts.told.iter().copied());
        for field in &policy.key_headers {
            put_all(&mut out, parts.request.get_all(field).iter().map(HeaderValue::as_bytes));
        }
        if policy.authorized && !policy.shared {
            put_all(&mut out, parts.request.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes));
        }
        Key { one_client: parts.one_client(), ..self.of_bytes(&out) }
    }

    /// The key with these bytes, which is no client's own.
    pub fn of_bytes(&self, bytes: &[u8]) -> Key {
        Key { hash: self.hash(&bytes), bytes: bytes.into(), one_client: false }
    }
}

/// How many there are, and each with its length.
fn put_all<'v>(out: &mut Vec<u8>, values: impl Iterator<Item = &'v [u8]>) {
    let (at, mut count) = (out.len(), 0u64);
    out.extend_from_slice(&count.to_le_bytes());
    for value in values {
        count += 1;
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        out.extend_from_slice(value);
    }
    out[at..at + size_of::<u64>()].copy_from_slice(&count.to_le_bytes());
}

/// `scheme://host/path?query`, the host in small letters and without the port that the scheme has anyway.
pub fn url(secure: bool, host: &str, path: &str, query: Option<&str>) -> String {
    let mut out = Vec::with_capacity(10 + host.len() + path.len() + query.map_or(0, str::len));
    write_url(&mut out, secure, host, path, query);
    String::from_utf8(out).unwrap_or_default()
}

/// A host in small letters, without the port that the scheme has anyway and without a final dot.
pub fn plain_host(secure: bool, host: &str) -> Cow<'_, str> {
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => host.split_at(colon),
        _ => (host, ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let port = if matches!((port, secure), (":", _) | (":80", false) | (":443", true)) { "" } else { port };
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) || (name.len() + port.len() < host.len() && !port.is_empty())
    {
        return Cow::Owned((name.to_owned() + port).to_ascii_lowercase());
    }
    // What is left out stands at the end.
    Cow::Borrowed(&host[..name.len() + port.len()])
}

fn write_url(out: &mut Vec<u8>, secure: bool, host: &str, path: &str, query: Option<&str>) {
    out.extend_from_slice(if secure { b"https://" } else { b"http://" });
    out.extend_from_slice(plain_host(secure, host).as_bytes());
    out.extend_from_slice(path.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{super::config::CacheConfig, *};

    fn policy(yaml: &str) -> Policy {
        serde_yaml::from_str::<CacheConfig>(yaml).unwrap().policy().unwrap()
    }

    fn parts<'a>(policy: &'a Policy, request: &'a HeaderMap) -> KeyParts<'a> {
        KeyParts {
            route: 1,
            policy,
            secure: false,
            host: "a.test",
            path: "/x",
            spelled: None,
            query: None,
            identity: &[],
            request,
            told: &[],
        }
    }

    #[test]
    fn every_part_makes_a_difference() {
        let (plain, other) = (policy("{}"), policy("{ttl: 1s}"));
        let none = HeaderMap::new();
        let keys = Keys::default();
        let base = parts(&plain, &none);
        let identity: [&[u8]; 2] = [b"jwt", b"alice"];
        let moved: [&[u8]; 2] = [b"jwta", b"lice"];
        let all = [
            base,
            KeyParts { route: 2, ..base },
            KeyParts { policy: &other, ..base },
            KeyParts { secure: true, ..base },
            KeyParts { host: "b.test", ..base },
            KeyParts { host: "a.test:8080", ..base },
            KeyParts { path: "/X", ..base },
            KeyParts { spelled: Some("/%78"), ..base },
            KeyParts { query: Some(""), ..base },
            KeyParts { query: Some("a=1&b=2"), ..base },
            KeyParts { query: Some("b=2&a=1"), ..base },
            KeyParts { identity: &identity, ..base },
            KeyParts { identity: &moved, ..base },
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, another) in all.iter().enumerate() {
                assert_eq!(keys.key(one) == keys.key(another), at == other_at, "{one:?} {another:?}");
            }
        }
        // A purge of the one is a purge of the other.
        for other in [KeyParts { host: "A.Test.:80", ..base }, KeyParts { spelled: Some("/%78"), ..base }] {
            let other = keys.key(&other);
            assert!(keys.key(&base) != other && keys.key(&base).url() == other.url());
        }
        assert_eq!(keys.key(&base).url(), "http://a.test/x");
        assert_eq!(format!("{:?}", keys.key(&all[11])), "Key(http://a.test/x)");
        assert_ne!(keys.key(&base).hash(), Keys::default().key(&base).hash());
    }

    #[test]
    fn what_the_operator_adds_or_leaves_out() {
        let rules = policy("{key_headers: [x-tenant], query: {exclude: [utm_*]}, authorized: true}");
        let keys = Keys::default();
        let key = |fields: &[(&'static str, &'static str)], query| {
            let request = fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            let request: HeaderMap = request.collect();
            keys.key(&KeyParts { query, ..parts(&rules, &request) })
        };
        assert_eq!(key(&[("x-other", "1")], Some("utm_a=1")), key(&[], None));
        assert_ne!(key(&[("x-tenant", "1")], None), key(&[("x-tenant", "2")], None));
        assert_ne!(key(&[("x-tenant", "")], None), key(&[], None));
        assert_ne!(key(&[("authorization", "a")], None), key(&[("authorization", "b")], None));
        assert_ne!(key(&[("authorization", "a")], None), key(&[("x-tenant", "a")], None));
        let shared = policy("{shared: true, authorized: true}");
        let request: HeaderMap = [(header::AUTHORIZATION, HeaderValue::from_static("a"))].into_iter().collect();
        let alone: [&[u8]; 1] = [b"alice"];
        let asked = KeyParts { identity: &alone, ..parts(&shared, &request) };
        assert_eq!(keys.key(&asked), keys.key(&parts(&shared, &HeaderMap::new())));
        assert!(!asked.one_client() && KeyParts { policy: &rules, ..asked }.one_client());
    }

    proptest! {
        #[test]
        fn hosts_are_plain_once(host in "[A-Za-z0-9.:\\[\\]]{0,20}", secure: bool) {
            let once = plain_host(secure, &host).into_owned();
            prop_assert!(!once.bytes().any(|byte| byte.is_ascii_uppercase()));
            let key = Keys::default().key(&KeyParts { host: &host, secure, ..parts(&policy("{}"), &HeaderMap::new()) });
            prop_assert_eq!(key.url().to_owned(), url(secure, &host, "/x", None));
        }
    }
}
