//! What a route does once its chain has let a request through: forward it, redirect it, or answer it.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use super::{destination::Forward, pattern::PathPattern, template::Template};
use crate::{
    filter::Invalid,
    message::{
        host::host_of,
        path::{Spelling, decode},
        reason::Reason,
        reply::{Reply, ReplyBody},
    },
    yaml::FromShort,
};

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// It goes to a backend of a service.
    Forward(Forward),
    /// It is sent elsewhere.
    Redirect(StatusCode, Template),
    /// It is answered with this.
    Respond(Box<Reply>),
}

/// `redirect:` of a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedirectConfig {
    /// The new location; `{host}`, `{path}`, `{query}` (with its `?`) and names of the path pattern are filled in.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308: method and body stay.
    #[serde(default = "permanent")]
    pub status: u16,
}

impl FromShort for RedirectConfig {
    const EXPECTED: &'static str = "a location like https://new.example{path}, or a mapping";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { to: text.to_owned(), status: permanent() })
    }

    fn short_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<String>()
    }
}

fn permanent() -> u16 {
    308
}

/// `respond:` of a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespondConfig {
    /// Default 200.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body. Default empty.
    #[serde(default)]
    pub body: String,
    /// Its media type. Default `text/plain; charset=utf-8`.
    #[serde(default = "text_plain")]
    pub content_type: String,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn ok() -> u16 {
    200
}

fn text_plain() -> String {
    "text/plain; charset=utf-8".into()
}

fn capture(pattern: &PathPattern, path: &str, name: &str, out: &mut String) {
    if let Some((_, value)) = pattern.captures(path).into_iter().find(|(known, _)| *known == name) {
        out.push_str(value);
    }
}

/// How the path changes on its way to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// This prefix is taken off.
    Strip(String),
    /// The path becomes this.
    To(Template),
}

impl Rewrite {
    /// The path that the backend will see, without its query; `None` when it stays. `path` is spelled as it is sent: its
    /// segments are those that `pattern` has matched, with more of them encoded.
    pub fn apply(&self, pattern: &PathPattern, path: &str) -> Option<String> {
        match self {
            Self::Strip(prefix) => {
                let mut rest = path;
                for segment in prefix.split('/').skip(1) {
                    // `/apiary` does not lie below `/api`.
                    let (first, tail) =
                        rest.strip_prefix('/').map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())))?;
                    if first != segment && decode(first, Spelling::Compared).ok()? != segment {
                        return None;
                    }
                    rest = tail;
                }
                Some(if rest.is_empty() { "/" } else { rest }.to_owned())
            }
            Self::To(template) => {
                let filled = template.fill(|name, out| capture(pattern, path, name, out));
                // A captured value may be anything a path may hold; the result is read the same way as any path.
                let reading = crate::message::path::read(&filled).ok()?;
                Some(reading.sent.unwrap_or_else(|| reading.path.into_owned()))
            }
        }
    }

    /// Reads `strip_prefix:` and `rewrite:`.
    pub(crate) fn build(
        strip: Option<&str>,
        to: Option<&str>,
        paths: &[PathPattern],
        wrong: &mut Invalid,
    ) -> Option<Self> {
        match (strip, to) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                wrong.push("rewrite", "'rewrite' and 'strip_prefix' exclude each other");
                None
            }
            (Some(prefix), None) => {
                let trimmed = prefix.trim_end_matches('/');
                if !prefix.starts_with('/')
                    || trimmed.is_empty()
                    || crate::message::path::normalise(trimmed).map_or(true, |path| path != trimmed)
                {
                    wrong.push("strip_prefix", format!("'{prefix}' is not a path prefix: write it like /api"));
                }
                Some(Self::Strip(trimmed.to_owned()))
            }
            (None, Some(text)) => match text.parse::<Template>() {
                Ok(template) if text.starts_with('/') => {
                    if let Err(message) = template.check(&[], paths).and_then(|()| template.check_path(text)) {
                        wrong.push("rewrite", message);
                    }
                    Some(Self::To(template))
                }
                Ok(_) => {
                    wrong.push("rewrite", format!("'{text}' does not begin with a slash"));
                    None
                }
                Err(message) => {
                    wrong.push("rewrite", message);
                    None
                }
            },
        }
    }
}

impl Action {
    pub(crate) fn redirect(config: &RedirectConfig, paths: &[PathPattern], wrong: &mut Invalid) -> Option<Self> {
        let status =
            StatusCode::from_u16(config.status).ok().filter(|s| matches!(s.as_u16(), 301 | 302 | 303 | 307 | 308));
        if status.is_none() {
            wrong.push("redirect.status", format!("{} is not a redirect: 301, 302, 303, 307 or 308", config.status));
        }
        let template = config.to.parse::<Template>().and_then(|template| {
            template.check(&["host", "path", "query"], paths)?;
            template.check_fragment()?;
            HeaderValue::try_from(&config.to).map_err(|_| "a location cannot hold that".to_owned())?;
            Ok(template)
        });
        match template {
            Ok(template) => Some(Self::Redirect(status?, template)),
            Err(message) => {
                wrong.push("redirect.to", message);
                None
            }
        }
    }

