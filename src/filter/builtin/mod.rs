//! The built-in filters, a file each. What stands in the list below is compiled and may be named in YAML: a new filter is its
//! file and one line.

mod challenges;
mod field_names;
mod identity_field;

use super::entry::Entry;

macro_rules! builtin {
    ($($file:ident::$filter:ident,)*) => {
        $(pub(crate) mod $file;)*

        /// All of them.
        pub(super) fn all() -> Vec<Entry> {
            vec![$(Entry::of::<$file::$filter>()),*]
        }
    };
}

builtin! {
    acl::Acl,
    anonymous::Anonymous,
    any_of::AnyOf,
    api_key::ApiKey,
    basic::Basic,
    body_limit::BodyLimit,
    client_cert::ClientCert,
    compression::Compression,
    cors::Cors,
    flood::Flood,
    forward_auth::ForwardAuth,
    headers::Headers,
    hmac::Hmac,
    in_flight::InFlight,
    ip::Ip,
    jwt::Jwt,
    rate_limit::RateLimit,
    request_id::RequestIdFilter,
}
