//! `cors`: which web pages may read the answers (Fetch standard, "CORS protocol").
//!
//! YAML: `cors: "*"` or `cors: { origins: ["https://app.example", "https://*.example"], methods: [GET, POST], credentials: true }`.
//! A preflight is answered here and never reaches a backend; put `cors` before the steps that ask for credentials, for
//! a preflight carries none. `Vary: Origin` is sent whenever the answer depends on the origin.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::http::ResponseHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::compression::vary;
use crate::{
    filter::{Configure, Env, Exchange, Fault, Filter, Flow, Invalid, Needs, State, env::schema_of},
    message::{fields::single, reason::Reason, reply::Reply},
    units::Span,
    yaml::{FromShort, Short},
};

/// Settings of `cors`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CorsSettings")]
pub(crate) struct Config {
    /// Origins that may read: `*`, `https://app.example`, `https://*.example`.
    origins: Vec<String>,
    /// Methods beyond the simple ones. Default GET, HEAD, POST, PUT, PATCH, DELETE.
    #[serde(default = "default_methods")]
    methods: Vec<String>,
    /// Request headers that pages may send; `*` allows whatever they ask for. Default `*`.
    #[serde(default = "any")]
    headers: Vec<String>,
    /// Answer headers that pages may read, beside the rate limit's own.
    #[serde(default)]
    expose_headers: Vec<String>,
    /// Let pages send cookies and credentials. Not together with the origin `*`.
    #[serde(default)]
    credentials: bool,
    /// How long a browser may remember a preflight. Default 10m.
    #[serde(default = "default_age")]
    max_age: Span,
}

impl FromShort for Config {
    const EXPECTED: &'static str = "an origin, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self {
            origins: vec![text.to_owned()],
            methods: default_methods(),
            headers: any(),
            expose_headers: Vec::new(),
            credentials: false,
            max_age: default_age(),
        })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }
}

fn default_methods() -> Vec<String> {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(str::to_owned).into()
}

fn any() -> Vec<String> {
    vec!["*".into()]
}

fn default_age() -> Span {
    Span(Duration::from_secs(600))
}

/// Without these a page cannot see why it was refused, and when to come back.
const ALWAYS_EXPOSED: &str = "RateLimit, RateLimit-Policy, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-ID";

#[derive(Debug, PartialEq)]
enum Origin {
    Any,
    Exact(String),
    /// `https://*.example`: scheme with `://`, and `.example`.
    Below(String, String),
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host) = text.split_once("://")?;
        let plain = |text: &str| !text.is_empty() && !text.contains(['/', '*', ' ', '@']);
        match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && plain(suffix) && plain(scheme) => {
                Some(Self::Below(format!("{scheme}://"), suffix.to_ascii_lowercase()))
            }
            None if plain(host) && plain(scheme) => Some(Self::Exact(text.to_ascii_lowercase())),
            _ => None,
        }
    }

    fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Below(scheme, suffix) => {
                let origin = origin.to_ascii_lowercase();
                origin.strip_prefix(scheme.as_str()).is_some_and(|host| {
                    host.strip_suffix(suffix.as_str())
                        .is_some_and(|name| !name.is_empty() && !name.contains(['/', '@']))
                })
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<Origin>,
    methods: HeaderValue,
    /// `None` echoes what the page asks for.
    headers: Option<HeaderValue>,
    expose: HeaderValue,
    credentials: bool,
    max_age: HeaderValue,
}

/// The origin that was admitted, kept for the answer.
#[derive(Clone)]
struct Admitted(HeaderValue);

