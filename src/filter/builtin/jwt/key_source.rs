//! `keys` of the filter `jwt`: where a verification key comes from.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    auth::{Keyset, RefreshTimes},
    filter::{Env, HttpPlace, KeySet, KeySetSource},
    tls::client::trusted,
    units::{FileRef, SecretRef, Span, read_file},
};

/// Where a verification key comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum KeySource {
    /// A shared secret, for HS algorithms.
    Secret(SecretRef),
    /// A file with a public key or certificate in PEM.
    Pem(PathBuf),
    /// A JWK set (RFC 7517): a file, or where it is fetched from.
    Jwks(JwksSource),
}

/// A file, or a set that is fetched.
#[derive(Debug, Clone)]
pub(super) enum JwksSource {
    File(PathBuf),
    Fetched(Box<FetchedJwks>),
}

/// A JWK set that is fetched in the background, again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FetchedJwks {
    /// Where it is: `https://...`, or `http://` on this machine alone. Redirects are not followed.
    url: String,
    /// Certificates of the authorities that may have signed the server's, as a PEM file. Default: `pingora.ca_file`, else the
    /// system's.
    #[serde(default)]
    ca: Option<FileRef>,
    /// The time from one fetch to the next, whatever the answer says. Default: its `max-age`, within the next two; 15m for one
    /// that names none.
    #[serde(default)]
    refresh: Option<Span>,
    /// The shortest `max-age` that counts. Default 5m.
    #[serde(default = "default_min")]
    min_refresh: Span,
    /// The longest `max-age` that counts. Default 24h.
    #[serde(default = "default_max")]
    max_refresh: Span,
    /// The least time between two fetches because of tokens whose key is not known. Default 30s.
    #[serde(default = "default_cooldown")]
    cooldown: Span,
    /// The longest time that a fetch may take, and a request may wait for one. Default 5s.
    #[serde(default = "default_timeout")]
    timeout: Span,
}

fn default_min() -> Span {
    Span(Duration::from_secs(5 * 60))
}

fn default_max() -> Span {
    Span(Duration::from_secs(24 * 3600))
}

fn default_cooldown() -> Span {
    Span(Duration::from_secs(30))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(5))
}

impl<'de> Deserialize<'de> for JwksSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = JwksSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's path, or { url: https://... }")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<JwksSource, E> {
                if path.starts_with("https://") || path.starts_with("http://") {
                    return Err(E::custom(
                        "expected a file's path: write a set that is fetched as { url: https://... }",
                    ));
                }
                Ok(JwksSource::File(path.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JwksSource, A::Error> {
                FetchedJwks::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(JwksSource::Fetched)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for JwksSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JwksSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let file = json_schema!({ "type": "string", "description": "A file's path." });
        json_schema!({ "anyOf": [file, generator.subschema_for::<FetchedJwks>()] })
    }
}

/// What the keys of a verifier are: those that are known now, and sets that are fetched.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub(super) fixed: Keyset,
    pub(super) sets: Vec<Arc<KeySet>>,
}

/// Reads `sources`; what is wrong goes to `wrong`, with the place below the list.
pub(super) fn load(sources: &[KeySource], env: &Env, wrong: &mut dyn FnMut(String, String)) -> Keys {
    let mut keys = Keys::default();
    for (i, source) in sources.iter().enumerate() {
        let fixed = match source {
            KeySource::Jwks(JwksSource::Fetched(config)) => {
                match config.source() {
                    Ok(source) => keys.sets.push(env.key_sets.get(source)),
                    Err((key, message)) => wrong(format!("[{i}].jwks.{key}"), message),
                }
                continue;
            }
            KeySource::Secret(reference) => reference
                .read(&env.readers)
                .and_then(|secret| Keyset::secret(secret.expose()).map_err(|e| e.to_string())),
            KeySource::Pem(path) => read(path).and_then(|pem| Keyset::pem(&pem).map_err(|e| e.to_string())),
            KeySource::Jwks(JwksSource::File(path)) => {
                read(path).and_then(|json| Keyset::jwks(&json).map_err(|e| e.to_string()))
            }
        };
        match fixed {
            Ok(more) => keys.fixed = std::mem::take(&mut keys.fixed).and(more),
            Err(message) => wrong(format!("[{i}]"), message),
        }
    }
    keys
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_file(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))
}

