//! Who asks, as a part of keys: whoever may be answered differently is somebody else.

use crate::auth::{Identities, Identity, Method, OF_THE_TOKEN};

/// One part for each credential that was verified.
pub(super) fn parts(identities: &Identities) -> Vec<Vec<u8>> {
    let unnamed = identities.unnamed().map(|shown| [b"unnamed ", shown.as_bytes().as_slice()].concat());
    identities.iter().map(|identity| part(identity, identities.told())).chain(unnamed).collect()
}

/// `told` are claims of the token itself that backends see.
fn part(identity: &Identity, told: &[&str]) -> Vec<u8> {
    let mut out = format!("{:?}", identity.method).into_bytes();
    let mut put = |text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    put(&identity.subject);
    put(identity.key_id.as_deref().unwrap_or_default());
    put(&identity.scopes.len().to_string());
    identity.scopes.iter().for_each(|scope| put(scope));
    // Backends may be told any of them, and whatever a service has said of the client. A token that names nobody is known by what is its
    // own.
    let all = identity.subject.is_empty() || identity.method != Method::Jwt;
    let counts = |name: &str| all || !OF_THE_TOKEN.contains(&name) || told.contains(&name);
    for (name, value) in identity.claims.iter().filter(|(name, _)| counts(name)) {
        put(name);
        put(&value.to_string());
    }
    out
}
