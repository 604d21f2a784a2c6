//! A client that has been to a backend goes there again: the gateway's own cookie names it. A backend that is gone, full
//! or unwell is left for another one, and the cookie is set anew.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{Backend, Service, balance::cookie};

/// What a cookie calls the backend of this name: the same in every process, and no address.
pub(super) fn token(name: &str) -> String {
    format!("{:016x}", ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(name))
}

impl Service {
    /// The backend that the client's cookie names.
    pub(super) fn stuck_to(&self, backends: &[Arc<Backend>], headers: &HeaderMap) -> Option<Arc<Backend>> {
        let token = cookie(headers, &self.sticky.as_ref()?.cookie)?;
        backends.iter().find(|backend| backend.token == token).cloned()
    }

    /// The cookie for a client that `backend` has answered, when it does not have it already.
    pub fn set_cookie(&self, backend: &Backend, headers: &HeaderMap, secure: bool) -> Option<HeaderValue> {
        let sticky = self.sticky.as_ref()?;
        if cookie(headers, &sticky.cookie) == Some(&backend.token) {
            return None;
        }
        let age = sticky.ttl.map(|ttl| format!("; Max-Age={}", ttl.0.as_secs())).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        let text = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", sticky.cookie, backend.token);
        HeaderValue::try_from(text).ok()
    }
}