fn list<T: std::str::FromStr>(items: &[String], path: &str, what: &str, invalid: &mut Invalid) -> HeaderValue {
    for (i, item) in items.iter().enumerate() {
        if item.parse::<T>().is_err() {
            invalid.push(format!("{path}[{i}]"), format!("'{item}' is not a {what}"));
        }
    }
    HeaderValue::try_from(items.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl Configure for Cors {
    const NAME: &'static str = "cors";
    const SAMPLES: [&'static str; 2] = [
        "{ origins: ['https://a.example'], methods: [GET], headers: [X-A], expose_headers: [X-B], credentials: \
         true, max_age: '60s' }",
        "{ origins: ['https://b.example'], methods: [PUT], headers: [X-B], expose_headers: [X-C], credentials: \
         false, max_age: '61s' }",
    ];
    type Config = Short<Config>;

    fn needs() -> Needs {
        Needs { preflight: true }
    }

    fn configure(Short(config): Short<Config>, _: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        if config.origins.is_empty() {
            invalid.push("origins", "name at least one origin");
        }
        let mut origins = Vec::new();
        for (i, text) in config.origins.iter().enumerate() {
            match Origin::parse(text) {
                Some(Origin::Any) if config.credentials => invalid.push(
                    format!("origins[{i}]"),
                    "'*' cannot go with 'credentials: true': any page could act for a user who is logged in; name the origins",
                ),
                Some(origin) => origins.push(origin),
                None => invalid.push(
                    format!("origins[{i}]"),
                    format!("'{text}' is not an origin: write it like https://app.example, https://*.example or \"*\""),
                ),
            }
        }
        let methods = list::<Method>(&config.methods, "methods", "method", &mut invalid);
        let echo = config.headers.iter().any(|name| name == "*");
        let headers =
            if echo { None } else { Some(list::<HeaderName>(&config.headers, "headers", "header name", &mut invalid)) };
        let mut expose = config.expose_headers.clone();
        list::<HeaderName>(&expose, "expose_headers", "header name", &mut invalid);
        expose.push(ALWAYS_EXPOSED.to_owned());
        let expose = HeaderValue::try_from(expose.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""));
        invalid.into_result()?;
        let max_age = HeaderValue::from(config.max_age.0.as_secs());
        Ok(Self { origins, methods, headers, expose, credentials: config.credentials, max_age })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Short<Config>>(generator)
    }
}

impl Cors {
    fn preflight(&self, exchange: &Exchange<'_>) -> Reply {
        let mut reply = Reply::empty(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone())
            .header(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let asked = exchange.request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(headers) = self.headers.as_ref().or(asked) {
            reply = reply.header(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        reply
    }
}

#[async_trait]
impl Filter for Cors {
    async fn request(&self, exchange: &mut Exchange<'_>) -> Result<Flow, Fault> {
        let origin = single(&exchange.request.headers, header::ORIGIN).cloned();
        let admitted = origin
            .filter(|origin| origin.to_str().is_ok_and(|origin| self.origins.iter().any(|known| known.admits(origin))));
        let preflight = exchange.request.method == Method::OPTIONS
            && exchange.request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && exchange.request.headers.contains_key(header::ORIGIN);
        let known = admitted.is_some();
        if let Some(origin) = admitted {
            exchange.state.extensions.insert(Admitted(origin));
        }
        Ok(match (preflight, known) {
            (false, _) => Flow::Next,
            (true, true) => self.preflight(exchange).into(),
            // Without the CORS headers the browser refuses; the status is for whoever reads the log.
            (true, false) => Reply::problem(StatusCode::FORBIDDEN, "this origin may not use this service")
                .because(Reason::OriginNotAllowed)
                .into(),
        })
    }

    fn response(&self, head: &mut ResponseHeader, state: &mut State) -> Result<(), Fault> {
        let open = self.origins.contains(&Origin::Any) && !self.credentials;
        // Ours, not the backend's: two answers to one question are read as none.
        for name in [&header::ACCESS_CONTROL_ALLOW_ORIGIN, &header::ACCESS_CONTROL_ALLOW_CREDENTIALS] {
            head.remove_header(name);
        }
        if !open {
            vary(head, "Origin", &HeaderValue::from_static("Origin"))?;
        }
        let Some(Admitted(origin)) = state.extensions.get::<Admitted>() else { return Ok(()) };
        let origin = if open { HeaderValue::from_static("*") } else { origin.clone() };
        let write = |head: &mut ResponseHeader| -> pingora::Result<()> {
            head.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
            head.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone())?;
            if self.credentials {
                head.insert_header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"))?;
            }
            Ok(())
        };
        write(head).map_err(|e| Fault(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::Origin;

    #[test]
    fn origins_match_whole_hosts_only() {
        let below = Origin::parse("https://*.example").unwrap();
        assert!(below.admits("https://app.example") && below.admits("https://a.b.example"));
        for wrong in
            ["https://example", "http://app.example", "https://evil.com/.example", "https://appexample", "null"]
        {
            assert!(!below.admits(wrong), "{wrong}");
        }
        assert!(Origin::parse("https://app.example").unwrap().admits("https://APP.example"));
        assert_eq!(Origin::parse("app.example"), None);
        assert_eq!(Origin::parse("https://app.example/"), None);
    }
}
