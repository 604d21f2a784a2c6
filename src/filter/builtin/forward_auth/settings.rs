//! Settings of the filter `forward_auth`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    filter::{HttpPlace, Invalid, OutboundTarget},
    tls::client::trusted,
    units::{FileRef, Span},
};

/// Settings of `forward_auth`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardAuthSettings")]
pub(crate) struct ForwardAuthConfig {
    /// The service that is asked about each request, with `GET`: `http://...` or `https://...`. Redirects are not followed.
    pub(super) url: String,
    /// Certificates of the authorities that may have signed the service's, as a PEM file. Default: `pingora.ca_file`, else the
    /// system's.
    #[serde(default)]
    pub(super) ca: Option<FileRef>,
    /// The longest that an answer may take, and that a request waits for others to be answered. Default 2s.
    #[serde(default = "default_timeout")]
    pub(super) timeout: Span,
    /// The client's headers that the service sees. Default `Authorization` and `Cookie`.
    #[serde(default = "default_request_headers")]
    pub(super) request_headers: Vec<String>,
    /// Headers of the service's answer that the backend sees; a client's own headers of these names are dropped.
    #[serde(default)]
    pub(super) response_headers: Vec<String>,
    /// The header of the service's answer that says who the client is. Default: nobody is named.
    #[serde(default)]
    pub(super) identity: Option<String>,
    /// What to do when the service does not answer: `deny` (503) or `allow`. Default `deny`.
    #[serde(default)]
    pub(super) on_error: OnError,
    /// How many requests are sent to the service at once; ten times as many may wait. Default 100.
    #[serde(default = "default_at_once")]
    pub(super) at_once: usize,
    /// Pass what the service is shown as a credential on to the backend: `Authorization`, and fields of your own. Default false.
    #[serde(default)]
    pub(super) forward: bool,
    /// Remember whom the service lets pass. Default: it is asked each time.
    #[serde(default)]
    pub(super) cache: Option<CacheConfig>,
}

/// How long what the service has said counts, and for whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ForwardAuthCache")]
pub(super) struct CacheConfig {
    /// How long: 1h at most, and less when the answer's `Cache-Control` says so. Only who may pass is remembered.
    pub(super) ttl: Span,
    /// What the service does not judge by: `method`, `host`, `uri`, `proto`, `client`. Requests that differ in something else that it
    /// is sent, the `request_headers` among them, are asked about each. Default: none.
    #[serde(default)]
    pub(super) ignore: Vec<Ignored>,
}

/// Something that the service is told about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ForwardAuthIgnored")]
pub(super) enum Ignored {
    /// `X-Forwarded-Method`.
    Method,
    /// `X-Forwarded-Host`.
    Host,
    /// `X-Forwarded-Uri`.
    Uri,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-For`.
    Client,
}

/// What becomes of a request about which the service gives no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ForwardAuthOnError")]
pub(super) enum OnError {
    /// It is answered 503.
    #[default]
    Deny,
    /// It passes, as nobody's.
    Allow,
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(2))
}

fn default_request_headers() -> Vec<String> {
    vec!["Authorization".into(), "Cookie".into()]
}

fn default_at_once() -> usize {
    100
}

impl ForwardAuthConfig {
    /// Whom it asks.
    pub(super) fn target(&self, invalid: &mut Invalid) -> Option<OutboundTarget> {
        if self.timeout.0.is_zero() || self.timeout.0 > Duration::from_secs(60) {
            invalid.push("timeout", "is more than 0 and at most 60s: requests wait for it");
        }
        let trusted = self.ca.as_ref().map(trusted).transpose();
        let trusted = trusted.map_err(|message| invalid.push("ca", message)).ok()?;
        let place = HttpPlace::new(&self.url, trusted, self.timeout.0);
        let place =
            place.map_err(|why| invalid.push("url", format!("{why}: write it like http://auth.internal:9000/verify")));
        let place = place.ok()?;
        if !place.tls && self.ca.is_some() {
            invalid.push("ca", "has no effect without https");
        }
        Some(place.into())
    }
}
