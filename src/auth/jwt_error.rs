//! Why a token is refused.

use std::fmt;

/// Why a token was not accepted. No text of the token is in it: the names are those of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtError {
    /// Not three parts of canonical base64url with JSON objects in them, too long, or a time that is no number.
    Malformed,
    /// The algorithm is none that the policy names.
    Algorithm,
    /// No key has the id that the token names, or none fits its algorithm. A newer key set may have it.
    UnknownKey,
    /// It does not say which key has signed it, and there are more that fit than are tried.
    NoKeyNamed,
    /// The signature is not one of our keys'.
    Signature,
    /// `exp` is over.
    Expired,
    /// `nbf` or `iat` is still to come.
    NotYet,
    /// Issued by somebody else.
    Issuer,
    /// Issued for somebody else.
    Audience,
    /// A claim is not there.
    MissingClaim(String),
    /// A claim has another value.
    ClaimMismatch(String),
    /// The token demands an extension (`crit`), and we know none.
    Critical,
    /// The token brings a key along (`jwk`, `jku`, `x5c`, `x5u`).
    OwnKey,
    /// There is more than one token.
    Several,
    /// A scope was not granted.
    MissingScope(String),
    /// A claim that is asked for here is not there, or has a value that is not enough.
    NotAllowed(String),
}

impl JwtError {
    /// The error code of RFC 6750, 3.1 for a `WWW-Authenticate` header.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingScope(_) | Self::NotAllowed(_) => "insufficient_scope",
            _ => "invalid_token",
        }
    }
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token's algorithm is not allowed",
            Self::UnknownKey => "the token's key is not known",
            Self::NoKeyNamed => "the token does not say which key has signed it",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Issuer => "the token's issuer is not accepted",
            Self::Audience => "the token is for another audience",
            Self::OwnKey => "the token brings a key of its own",
            Self::Several => "there is more than one token",
            Self::Critical => "the token demands an unknown extension",
            Self::MissingClaim(name) => return write!(f, "the token has no claim '{name}'"),
            Self::ClaimMismatch(name) => return write!(f, "the token's claim '{name}' is not accepted"),
            Self::MissingScope(name) => return write!(f, "the token lacks the scope '{name}'"),
            Self::NotAllowed(name) => return write!(f, "the token's claim '{name}' does not allow this"),
        })
    }
}

impl std::error::Error for JwtError {}
