//! Settings of the filter `hmac`.

use std::{collections::BTreeSet, time::Duration};

use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    digest::Mode,
    replay::{MAX_AGE, NonceSync, NoncesDown, Replay, Secret, window},
};
use crate::{
    auth::{MOST_COMPONENTS, NO_KEY_ID, SharedSecret, component_mistakes, is_key_id},
    filter::{Env, Invalid},
    units::{SecretRef, Size, Span},
};

/// Settings of `hmac`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HmacSettings")]
pub(crate) struct HmacConfig {
    /// Who may sign.
    keys: Vec<KeyConfig>,
    /// What a signature must cover: `@method`, `@authority`, `@path`, `@query`, `@scheme`, `@target-uri`, `@request-target`, and
    /// fields in lower case, where there are such. Default `@method`, `@authority`, `@path`, `@query`. `content-digest` of a
    /// request with a body is always one of them.
    #[serde(default = "default_components")]
    pub(super) components: Vec<String>,
    /// The most that `created` may differ from the time, either way. Default 60s, at most 5m.
    #[serde(default = "default_age")]
    pub(super) max_age: Span,
    /// `buffer`: the backend gets no byte of the body before all of it is verified. `stream`: it gets all but the last part.
    /// Default buffer.
    #[serde(default)]
    body: BodyMode,
    /// The largest body that is buffered; 413 beyond. Default 1MiB.
    #[serde(default)]
    buffer: Option<Size>,
    /// Nonces to remember of each secret for each time of twice `max_age`; when there are more, requests that it has signed are
    /// answered 503. Default 100000.
    #[serde(default = "default_nonces")]
    nonces: usize,
    /// Where nonces are remembered: `local` in this process, `strict` also in Redis, for all gateways, with a call for every signed
    /// request. Default: `strict` with `redis` at the top of the file, else `local`.
    #[serde(default)]
    sync: Option<NonceSync>,
    /// What happens while Redis does not answer: `local` (what this process remembers counts) or `deny` (503). Default `local`.
    #[serde(default)]
    on_store_down: Option<NoncesDown>,
    /// Also take signatures of the simple kind, from this field: `keyid=ID,t=TIME,v1=HEX`, where `v1` is the HMAC-SHA256 of four
    /// lines: the time, the method, the path with its query, and `Content-Digest` (empty without a body). Not taken when absent.
    #[serde(default)]
    pub(super) simple_header: Option<String>,
    /// Tells the backend who has signed; a client's own header of that name is dropped. Default `X-Consumer-ID`.
    #[serde(default = "default_identity")]
    pub(super) identity_header: String,
    /// Pass the signature on to the backend. Default false.
    #[serde(default)]
    pub(super) forward: bool,
}

/// Somebody who signs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    /// `keyid` of the signature.
    id: String,
    /// The secret, of at least 32 bytes; several while one is being replaced.
    secrets: Vec<SecretRef>,
    /// Who that is, for the backend, the log and limits. Default: the id.
    owner: Option<String>,
}

/// When the backend gets a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum BodyMode {
    /// When all of it is verified.
    #[default]
    Buffer,
    /// As it comes, but for the last part.
    Stream,
}

/// Somebody who signs.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) owner: String,
    pub(super) secrets: Vec<Secret>,
}

fn default_components() -> Vec<String> {
    ["@method", "@authority", "@path", "@query"].map(str::to_owned).to_vec()
}

fn default_age() -> Span {
    Span(Duration::from_secs(60))
}

/// The largest body that is buffered, unless the settings say otherwise.
const BUFFER: Size = Size(1 << 20);

fn default_nonces() -> usize {
    100_000
}

fn default_identity() -> String {
    "X-Consumer-ID".into()
}

impl HmacConfig {
    pub(super) fn mode(&self) -> Mode {
        match self.body {
            BodyMode::Buffer => Mode::Buffer(self.buffer.unwrap_or(BUFFER).0),
            BodyMode::Stream => Mode::Stream,
        }
    }

    pub(super) fn validate(&self, invalid: &mut Invalid) {
        self.validate_components(invalid);
        if self.max_age.0 < Duration::from_secs(1) || self.max_age.0 > MAX_AGE {
            invalid.push("max_age", "is 1s to 5m: for so long every nonce is remembered");
        }
        if self.body == BodyMode::Stream && self.buffer.is_some() {
            invalid.push("buffer", "has no effect with 'body: stream'");
        }
        if self.nonces == 0 {
            invalid.push("nonces", "0 would refuse every request");
        }
    }

    fn validate_components(&self, invalid: &mut Invalid) {
        if self.components.is_empty() {
            invalid
                .push("components", "name at least one, or a signature protects nothing of a request without a body");
        }
        // The digest of the body comes on top.
        if self.components.len() >= MOST_COMPONENTS {
            let most = MOST_COMPONENTS - 1;
            invalid.push("components", format!("are at most {most}: a signature that covers more is not read"));
        }
        for (i, mistake) in component_mistakes(&self.components) {
            invalid.push(format!("components[{i}]"), mistake);
        }
    }

    pub(super) fn replay(&self, env: &Env, invalid: &mut Invalid) -> Replay {
        if self.sync == Some(NonceSync::Strict) && env.redis.is_none() {
            let message = "there is no 'redis' at the top of the file, in which gateways would remember nonces together: add it (redis: { url: \"redis://host:6379\" }), or write 'local'";
            invalid.push("sync", message);
        }
        let sync = self.sync.unwrap_or(if env.redis.is_some() { NonceSync::Strict } else { NonceSync::Local });
        let redis = env.redis.clone().filter(|_| sync == NonceSync::Strict);
        if sync == NonceSync::Local && self.on_store_down.is_some() {
            invalid.push("on_store_down", "has no effect on nonces that this process remembers alone: leave it out");
        }
        Replay::new(redis, self.on_store_down.unwrap_or_default())
    }

    pub(super) fn keys(&self, env: &Env, invalid: &mut Invalid) -> Vec<Key> {
        if self.keys.is_empty() {
            invalid.push("keys", "give at least one key, or nobody can pass");
        }
        let (mut ids, mut keys) = (BTreeSet::new(), Vec::new());
        for (i, config) in self.keys.iter().enumerate() {
            let path = format!("keys[{i}]");
            if !ids.insert(&config.id) {
                invalid.push(format!("{path}.id"), format!("'{}' is there twice", config.id));
            }
            if !is_key_id(&config.id) {
                invalid.push(format!("{path}.id"), NO_KEY_ID);
            }
            let is_told =
                |name: &String| !name.is_empty() && name.trim() == name && HeaderValue::try_from(name).is_ok();
            if config.owner.as_ref().is_some_and(|owner| !is_told(owner)) {
                let message = "must not be empty, nor have spaces around it or characters that a header cannot carry";
                invalid.push(format!("{path}.owner"), message);
            }
            if config.secrets.is_empty() {
                invalid.push(format!("{path}.secrets"), "give at least one secret");
            }
            let mut secrets = Vec::new();
            for (j, secret) in config.secrets.iter().enumerate() {
                match SharedSecret::read(secret, &env.readers) {
                    Ok(shared) => {
                        let nonces = env.nonces.of(shared.stamp(), window(self.max_age.0), self.nonces);
                        secrets.push(Secret { shared, nonces });
                    }
                    Err(message) => invalid.push(format!("{path}.secrets[{j}]"), message),
                }
            }
            let owner = config.owner.clone().unwrap_or_else(|| config.id.clone());
            keys.push(Key { id: config.id.clone(), owner, secrets });
        }
        keys
    }
}
