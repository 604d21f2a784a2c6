//! Whom a limit is about: the client's address, its key, a claim, a header, the path, or several of these together.
//!
//! A part that a request does not have (no such header, not authenticated) is a value of its own: all requests without
//! it share one bucket. A missing key never means "unlimited".

use std::{borrow::Cow, str::FromStr};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::Exchange;
use crate::{
    auth::Method,
    limit::{KeyParts, KeySink},
};

/// One part of a limit's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyPart {
    ClientIp,
    ApiKey,
    Jwt,
    Header(HeaderName),
    Claim(String),
    Path,
    All,
}

impl FromStr for KeyPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "client_ip" => Ok(Self::ClientIp),
                "api_key" => Ok(Self::ApiKey),
                "jwt" => Ok(Self::Jwt),
                "path" => Ok(Self::Path),
                "all" => Ok(Self::All),
                _ => Err(unknown(text)),
            },
            Some(("header", name)) => {
                name.trim().parse().map(Self::Header).map_err(|_| format!("'{name}' is not a header name"))
            }
            Some(("claim", path)) if !path.trim().is_empty() => Ok(Self::Claim(path.trim().to_owned())),
            Some(_) => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> String {
    let known = ["client_ip", "api_key", "jwt", "path", "all"];
    match crate::units::nearest(text, known) {
        Some(right) => format!("unknown value '{text}' (did you mean '{right}'?)"),
        None => format!("unknown value '{text}' (known: client_ip, api_key, jwt, path, all, header:NAME, claim:PATH)"),
    }
}

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for KeyPart {
    fn schema_name() -> Cow<'static, str> {
        "Subject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(client_ip|api_key|jwt|path|all|header:.+|claim:.+)$",
            "description": "client_ip, api_key, jwt, path, all, header:NAME or claim:PATH"
        })
    }
}

/// Kinds of credentials that stand for a key, the first of them before the others.
const KEYS: [Method; 5] = [Method::ApiKey, Method::Certificate, Method::Signature, Method::Basic, Method::ForwardAuth];

/// What `parts` say of a request: the key of its bucket.
pub(crate) struct Subject<'a, 'e> {
    pub(crate) parts: &'a [KeyPart],
    pub(crate) exchange: &'a Exchange<'e>,
}

impl Subject<'_, '_> {
    /// The holder of the first of these kinds of credentials.
    fn holder(&self, methods: &[Method], sink: &mut dyn KeySink) {
        let identity = methods.iter().find_map(|method| self.exchange.state.identities.by(*method));
        match identity.and_then(|identity| Some((identity.method, identity.name()?))) {
            // Whoever may choose a name in one place is nobody else who has it in another.
            Some((method, name)) => {
                sink.text(method.as_str());
                sink.text(name);
                // A subject is one issuer's (RFC 7519 §4.1.2).
                if method == Method::Jwt {
                    match identity.and_then(|identity| identity.claim("iss")) {
                        Some(issuer) => sink.text(&issuer),
                        None => sink.absent(),
                    }
                }
            }
            None => sink.absent(),
        }
    }
}

impl KeyParts for Subject<'_, '_> {
    fn write(&self, sink: &mut dyn KeySink) {
        let exchange = self.exchange;
        for part in self.parts {
            match part {
                KeyPart::ClientIp => sink.ip(exchange.state.client),
                KeyPart::ApiKey => self.holder(&KEYS, sink),
                KeyPart::Jwt => self.holder(&[Method::Jwt], sink),
                KeyPart::Header(name) => match exchange.request.headers.get(name) {
                    Some(value) => sink.bytes(value.as_bytes()),
                    None => sink.absent(),
                },
                KeyPart::Claim(path) => match exchange.state.identities.whole_claim(path) {
                    Some(value) => sink.text(&value),
                    None => sink.absent(),
                },
                KeyPart::Path => sink.text(exchange.request.uri.path()),
                KeyPart::All => {}
            }
        }
    }
}
