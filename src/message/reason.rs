//! Why a request was refused, or failed: one word from a closed list, for the access log and for metrics. `docs/why-503.md`
//! has a table of them, with cause and cure.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a request was refused, or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All that there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in logs and labels.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reasons! {
    /// The head, or the framing of the body, cannot be read in one way only.
    Malformed = "malformed_request",
    /// A backend could read the path as another one.
    AmbiguousPath = "ambiguous_path",
    /// The target or the fields are longer than the limits.
    HeadTooLarge = "head_too_large",
    /// The body is longer than the route takes.
    BodyTooLarge = "body_too_large",
    /// The request did not come in time.
    RequestTimeout = "request_timeout",
    /// The method is none that is served there, or that there is.
    Method = "method_not_allowed",
    /// `Expect` asks for something unknown.
    Expectation = "expectation_failed",
    /// No route matches.
    NoRoute = "no_route",
    /// The client went away first.
    ClientClosed = "client_closed",
    /// There is no key, token or certificate.
    CredentialsMissing = "credentials_missing",
    /// No such key.
    KeyUnknown = "key_unknown",
    /// The key's time is over.
    KeyExpired = "key_expired",
    /// The key is valid and may not do this.
    KeyNotAllowed = "key_not_allowed",
    /// The name and password cannot be read in one way only.
    PasswordMalformed = "password_malformed",
    /// Nobody has this name and this password.
    PasswordWrong = "password_wrong",
    /// Too many passwords are being checked already.
    PasswordChecksBusy = "password_checks_busy",
    /// The token is none, or cannot be read in one way only.
    TokenMalformed = "token_malformed",
    /// The token's algorithm is not allowed.
    TokenAlgorithm = "token_algorithm",
    /// No key of ours signed it, as far as it says.
    TokenKey = "token_key_unknown",
    /// The keys that could verify the token have not been fetched yet.
    TokenKeysMissing = "token_keys_missing",
    /// The signature is wrong.
    TokenSignature = "token_signature",
    /// The token's time is over.
    TokenExpired = "token_expired",
    /// The token's time is still to come.
    TokenNotYet = "token_not_yet_valid",
    /// Somebody else has issued it.
    TokenIssuer = "token_issuer",
    /// It was issued for somebody else.
    TokenAudience = "token_audience",
    /// It lacks a claim that every token must have.
    TokenClaim = "token_claim",
    /// The token, or the key, is valid and lacks a scope.
    ScopeMissing = "scope_missing",
    /// The request's signature is none, or cannot be read in one way only.
    SignatureMalformed = "signature_malformed",
    /// The signature leaves something out that it must cover.
    SignatureIncomplete = "signature_incomplete",
    /// No key of ours has signed the request.
    SignatureWrong = "signature_wrong",
    /// The signature's time is over, or still to come.
    SignatureExpired = "signature_expired",
    /// The signature was used before.
    SignatureReplayed = "signature_replayed",
    /// There is no room for another nonce.
    NoncesFull = "nonces_full",
    /// Whether another gateway has seen the nonce cannot be known, and nothing passes meanwhile.
    NonceStoreDown = "nonce_store_down",
    /// The body is not the one that was signed.
    DigestWrong = "digest_wrong",
    /// The client has sent a field that the service's signatures cover, with bytes that none can.
    FieldUnsignable = "field_unsignable",
    /// The client's name has characters that the service's signatures cannot cover.
    IdentityUnsignable = "identity_unsignable",
    /// The token is valid and lacks a claim, or a value, that the route requires.
    ClaimNotAllowed = "claim_not_allowed",
    /// The service that was asked about the request says no.
    AuthServiceRefused = "auth_service_refused",
    /// The service that was asked about the request has given no answer that counts.
    AuthServiceFailed = "auth_service_failed",
    /// Too many requests wait for that service already.
    AuthServiceBusy = "auth_service_busy",
    /// The client is known and may not do this (filter `acl`).
    IdentityNotAllowed = "identity_not_allowed",
    /// The certificate is valid and may not do this.
    CertificateNotAllowed = "certificate_not_allowed",
    /// The client's address may not do this.
    AddressNotAllowed = "address_not_allowed",
    /// The page's origin may not do this.
    OriginNotAllowed = "origin_not_allowed",
    /// A filter of somebody else's has refused it without a reason of this list.
    Refused = "refused",
    /// A filter could not decide.
    FilterFailed = "filter_failed",
    /// Too many requests in a time.
    RateLimited = "rate_limited",
    /// A limit that gateways share cannot be counted, and lets nothing pass meanwhile.
    LimitStoreDown = "limit_store_down",
    /// Too many requests at once (filter `in_flight`).
    TooManyAtOnce = "too_many_in_flight",
    /// The route's `in_flight` is used up, and its queue is full.
    RouteQueueFull = "route_queue_full",
    /// The wait in the route's queue is over.
    RouteQueueTimeout = "route_queue_timeout",
    /// The service's `in_flight` is used up, and its queue is full.
    ServiceQueueFull = "service_queue_full",
    /// The wait in the service's queue is over.
    ServiceQueueTimeout = "service_queue_timeout",
    /// A circuit breaker is open.
    BreakerOpen = "breaker_open",
    /// Every backend fails its checks.
    NoHealthyBackend = "no_healthy_backend",
    /// No backend is known: its name is not resolved, or its file is empty.
    NoBackendKnown = "no_backend_known",
    /// The weights of the route's services leave none.
    NoDestination = "no_destination",
    /// The backend refused the connection.
    ConnectRefused = "connect_refused",
    /// The backend was not reached for another reason.
    ConnectFailed = "connect_failed",
    /// There was no connection, because this machine or process has run out of descriptors, ports or memory.
    LocalResources = "local_resources",
    /// The connection did not stand in time.
    ConnectTimeout = "connect_timeout",
    /// The backend's certificate comes from an authority that is not trusted.
    TlsUntrusted = "tls_untrusted",
    /// The backend's certificate is for another name.
    TlsName = "tls_name",
    /// The backend's certificate is not valid now.
    TlsExpired = "tls_expired",
    /// The backend does not speak TLS.
    TlsPlain = "tls_plain",
    /// The handshake with the backend failed otherwise.
    TlsFailed = "tls_failed",
    /// The backend broke off.
    ConnectionReset = "connection_reset",
    /// The backend's answer cannot be read in one way only.
    MalformedResponse = "malformed_response",
    /// The backend was silent for `timeouts.read`.
    ReadTimeout = "read_timeout",
    /// The backend took nothing for `timeouts.write`.
    WriteTimeout = "write_timeout",
    /// A tunnel, or a stream of gRPC, was silent for `timeouts.idle`.
    IdleTimeout = "idle_timeout",
    /// `timeouts.total` is over.
    TotalTimeout = "total_timeout",
    /// The time that a gRPC client has granted is over.
    GrpcDeadline = "grpc_deadline",
    /// The client's certificate ended before its tunnel did.
    CertificateEnded = "certificate_ended",
    /// The process ended before the answer did.
    Shutdown = "shutdown",
    /// A fault of ours.
    Internal = "internal_error",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_word_and_a_row_in_the_table() {
        let page = include_str!("../../docs/why-503.md");
        let (_, rest) = page.split_once("\n| `reason` | ").unwrap_or_default();
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with("| "));
        let cells = rows.filter_map(|row| row.split('|').nth(1));
        let mut listed: Vec<&str> =
            cells.flat_map(|cell| cell.split(',')).map(|word| word.trim_matches([' ', '`'])).collect();
        let mut known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
