//! TLS on both sides: what is shown to clients and asked of them (`server`), and what is shown to backends and asked of
//! them (`client`). Which files, which versions, whom to trust; handshakes are made where connections are.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod pem;
pub(crate) mod server;
mod sessions;
pub(crate) mod stamp;
