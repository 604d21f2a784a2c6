//! Who is asking: credentials in, an [`Identity`] out.
//!
//! [`Keys`] knows API keys by their digest, [`Verifier`] checks JSON Web Tokens against a [`Policy`] and a [`Keyset`]. Both are
//! pure: they fetch nothing, read no clock (`now` is an argument, in Unix seconds) and know no HTTP. Where a credential is found in
//! a request, how a refusal looks, and when a key set is fetched again is for the caller.
//!
//! No error and no `Debug` output here contains a credential or a part of one.

mod apikey;
mod cache;
mod certificate;
mod claims;
mod digest;
mod http_signature;
mod identity;
mod jwt;
pub(crate) mod jwt_error;
mod keyset;
mod mint;
mod nonces;
mod password;
mod refresh;
mod signing;
mod timestamp_signature;
mod users;

pub use apikey::{DuplicateKey, Entry, Keys, Refusal};
pub use cache::VerifiedTokens;
pub use certificate::{Certificate, dns_names, not_after};
pub use digest::{Digest, InvalidDigest};
pub use http_signature::{
    HttpSignature, MOST_COMPONENTS, NO_KEY_ID, SharedSecret, Unreadable, component_mistakes, is_key_id,
};
pub use identity::{Identities, Identity, Method, OF_THE_TOKEN, Untellable};
pub use jwt::{Policy, Verifier, unverified_issuer};
pub use jwt_error::JwtError;
pub use keyset::{KeyError, KeyInfo, Keyset};
pub use mint::{NoEntropy, generate_key, has_checksum};
pub use nonces::{NonceStores, Nonces, Noted};
pub use password::{InvalidHash, LONGEST_CREDENTIALS, PasswordHash};
pub use refresh::{Refresh, RefreshTimes};
pub use signing::{SignatureFields, SigningKey};
pub use timestamp_signature::TimestampSignature;
pub use users::{CredentialKey, User, Users};

/// The signature algorithms a [`Policy`] can name.
pub use jsonwebtoken::Algorithm;
