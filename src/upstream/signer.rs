//! Signs what a service's backends get, so that they need not take anybody's word for who sends it.

use std::fmt;

use http::{HeaderName, HeaderValue};
use pingora::{Error, ErrorType, http::RequestHeader};

use super::settings::sign::SignConfig;
use crate::{
    auth::{SharedSecret, SigningKey},
    clock::Now,
    message::{components::Components, edit::Edit as _},
    units::Problems,
    yaml::Node,
};

/// Why a head is not signed.
pub(crate) enum Unsigned {
    /// This field has bytes that no signature can cover.
    Field(HeaderName),
    /// Another fault.
    Broken(Box<Error>),
}

const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// Some backends read it as the one with a dash.
const SIGNATURE_INPUT_SPELLED: HeaderName = HeaderName::from_static("signature_input");

/// What signs requests to a service.
pub(crate) struct Signer {
    key: SigningKey,
    components: Vec<String>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {}, {:?})", self.key.id, self.key.secret.stamp(), self.components)
    }
}

impl Signer {
    /// By the settings; what is wrong with them goes to `problems`.
    pub(crate) fn build(config: &SignConfig, readers: &[u32], node: &Node, problems: &mut Problems) -> Option<Self> {
        config.validate(node, problems);
        let secret = match SharedSecret::read(&config.secret, readers) {
            Ok(secret) => secret,
            Err(message) => {
                problems.push(node.at("secret").place().problem(message));
                return None;
            }
        };
        let key = SigningKey { id: config.key_id.clone(), secret };
        Some(Self { key, components: config.components.clone() })
    }

    /// True when both sign the same with the same secret.
    pub(crate) fn are_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        let of = |signer: Option<&Self>| {
            signer.map(|signer| (signer.key.id.clone(), signer.key.secret.stamp(), signer.components.clone()))
        };
        of(one) == of(other)
    }

    /// Whether its signatures cover this field, where a request has it.
    pub(crate) fn covers(&self, field: &str) -> bool {
        self.components.iter().any(|name| name == field)
    }

    /// Signs a head that goes to a backend, `secure`ly or not; nothing may change it afterwards. Signatures that are there
    /// already are replaced.
    pub(crate) fn sign(&self, head: &mut RequestHeader, secure: bool) -> Result<(), Unsigned> {
        head.remove_header(&SIGNATURE_INPUT_SPELLED);
        let request = Components { method: &head.method, target: &head.uri, headers: &head.headers, secure };
        let covered = self.components.iter().filter(|name| request.has(name)).cloned().collect::<Vec<_>>();
        let signed = self.key.sign(&covered, Now::read().unix, |name| request.value(name));
        let fields = signed.and_then(|signed| {
            Some((HeaderValue::try_from(signed.input).ok()?, HeaderValue::try_from(signed.signature).ok()?))
        });
        let Some((input, signature)) = fields else {
            let field = covered.iter().find(|name| !name.starts_with('@') && request.value(name).is_none());
            // Else it is an authority that cannot be read, or a system without random numbers.
            let broken = || Unsigned::Broken(Error::explain(ErrorType::InternalError, "the request cannot be signed"));
            return Err(field.and_then(|name| name.parse().ok()).map_or_else(broken, Unsigned::Field));
        };
        head.edit(|fields| {
            fields.insert(SIGNATURE_INPUT, input)?;
            fields.insert(SIGNATURE, signature)
        })
        .map_err(Unsigned::Broken)
    }
}