    pub(crate) fn respond(config: &RespondConfig, wrong: &mut Invalid) -> Option<Self> {
        let status = StatusCode::from_u16(config.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            wrong.push("respond.status", format!("{} is not a final status from 200 to 599", config.status));
        }
        let media = HeaderValue::try_from(&config.content_type);
        if media.is_err() {
            wrong.push("respond.content_type", "a media type cannot hold that");
        }
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            match (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                _ => wrong
                    .push(format!("respond.headers.{name}"), "not a header name with a value that headers can carry"),
            }
        }
        let bodiless = status.is_some_and(|status| matches!(status.as_u16(), 204 | 205 | 304));
        if bodiless && !config.body.is_empty() {
            wrong.push("respond.body", format!("an answer with status {} has no body", config.status));
        }
        let body = match media.ok()? {
            _ if config.body.is_empty() => ReplyBody::Empty,
            media => ReplyBody::Bytes(media, Bytes::from(config.body.clone())),
        };
        Some(Self::Respond(Box::new(Reply { headers, body, ..Reply::empty(status?) })))
    }
}

/// The answer of a redirect; `path` as the client spelled it.
pub(crate) fn location(
    status: StatusCode,
    to: &Template,
    pattern: &PathPattern,
    head: &RequestHeader,
    path: &str,
) -> Reply {
    let refused =
        || Reply::problem(StatusCode::BAD_REQUEST, "this request cannot be redirected").because(Reason::Malformed);
    // A request over HTTP/1.0 may have no host.
    if host_of(head).is_empty() && to.uses("host") {
        return refused();
    }
    let text = to.fill(|name, out| match name {
        "host" => out.push_str(host_of(head)),
        "path" => out.push_str(path),
        "query" => {
            if let Some(query) = head.uri.query() {
                // The target may have a query of its own.
                let joint = if out.contains('?') { '&' } else { '?' };
                let _ = write!(out, "{joint}{query}");
            }
        }
        name => capture(pattern, path, name, out),
    });
    match HeaderValue::try_from(text) {
        Ok(location) => Reply::empty(status).header(header::LOCATION, location),
        Err(_) => refused(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn rewritten(to: &str, pattern: &str, path: &str) -> Option<String> {
        Rewrite::To(to.parse().unwrap()).apply(&pattern.parse().unwrap(), path)
    }

    #[test]
    fn rewrites_by_name() {
        assert_eq!(rewritten("/v2/{id}/x", "/users/{id}", "/users/7").unwrap(), "/v2/7/x");
        assert_eq!(rewritten("/v2/{rest}", "/users/*", "/users/a/b").unwrap(), "/v2/a/b");
        assert_eq!(rewritten("/v2/{rest}", "/users/*", "/users").unwrap(), "/v2/");
    }

    #[test]
    fn strips_whole_segments() {
        let strip = |path: &str| Rewrite::Strip("/api".into()).apply(&"/*".parse().unwrap(), path);
        assert_eq!(strip("/api/users").unwrap(), "/users");
        assert_eq!(strip("/api").unwrap(), "/");
        assert_eq!(strip("/apiary"), None);
    }

    #[test]
    fn a_target_with_a_query_of_its_own_takes_the_requests_too() {
        for (to, target, location) in [
            ("https://new/{path}?from=old{query}", "/x?a=1", "https://new//x?from=old&a=1"),
            ("https://new?from=old{query}", "/x", "https://new?from=old"),
            ("https://new{path}{query}#top", "/x?a=1", "https://new/x?a=1#top"),
        ] {
            let head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
            let path = head.uri.path().to_owned();
            let reply = super::location(StatusCode::FOUND, &to.parse().unwrap(), &"/*".parse().unwrap(), &head, &path);
            assert_eq!(reply.headers[0].1, location, "{to}");
        }
        let checked = |text: &str| text.parse::<Template>().unwrap().check_fragment();
        assert!(checked("/x#top{query}").is_err() && checked("/x{query}#{path}").is_ok());
    }

    #[test]
    fn a_template_names_only_what_is_there() {
        let check = |text: &str| text.parse::<Template>().unwrap().check(&["host"], &["/users/{id}".parse().unwrap()]);
        assert!(check("https://{host}/{id}").is_ok());
        assert!(check("/{idd}").unwrap_err().contains("did you mean '{id}'"));
    }
}
