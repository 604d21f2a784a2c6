//! `urls:` of a service.

use std::{fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// The protocol that a backend is spoken to in, by the scheme of its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendScheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// TLS, with HTTP/2 or HTTP/1.1, as the backend chooses (ALPN).
    Https,
    /// HTTP/2 without TLS and without asking (RFC 9113 §3.3).
    H2c,
}

/// A backend's URL and weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl {
    /// The protocol, by the URL's scheme.
    pub scheme: BackendScheme,
    /// Name or address, without brackets.
    pub host: String,
    /// The TCP port; the default of the scheme when the URL names none.
    pub port: u16,
    /// Share of traffic relative to the others, 1 to 1000.
    pub weight: usize,
}

impl BackendUrl {
    /// `host:port`, as in URLs.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// True when both lead to the same place in the same way; how much goes there is another question.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }

    /// The address, when the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// So many characters of what is wrong are repeated.
const SHOWN: usize = 80;

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Neither a password nor a path is repeated: either may be a secret.
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("***@{rest}"));
        let authority = shown.find("://").map_or(0, |scheme| scheme + 3);
        let path = shown[authority..].find(['/', '?', '#']).map(|path| authority + path);
        let shown = path.map_or(shown.clone(), |path| format!("{}...", &shown[..=path]));
        // Nor a whole file that has been taken for one line.
        let cut = shown.char_indices().nth(SHOWN).map(|(end, _)| format!("{}...", &shown[..end]));
        let shown = cut.unwrap_or(shown);
        let wrong = |why: &str| format!("'{shown}' is not a backend: {why}; write it like http://127.0.0.1:8081");
        let uri: http::Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => BackendScheme::Http,
            Some("https") => BackendScheme::Https,
            Some("h2c") => BackendScheme::H2c,
            Some(_) => return Err(wrong("the scheme is none of http, https, h2c")),
            None => return Err(wrong("the scheme is missing")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("credentials do not belong into it"));
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("it has a path (a route's 'rewrite' changes paths)"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| wrong("the port is not a number"))?,
            // The port does not fit a port's range, and `http` gives none then.
            None if authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':')) => {
                return Err(wrong("the port is not a number from 1 to 65535"));
            }
            None if scheme == BackendScheme::Https => 443,
            None => 80,
        };
        if port == 0 {
            return Err(wrong("port 0 is nobody's"));
        }
        Ok(Self { scheme, host, port, weight: 1 })
    }
}

impl<'de> Deserialize<'de> for BackendUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Weighted {
            url: String,
            weight: usize,
        }

        impl<'de> Visitor<'de> for Either {
            type Value = BackendUrl;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL or { url, weight }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendUrl, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendUrl, A::Error> {
                let Weighted { url, weight } = Weighted::deserialize(MapAccessDeserializer::new(map))?;
                if !(1..=1000).contains(&weight) {
                    return Err(de::Error::custom(format!("{weight} is not a weight from 1 to 1000")));
                }
                let url: BackendUrl = url.parse().map_err(de::Error::custom)?;
                Ok(BackendUrl { weight, ..url })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for BackendUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BackendUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let url = json_schema!({ "type": "string", "pattern": "^(https?|h2c)://[^/]+/?$" });
        json_schema!({ "anyOf": [url, {
            "type": "object", "additionalProperties": false, "required": ["url", "weight"],
            "properties": { "url": url, "weight": { "type": "integer", "minimum": 1, "maximum": 1000 } }
        }] })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn reads_urls() {
        let url: BackendUrl = "http://127.0.0.1:8081".parse().unwrap();
        assert_eq!(
            (url.scheme, url.authority().as_str(), url.address().is_some()),
            (BackendScheme::Http, "127.0.0.1:8081", true)
        );
        assert_eq!("https://api.example/".parse::<BackendUrl>().unwrap().port, 443);
        assert_eq!("http://[::1]:80".parse::<BackendUrl>().unwrap().authority(), "[::1]:80");
        for wrong in
            ["127.0.0.1:80", "ftp://x", "http://", "http://x/api", "http://u:p@x", "http://x:0", "http://x:99999"]
        {
            assert!(wrong.parse::<BackendUrl>().is_err(), "{wrong}");
        }
    }
}
