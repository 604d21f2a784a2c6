//! Connections of clients, between a listener and Pingora's HTTP layer: what happens to them before any request.
//!
//! Why there is one. First, Pingora drops connections that wait for their first request as soon as the service shuts
//! down; one that was accepted a moment earlier has such a request on the wire, and its client sees a reset. That is
//! the request which stock upgrades lose. This application tells the HTTP layer a little later, when whoever had
//! connected has asked. Second, Pingora keeps the whole machinery of a request while a connection idles: some 45 KB.
//! This one waits for the head by itself, and starts that machinery only then. Third, what Pingora does not have at all:
//! a time limit for a whole head and for a handshake (its own is 60 s), limits on connections, the PROXY protocol,
//! client certificates that filters can see, and heads read strictly (`message/request_head.rs`).
//!
//! There is one application per listener: what a connection is granted depends on the socket that accepted it, and on nothing
//! that could be found out about it afterwards.

mod ahead;
pub(crate) mod app;
pub(crate) mod connection;
pub(crate) mod connection_limits;
pub(crate) mod deadlines;
mod exchange;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub(crate) mod h1;
pub(crate) mod h2;
mod hangup;
pub(crate) mod head_reader;
pub(crate) mod host;
mod kept;
pub(crate) mod limits;
mod linger;
pub(crate) mod listener;
pub(crate) mod metrics;
pub(crate) mod proxy_protocol;
mod read_ahead;
mod requests;
pub(crate) mod stream;
mod transport;
pub(crate) mod validate;
mod websocket;

pub(crate) use self::ahead::SharedBody;
pub(crate) use self::app::App;
pub(crate) use self::deadlines::{Lateness, StreamDeadlines};
pub(crate) use self::{
    connection::ConnectionInfo,
    listener::{Listener, ListenerConfig, address},
    metrics::ConnectionMetrics,
};