impl FetchedJwks {
    /// # Errors
    /// The key that is wrong, and why.
    fn source(&self) -> Result<KeySetSource, (&'static str, String)> {
        let wrong = |why| ("url", format!("{why}: write it like https://id.example/jwks.json"));
        let place = HttpPlace::new(&self.url, None, self.timeout.0).map_err(wrong)?;
        if !place.tls && !is_here(&place) {
            return Err(wrong("keys that come without TLS could be anybody's"));
        }
        if !place.tls && self.ca.is_some() {
            return Err(("ca", "has no effect without https".to_owned()));
        }
        let second = Duration::from_secs(1);
        for (key, span) in [
            ("refresh", self.refresh.unwrap_or(Span(second))),
            ("min_refresh", self.min_refresh),
            ("cooldown", self.cooldown),
        ] {
            if span.0 < second {
                return Err((key, "is at least 1s".to_owned()));
            }
        }
        if self.max_refresh < self.min_refresh {
            return Err(("max_refresh", "is less than 'min_refresh'".to_owned()));
        }
        if self.timeout.0.is_zero() || self.timeout.0 > Duration::from_secs(60) {
            return Err(("timeout", "is more than 0 and at most 60s: requests wait for it".to_owned()));
        }
        let trusted = self.ca.as_ref().map(trusted).transpose().map_err(|message| ("ca", message))?;
        let (authorities, stamp) = trusted.map_or((None, 0), |(list, stamp)| (Some(list), stamp));
        Ok(KeySetSource {
            place: HttpPlace { authorities, stamp, ..place },
            times: RefreshTimes {
                fixed: self.refresh.map(|span| span.0),
                bounds: (self.min_refresh.0, self.max_refresh.0),
                cooldown: self.cooldown.0,
            },
        })
    }
}

/// A key that comes without TLS could be anybody's, but from this machine.
fn is_here(place: &HttpPlace) -> bool {
    let bare = &place.host;
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn source(more: &str) -> Result<KeySetSource, (&'static str, String)> {
        serde_yaml::from_str::<FetchedJwks>(&format!("{{ {more} }}")).unwrap().source()
    }

    #[test]
    fn a_set_is_fetched_by_tls_or_from_this_machine() {
        let of = |url: &str| source(&format!("url: '{url}'"));
        let good = of("https://id.example/keys?v=1").unwrap();
        assert_eq!((good.place.tls, good.place.port, good.place.target.as_str()), (true, 443, "/keys?v=1"));
        for here in ["http://127.0.0.1:80/k", "http://[::1]/k", "http://localhost:8080/k"] {
            assert!(!of(here).unwrap().place.tls, "{here}");
        }
        for wrong in [
            "http://id.example/keys",
            "http://127.0.0.1.evil.example/",
            "https://u:hunter2@id.example/",
            "ftp://id.example/",
            "id.example/keys",
            "https:///keys",
            "https://id.example:0/",
            "https://id.example:99999/",
            "https://id.example/#a",
        ] {
            let (key, message) = of(wrong).err().unwrap();
            assert!(key == "url" && !message.contains("hunter2"), "{wrong}: {message}");
        }
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        for (key, more) in [
            ("refresh", "refresh: 0"),
            ("min_refresh", "min_refresh: 10ms"),
            ("max_refresh", "max_refresh: 1m"),
            ("cooldown", "cooldown: 0"),
            ("timeout", "timeout: 0"),
            ("timeout", "timeout: 2m"),
            ("ca", "ca: /nowhere"),
        ] {
            assert_eq!(source(&format!("url: 'https://a/', {more}")).err().unwrap().0, key, "{more}");
        }
    }
}
