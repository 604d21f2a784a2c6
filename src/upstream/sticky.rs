//! A client that has been to a backend goes there again: the gateway's own cookie names it. A backend that is gone, full
//! or unwell is left for another one, and the cookie is set anew.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue};

use super::{backend::Backend, settings::service::StickyConfig};
use crate::{
    message::fields,
    units::{Problems, Secret, sha256},
    upstream::token::Token,
    yaml::Node,
};

/// Fewer bytes of a secret could be guessed.
const SHORTEST: usize = 16;

/// What cookies call backends is made with it. Without a key, whoever knows the algorithm could try addresses at home
/// until one fits, and would know where the backends are.
pub(crate) struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Key {
    /// The key of `config`: from its secret, whose file `readers` may read, or
    /// one that nobody else has and that ends with the process.
    pub(crate) fn of(config: &StickyConfig, readers: &[u32], node: &Node, problems: &mut Problems) -> Option<Self> {
        let mut wrong = |message: String| {
            problems.push(node.at("secret").place().problem(message));
            None
        };
        match config.secret.as_ref().map(|secret| secret.read(readers)) {
            Some(Ok(secret)) if secret.expose().len() < SHORTEST => {
                wrong(format!("the secret is shorter than {SHORTEST} bytes"))
            }
            Some(Ok(secret)) => Some(Self::from(&secret)),
            Some(Err(message)) => wrong(message),
            None => {
                let mut bytes = [0; 32];
                match getrandom::fill(&mut bytes) {
                    Ok(()) => Some(Self(bytes)),
                    Err(_) => wrong("the operating system gave no random bytes".to_owned()),
                }
            }
        }
    }

    /// What a cookie calls the backend of this name.
    pub(crate) fn token(&self, name: &str) -> Token {
        let digest = sha256(&[&self.0, name.as_bytes()].concat());
        Token(digest[..8].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
    }
}

impl From<&Secret> for Key {
    fn from(secret: &Secret) -> Self {
        Self(sha256(secret.expose()))
    }
}

/// What sends clients where they have been.
#[derive(Debug, Clone)]
pub(crate) struct Sticky {
    config: StickyConfig,
    key: Arc<Key>,
}

impl Sticky {
    /// By the settings; what is wrong with them goes to `problems`.
    pub(crate) fn build(config: &StickyConfig, readers: &[u32], node: &Node, problems: &mut Problems) -> Option<Self> {
        Some(Self { config: config.clone(), key: Arc::new(Key::of(config, readers, node, problems)?) })
    }

    /// True when a client's cookie means the same to both: the key that a process draws for itself stays with it.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.config == other.config && (self.config.secret.is_none() || self.key.0 == other.key.0)
    }

    /// Tells its key from others.
    pub(crate) fn key_bytes(&self) -> &[u8; 32] {
        &self.key.0
    }

    /// The key that turns the names of backends into what cookies say.
    pub(crate) fn key(&self) -> Arc<Key> {
        self.key.clone()
    }

    /// The backend that the client's cookie names.
    pub(crate) fn backend(&self, backends: &[Arc<Backend>], headers: &HeaderMap) -> Option<Arc<Backend>> {
        let token = fields::cookie(headers, &self.config.cookie)?;
        backends.iter().find(|backend| backend.token.as_ref().is_some_and(|own| own.0.as_bytes() == token)).cloned()
    }

    /// The cookie for a client that `backend` has answered, when it does not have it already.
    pub(crate) fn set_cookie(&self, backend: &Backend, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
        let Token(token) = backend.token.as_ref()?;
        if fields::cookie(headers, &self.config.cookie) == Some(token.as_bytes()) {
            return None;
        }
        let age = self.config.ttl.map(|ttl| format!("; Max-Age={}", ttl.0.as_secs())).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        let text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", self.config.cookie, token);
        HeaderValue::try_from(text).ok()
    }
}
