//! Why an answer is not kept.

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why an answer is not kept: a closed list, for `Cache-Status` and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $name,)+
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word for `Cache-Status` (`detail=`) and metrics.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

refusals! {
    /// The request was not a GET.
    Method = "method",
    /// The client asked for it.
    RequestNoStore = "request-no-store",
    /// An interim answer, a switch of protocols, a 304 of the client's own, or none of HTTP's.
    Status = "status",
    /// A part: 206 (RFC 9111 §3.3 would allow it).
    Partial = "partial",
    /// `must-understand` with a status that this cache does not know.
    NotUnderstood = "not-understood",
    /// `no-store`.
    NoStore = "no-store",
    /// `private`.
    Private = "private",
    /// An answer to `Authorization` that does not say that it is for others too (RFC 9111 §3.5).
    Authorization = "authorization",
    /// `Set-Cookie`.
    SetCookie = "set-cookie",
    /// The request had a cookie, and the backend does not say how long the answer is good.
    Cookie = "cookie",
    /// `Vary: *`.
    VaryAny = "vary-any",
    /// `Vary` names too many fields, or the request's values are too long.
    VaryTooLarge = "vary-too-large",
    /// Too many tags to find it by, or too long ones.
    Tags = "tags",
    /// Nobody says how long it is good.
    NoLifetime = "no-lifetime",
    /// It is stale already, and cannot be validated.
    Stale = "stale",
    /// Its body is too large.
    TooLarge = "too-large",
    /// Its body ended too early, or is not as long as was said.
    Incomplete = "incomplete",
    /// What it is kept under was purged, or invalidated, while it was on its way.
    Purged = "purged",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_tokens_and_differ() {
        let mut labels: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }
}
