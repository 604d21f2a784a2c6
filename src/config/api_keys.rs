//! `api_keys:` to the keys that are known.

use std::collections::HashMap;

use super::ApiKeyConfig;
use crate::{
    auth::{Digest, Entry, Identity, Keys, Method},
    units::{Problem, Problems},
    yaml::{Location, Node, Spanned},
};

/// Those that are right; what is wrong with the others is told.
pub(super) fn api_keys(configs: &[Spanned<ApiKeyConfig>], root: &Node, problems: &mut Problems) -> Keys {
    let (mut ids, mut digests) = (HashMap::new(), HashMap::new());
    let mut entries = Vec::new();
    for config in configs {
        let mut wrong = |key: &str, message: String| {
            let path = format!("{}.{key}", config.place.path);
            let Location { line, column, .. } = *root.at(&path).place();
            problems.push(Problem { line, column, path, message });
        };
        if let Some(first) = ids.insert(&config.id, &config.place.path) {
            wrong("id", format!("'{}' is the id of {first} already", config.id));
        }
        // Backends and logs are told it, and limits count by it.
        let told = |name: &str| !name.is_empty() && http::HeaderValue::try_from(name).is_ok();
        for (key, name) in [("id", Some(&config.id)), ("owner", config.owner.as_ref())] {
            if name.is_some_and(|name| !told(name)) {
                wrong(key, "must not be empty, nor have characters that a header cannot carry".to_owned());
            }
        }
        let digest = match config.sha256.parse::<Digest>() {
            Ok(digest) => digest,
            Err(e) => {
                wrong("sha256", format!("{e}: 'tollgate hash-key' prints one"));
                continue;
            }
        };
        if let Some(first) = digests.insert(digest, &config.place.path) {
            wrong("sha256", format!("this is the key of {first} already"));
            continue;
        }
        let expires = config.expires.as_deref().map(str::parse::<jiff::Timestamp>).transpose();
        let not_after = expires.unwrap_or_else(|_| {
            wrong("expires", "not an RFC 3339 time: write it like 2027-01-31T00:00:00Z".to_owned());
            None
        });
        if config.tier.as_deref() == Some("") {
            wrong("tier", "is empty: name one, or leave it out".to_owned());
        }
        let tier = config.tier.as_ref().map(|tier| ("tier".to_owned(), tier.as_str().into()));
        let identity = Identity {
            subject: config.owner.clone().unwrap_or_else(|| config.id.clone()),
            method: Method::ApiKey,
            scopes: config.scopes.clone(),
            claims: tier.into_iter().collect(),
            key_id: Some(config.id.clone()),
        };
        let not_after = not_after.map(|time| u64::try_from(time.as_second()).unwrap_or(0));
        entries.push(Entry { digest, identity, not_after });
    }
    // Duplicates have been reported above.
    Keys::new(entries).unwrap_or_default()
}
