//! `sign:` of a service.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    auth::{MOST_COMPONENTS, NO_KEY_ID, component_mistakes, is_key_id},
    units::{Problems, SecretRef},
    yaml::Node,
};

/// `sign:` of a service: its requests carry an HTTP message signature (RFC 9421, `hmac-sha256`) of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignConfig {
    /// `keyid` of the signature.
    pub key_id: String,
    /// The secret that the backends have, too, of at least 32 bytes.
    pub secret: SecretRef,
    /// What a signature covers, of what a request has: `@method`, `@authority`, `@path`, `@query`, `@scheme`, `@target-uri`,
    /// `@request-target`, and fields in lower case. Default `@method`, `@authority`, `@path`, `@query`, `content-digest`,
    /// `x-consumer-id`, `x-auth-subject`.
    #[serde(default = "default_components")]
    pub components: Vec<String>,
}

fn default_components() -> Vec<String> {
    ["@method", "@authority", "@path", "@query", "content-digest", "x-consumer-id", "x-auth-subject"]
        .map(str::to_owned)
        .to_vec()
}

impl SignConfig {
    pub(crate) fn validate(&self, node: &Node, problems: &mut Problems) {
        let mut wrong = |key: &str, message: String| problems.push(node.at(key).place().problem(message));
        if !self.components.iter().any(|name| name.starts_with('@')) {
            let message = "are at least one that begins with '@': without it a signature fits any request";
            wrong("components", message.to_owned());
        }
        if self.components.len() > MOST_COMPONENTS {
            wrong("components", format!("are at most {MOST_COMPONENTS}"));
        }
        for (i, mistake) in component_mistakes(&self.components) {
            wrong(&format!("components[{i}]"), mistake);
        }
        for (i, name) in self.components.iter().enumerate() {
            let message = match name.as_str() {
                "host" => {
                    "a backend over HTTP/2 gets no 'Host': write \"@authority\", which is the same for each version"
                }
                "signature" | "signature-input" => "is replaced by the gateway's own: leave it out",
                _ => continue,
            };
            wrong(&format!("components[{i}]"), message.to_owned());
        }
        if !is_key_id(&self.key_id) {
            wrong("key_id", NO_KEY_ID.to_owned());
        }
    }
}
