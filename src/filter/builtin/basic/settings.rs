//! Settings of the filter `basic`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{FileRef, Span};

/// Settings of `basic`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BasicSettings")]
pub(crate) struct Config {
    /// Who may pass.
    pub(super) users: Vec<UserConfig>,
    /// More of them, `NAME:HASH` a line, as `htpasswd -B` writes it; only its owner may read it. It is read again when it changes.
    pub(super) users_file: Option<FileRef>,
    /// What people are asked the password for. Default: the route's name.
    pub(super) realm: Option<String>,
    /// Tells the backend the name; a client's own header of that name is dropped. Default `X-Auth-Subject`.
    pub(super) identity_header: String,
    /// Pass the password on to the backend. Default false.
    pub(super) forward: bool,
    /// How long a password that was right need not be checked again; one that was wrong is remembered for 10s at most. 0 checks
    /// every time. Default 5m.
    pub(super) cache: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            users_file: None,
            realm: None,
            identity_header: "X-Auth-Subject".into(),
            forward: false,
            cache: Span(Duration::from_secs(5 * 60)),
        }
    }
}

/// One user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BasicUser")]
pub(super) struct UserConfig {
    /// The name, without a colon.
    pub(super) name: String,
    /// The hash of the password, argon2id or bcrypt; `tollgate hash-password` prints one.
    pub(super) password_hash: String,
    /// What the user may do.
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    /// Roles, for `acl`.
    #[serde(default)]
    pub(super) roles: Vec<String>,
    /// What the user is to `acl` and to limits by `claim:tier`.
    #[serde(default)]
    pub(super) tier: Option<String>,
}
