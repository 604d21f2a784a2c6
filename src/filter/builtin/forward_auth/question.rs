//! What the service is asked: the head that it gets, made by the gateway, and what stands for it in the cache.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;

use super::settings::Ignored;
use crate::{
    auth::{CredentialKey, Digest},
    filter::Exchange,
    message::forwarded,
};

/// Fields that the gateway makes, and never takes from the client.
pub(super) const MADE: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-method"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-uri"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-for"),
];

/// What of them does not tell one question from another, in the same order.
const KINDS: [Ignored; 5] = [Ignored::Method, Ignored::Host, Ignored::Uri, Ignored::Proto, Ignored::Client];

/// Fields that tell of a request, and not who sends it. Cookies are the backend's, too, and so are tokens against forgery.
const OF_THE_REQUEST: [&str; 24] = [
    "cache-control",
    "cookie",
    "date",
    "dnt",
    "forwarded",
    "from",
    "host",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "save-data",
    "traceparent",
    "tracestate",
    "baggage",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-correlation-id",
    "x-csrf-token",
    "x-real-ip",
    "x-request-id",
    "x-requested-with",
];

/// The beginnings of the names of others.
const KINDS_OF_THE_REQUEST: [&str; 5] = ["accept", "content-", "if-", "sec-", "x-forwarded-"];

/// True for a field by which a client may show who it is: all but those that are known to be something else.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    !OF_THE_REQUEST.contains(&name) && !KINDS_OF_THE_REQUEST.iter().any(|kind| name.starts_with(kind))
}

/// A question about one request.
pub(super) struct Question {
    made: [HeaderValue; 5],
    copied: Vec<(HeaderName, HeaderValue)>,
}

impl Question {
    /// About the request of `exchange`, of which the service sees the fields `names`.
    pub(super) fn new(exchange: &Exchange<'_>, names: &[HeaderName]) -> Self {
        let head = exchange.request;
        let value = |text: &str| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let host = head.headers.get(header::HOST).cloned();
        let host = host.or_else(|| head.uri.authority().map(|authority| value(authority.as_str())));
        // As the router has read it, and backends will: what is judged must be what is served.
        let uri = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let copied = names
            .iter()
            .flat_map(|name| head.headers.get_all(name).iter().map(move |value| (name.clone(), value.clone())));
        Self {
            made: [
                value(head.method.as_str()),
                host.unwrap_or_else(|| HeaderValue::from_static("")),
                value(uri),
                HeaderValue::from_static(if exchange.state.secure { "https" } else { "http" }),
                forwarded::text(exchange.state.client),
            ],
            copied: copied.collect(),
        }
    }

    /// True when the client has shown something by which it may be known. Cookies are no sign of it: everybody has some.
    pub(super) fn has_credentials(&self) -> bool {
        self.copied.iter().any(|(name, _)| is_credential(name))
    }

    /// The head for the service at `authority`.
    pub(super) fn head(self, authority: &str, target: &str) -> pingora::Result<RequestHeader> {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None)?;
        head.insert_header(header::HOST, authority)?;
        head.insert_header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))?;
        for (name, value) in MADE.iter().zip(self.made) {
            head.insert_header(name.clone(), value)?;
        }
        let mut last = None;
        for (name, value) in self.copied {
            // The first of a name takes the place of what is there, `User-Agent` say.
            if last.as_ref() == Some(&name) {
                head.append_header(name, value)?;
            } else {
                last = Some(name.clone());
                head.insert_header(name, value)?;
            }
        }
        Ok(head)
    }

    /// What stands for it: everything that the service sees, less what it does not judge by.
    pub(super) fn digest(&self, key: &CredentialKey, ignored: &[Ignored]) -> Digest {
        let made = KINDS.iter().zip(&self.made).map(
            |(kind, value)| {
                if ignored.contains(kind) { &b""[..] } else { value.as_bytes() }
            },
        );
        let copied = self.copied.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        key.digest(made.chain(copied))
    }
}

/// What stands for all that a client shows in the fields `names`; a field that is not there is not an empty one.
pub(super) fn shown_digest(headers: &HeaderMap, names: &[HeaderName], key: &CredentialKey) -> Digest {
    let lines = names.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    let parts: Vec<&[u8]> = lines.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]).collect();
    key.digest(parts)
}
