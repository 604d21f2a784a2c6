//! The built-in filters, a file each. What stands in the list below is compiled and may be named in YAML: a new filter is its
//! file and one line.

mod field_names;

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
    api_key::ApiKey,
    body_limit::BodyLimit,
    client_cert::ClientCert,
    compression::Compression,
    cors::Cors,
    headers::Headers,
    hmac::Hmac,
    in_flight::InFlight,
    ip::Ip,
    jwt::Jwt,
    rate_limit::RateLimit,
    request_id::RequestIdFilter,
}
