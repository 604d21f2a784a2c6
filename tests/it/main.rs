//! Integration tests: the real binary, real backends, real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say so and end")]

mod after;
mod answers;
mod harness;

mod admin;
mod auth;
mod blame;
mod checks;
mod compression;
mod config_errors;
mod corpus;
mod deadlines;
mod discovery;
mod files;
mod filters;
mod grpc;
mod handover;
mod hostile;
mod http2;
mod identity;
mod letter;
mod limit;
mod listeners;
mod names;
mod operation;
mod pace;
mod paths;
mod pipelining;
mod process;
mod real_backends;
mod reasons;
mod resilience;
mod retry;
mod routing;
mod service;
mod slow;
mod strict;
mod stuck;
mod tls;
mod tunnels;
mod upgrade;
mod upstream_h2;
mod upstream_tls;
mod waiting;
mod websocket;
